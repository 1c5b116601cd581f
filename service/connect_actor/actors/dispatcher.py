"""The dispatcher: runs the turns of many actors, and other parts of the work, on one event loop.

It knows nothing of actors: whatever has something to do (a mailbox that holds messages) asks for a
turn, and gets it on the loop's thread. What has nothing to do is unknown to the dispatcher, so a
hundred thousand idle actors cost it nothing.

Turns belong to *flows*, usually a caller's. The flows that have something to do take turns in
rotation, so a caller with a thousand busy channels delays another by one turn, not by a thousand.

Invariants:

1. All turns of one dispatcher run on one thread, one after another. Turns of one flow run in the
   order asked for; flows take turns in rotation, a new one last.
2. A turn is to end once ``turn_over`` says so, after ``TURN_SECONDS``, whatever its steps cost; a
   single step is not interrupted. What is served without a turn (``may_serve``) is as little.
3. Turns run in passes, one callback of the loop each. A pass ends after ``PASS_SECONDS``, so that
   I/O, timers and tasks get their share however many actors are busy.
4. At most one wake-up of the loop is under way, however many turns are asked for meanwhile, from
   whichever threads.
5. Who asks for a turn gets it, or is told that it never will (``abandon``).
"""

import asyncio
import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, Self, TypeVar

from connect_actor.observe.counting import SIZES, Distribution

__all__ = [
    "DEEPEST",
    "PASS_SECONDS",
    "TURN_SECONDS",
    "Dispatcher",
    "MailboxStatistics",
    "Runnable",
]

_T = TypeVar("_T")

# How long a pass may keep the event loop from its other work. One more look at the sockets costs
# the loop some 10 µs: once in 2 ms that is half a percent, and 2 ms of delay are within what a
# durable commit takes.
PASS_SECONDS = 0.002
# Some thirty ordinary messages: enough to make a turn's own cost vanish, little enough for other
# flows to get theirs soon.
TURN_SECONDS = 0.001

_log = logging.getLogger(__name__)


class Runnable(Protocol):
    """Something that can be given a turn."""

    def run(self) -> None:
        """Take the turn, on the dispatcher's thread. What it raises is logged, and lost."""

    def abandon(self) -> None:
        """Give up: the dispatcher is closed. Runs on any thread."""


class _Work(Generic[_T]):
    """A function that is called in a turn, for a task that waits for its result."""

    __slots__ = ("_function", "_result")

    def __init__(self, function: Callable[[], _T], result: "asyncio.Future[_T]") -> None:
        self._function = function
        self._result = result

    def run(self) -> None:
        if self._result.done():  # its task was cancelled
            return
        try:
            self._result.set_result(self._function())
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            self._result.set_exception(error)

    def abandon(self) -> None:
        self._result.cancel()


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
            clock: seconds; measures how long turns and passes take.
        """
        self.mailboxes = MailboxStatistics()
        """For the mailboxes that take turns here to count in."""
        self._loop = loop
        self._clock = clock
        self._asked: deque[tuple[Runnable, Hashable]] = deque()  # by any thread, not sorted yet
        # In the order of their next turns. (Taking a plain dict's first key over and over searches
        # past all those taken before.)
        self._flows: OrderedDict[Hashable, deque[Runnable]] = OrderedDict()
        self._turn_ends = 0.0
        self.in_turn = False
        """Whether an actor is handling messages: no other may begin until it is done."""
        self._turn_in_hand = False
        self._at_once_until: float | None = None
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

    def schedule(self, runnable: Runnable, flow: Hashable = None) -> None:
        """Ask for one turn, as part of a flow. From any thread; cheap while the loop is awake."""
        self._asked.append((runnable, flow))
        # Appended first, looked second: a pass that ends just now looks in the other order.
        if not self._awake:
            self._wake()

    def turn_over(self) -> bool:
        """Say whether the turn in hand has had its time. On the loop's thread."""
        return self._clock() >= self._turn_ends

    def may_serve(self) -> bool:
        """Say whether an idle actor may serve a message now, without asking for a turn.

        It may within the turn of a flow, and otherwise, while no flow waits for a turn, for
        ``TURN_SECONDS`` in each pass of the loop. On the loop's thread.
        """
        if self.in_turn:
            return False
        if self._turn_in_hand:
            return True
        if self._flows or self._asked:
            return False
        now = self._clock()
        if self._at_once_until is None:
            self._at_once_until = now + TURN_SECONDS
            self._loop.call_soon(self._end_at_once)
        return now < self._at_once_until

    def _end_at_once(self) -> None:
        self._at_once_until = None

    def take_turn(self, function: Callable[[], _T]) -> _T:
        """Call a function in a turn of its own, now that ``may_serve`` allows it."""
        self._turn_ends = self._clock() + TURN_SECONDS
        self._turn_in_hand = True
        try:
            return function()
        finally:
            self._turn_in_hand = False

    async def turn(self, function: Callable[[], _T], flow: Hashable) -> _T:
        """Call a function in one turn of a flow; return, or raise, what it does.

        Raises:
            CancelledError: the dispatcher is closed.
        """
        result: asyncio.Future[_T] = self._loop.create_future()
        self.schedule(_Work(function, result), flow)
        return await result

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
        asked, flows = self._asked, self._flows
        clock = self._clock
        now = clock()
        pass_ends = now + PASS_SECONDS
        while True:
            while asked:
                runnable, flow = asked.popleft()
                waiting = flows.get(flow)
                if waiting is None:
                    flows[flow] = deque((runnable,))
                else:
                    waiting.append(runnable)
            if not flows:
                break
            if now >= pass_ends:
                self._loop.call_soon(self._run_pass)
                return
            flow = next(iter(flows))
            waiting = flows[flow]
            runnable = waiting.popleft()
            if waiting:
                flows.move_to_end(flow)
            else:
                del flows[flow]
            self._turn_ends = now + TURN_SECONDS
            self._turn_in_hand = True
            try:
                runnable.run()
            except BaseException:  # noqa: BLE001 - see the next line
                # Out of here it would end the event loop, and with it everybody's work.
                _log.critical("a turn failed: %r", runnable, exc_info=True)
            self._turn_in_hand = False
            now = clock()
        self._awake = False
        if asked:  # another thread appended after the last look, and saw the dispatcher awake
            self._wake()

    def _abandon_ready(self) -> None:
        while self._flows:
            _, waiting = self._flows.popitem(last=False)
            for runnable in waiting:
                runnable.abandon()
        while True:
            try:
                runnable, _ = self._asked.popleft()
            except IndexError:  # also if another thread took the last one
                return
            runnable.abandon()
