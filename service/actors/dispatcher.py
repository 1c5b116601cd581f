"""The dispatcher: runs the turns of many actors on one event loop.

It knows nothing of actors: whoever has something to do (a mailbox that holds messages) asks for a
turn, and gets it on the loop's thread. Whoever has nothing to do is unknown to the dispatcher, so a
hundred thousand idle actors cost it nothing.

Invariants:

1. All turns of one dispatcher run on one thread, one after another, in the order asked for.
2. Turns run in passes, one callback of the loop each. A pass ends after ``PASS_SECONDS``, so that
   I/O, timers and tasks get their share however many actors are busy.
3. At most one wake-up of the loop is under way, however many turns are asked for meanwhile, from
   whichever threads.
4. Who asks for a turn gets it, or is told that it never will (``abandon``).
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol, Self

from service.counting import SIZES, Distribution

__all__ = ["DEEPEST", "PASS_SECONDS", "Dispatcher", "MailboxStatistics", "Runnable"]

# How long a pass may keep the event loop from its other work. One more look at the sockets costs
# the loop some 10 µs: once in 2 ms that is half a percent, and 2 ms of delay are within what a
# durable commit takes.
PASS_SECONDS = 0.002

_log = logging.getLogger(__name__)


class Runnable(Protocol):
    """Something that can be given a turn."""

    def run(self) -> None:
        """Take the turn, on the dispatcher's thread. What it raises is logged, and lost."""

    def abandon(self) -> None:
        """Give up: the dispatcher is closed. Runs on any thread."""


# More than this wait in a mailbox only if signals come on top of its capacity.
DEEPEST = SIZES[-1]


@dataclass(slots=True)
class MailboxStatistics:
    """Counts of all mailboxes of one dispatcher since the start, for whoever publishes them."""

    depths: list[int] = field(default_factory=lambda: [0] * (DEEPEST + 1))
    """How often a turn began with so many messages waiting; the last holds all from there on."""
    rejected: int = 0
    """Messages refused because the mailbox was full."""

    @property
    def depth(self) -> Distribution:
        """The same as a distribution; the hot path has only to count."""
        distribution = Distribution(SIZES)
        for depth, times in enumerate(tuple(self.depths)):
            if times:
                distribution.add(depth, times)
        return distribution


class Dispatcher:
    """Gives turns on an event loop; see the module's text for what it promises."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Give turns on ``loop``, whichever thread runs it and whenever it does.

        Args:
            loop: runs the passes.
            clock: seconds; measures how long a pass takes.
        """
        self.mailboxes = MailboxStatistics()
        """For the mailboxes that take turns here to count in."""
        self._loop = loop
        self._clock = clock
        self._ready: deque[Runnable] = deque()
        self._awake = False  # a pass is under way or on its way
        self._closed = False
        self._thread: int | None = None  # the loop's, known from the first pass on

    @classmethod
    @contextmanager
    def in_thread(cls) -> Iterator[Self]:
        """Have a dispatcher on an event loop of its own, in a daemon thread.

        For synchronous programs, tests and benchmarks. Stop the actors before leaving: what is
        still alive then is abandoned, without its ``on_stop``.
        """
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, name="dispatcher", daemon=True)
        thread.start()
        dispatcher = cls(loop)
        try:
            yield dispatcher
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            dispatcher.close()
            loop.close()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that turns run on."""
        return self._loop

    def schedule(self, runnable: Runnable) -> None:
        """Ask for one turn. From any thread; cheap while the dispatcher is awake."""
        self._ready.append(runnable)
        # Appended first, looked second: a pass that ends just now looks in the other order.
        if not self._awake:
            self._wake()

    def close(self) -> None:
        """Give no more turns: abandon those who wait for one, and all who ask from now on.

        To be called while the loop is not running, or on its thread.
        """
        self._closed = True
        self._awake = False
        self._abandon_ready()

    def _wake(self) -> None:
        if self._closed:
            self._abandon_ready()
            return
        self._awake = True
        try:
            if threading.get_ident() == self._thread:
                self._loop.call_soon(self._run_pass)
            else:
                self._loop.call_soon_threadsafe(self._run_pass)
        except RuntimeError:  # someone closed the loop without closing the dispatcher
            self.close()

    def _run_pass(self) -> None:
        if self._closed:
            return
        self._thread = threading.get_ident()
        ready = self._ready
        clock = self._clock
        end = clock() + PASS_SECONDS
        while ready:
            runnable = ready.popleft()
            try:
                runnable.run()
            except BaseException:  # noqa: BLE001 - see the next line
                # Out of here it would end the event loop, and with it everybody's work.
                _log.critical("a turn failed: %r", runnable, exc_info=True)
            if clock() >= end and ready:
                self._loop.call_soon(self._run_pass)
                return
        self._awake = False
        if ready:  # another thread appended after the last look, and saw the dispatcher awake
            self._wake()

    def _abandon_ready(self) -> None:
        while True:
            try:
                runnable = self._ready.popleft()
            except IndexError:  # also if another thread took the last one
                return
            runnable.abandon()
