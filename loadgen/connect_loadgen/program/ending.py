"""When a command ends before it is done: at a signal, or when its time is up.

The first SIGINT, SIGTERM or SIGHUP ends the command in order: what is under way is given up or
stopped, and what was measured until then becomes the result. The second signal, and SIGQUIT, end
the process at once. Either way no child process and no temporary directory is left.

A command gives its work to ``part``. What is of no use unless it is complete (a round, the start of
a service) is cancelled. A load that is of use when it is shorter says by ``rather`` how it is
stopped instead.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import FrameType
from typing import Any, TypeVar

from connect_loadgen.program.child import kill_all_children
from connect_loadgen.program.exits import Exit
from connect_loadgen.program.scratch import remove_scratch

__all__ = ["Ended", "Ending", "ending", "heeding_signals"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_SHOW_CURSOR = b"\x1b[?25h"

_Result = TypeVar("_Result")


class Ended(BaseException):
    """Work was given up because the command ends early; the message says why.

    No ``Exception``: nothing that handles a failure of the work takes this for one.
    """


class Ending:
    """Whether one command ends early, why, and how what is under way is stopped.

    Attributes:
        reason: why it ends early; nothing if it does not.
        by_signal: whether a signal is the reason, or came after another one.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.by_signal = False
        self._stops: list[Callable[[str], object]] = [_give_up]

    def end(self, reason: str) -> None:
        """End early, unless that is under way already.

        Raises:
            Ended: nothing is under way that could be stopped otherwise.
        """
        if self.reason is None:
            self.reason = reason
            self._stops[-1](reason)

    async def part(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Do a part of the command, and cancel it if the command ends early.

        Raises:
            Ended: the command ends early: the part was cancelled, or not begun.
        """
        if (reason := self.reason) is not None:
            work.close()
            raise Ended(reason)
        loop = asyncio.get_running_loop()
        task = loop.create_task(work)
        self._stops.append(lambda _: loop.call_soon_threadsafe(task.cancel))
        try:
            return await task
        except (asyncio.CancelledError, Exception):
            # What fails while it is being cancelled fails for that.
            if self.reason is None or not task.cancelling():
                raise
            raise Ended(self.reason) from None
        finally:
            self._stops.pop()

    def rather(self, stop: Callable[[str], object]) -> None:
        """Until the current part is over, call ``stop`` with the reason instead of cancelling."""
        loop = asyncio.get_running_loop()
        self._stops[-1] = lambda reason: loop.call_soon_threadsafe(stop, reason)

    @contextmanager
    def put_off(self) -> Iterator[None]:
        """Only note that the command ends early, while something short must be finished."""
        self._stops.append(lambda _: None)
        try:
            yield
        finally:
            self._stops.pop()

    def on_signal(self, number: int, _: FrameType | None = None) -> None:
        """End early at the first signal, and at once at the second or at SIGQUIT."""
        if self.by_signal or number == signal.SIGQUIT:
            _leave_at_once()
        self.by_signal = True
        self.end(f"ended by {signal.Signals(number).name}")


_current: ContextVar[Ending | None] = ContextVar("_current", default=None)


def ending() -> Ending:
    """Return the current command's; one that never comes where no command runs."""
    current = _current.get()
    return Ending() if current is None else current


@contextmanager
def heeding_signals() -> Iterator[Ending]:
    """Run a command that ends early at a signal; for the main thread.

    SIGHUP stays ignored where it is, as under nohup(1).
    """
    current = Ending()
    token = _current.set(current)
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    for number, handler in before.items():
        if number != signal.SIGHUP or handler is not signal.SIG_IGN:
            signal.signal(number, current.on_signal)
    try:
        yield current
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _current.reset(token)


def _give_up(reason: str) -> None:
    raise Ended(reason)


def _leave_at_once() -> None:
    kill_all_children()
    remove_scratch()
    if sys.stderr is not None and sys.stderr.isatty():
        with suppress(OSError):
            os.write(sys.stderr.fileno(), _SHOW_CURSOR)
    os._exit(Exit.INTERRUPTED)
