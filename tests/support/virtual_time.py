"""An event loop whose time passes only when nothing is left to do: hours of load in no time."""

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

__all__ = ["SECOND", "NoThread", "VirtualClock", "run_virtually"]

SECOND = 1_000_000_000

_Result = TypeVar("_Result")


class VirtualClock:
    """Nanoseconds, moved by the loop, or by a test that lets this process stand still."""

    def __init__(self) -> None:
        # No zero: it stands for "not yet".
        self.nanoseconds = SECOND

    def __call__(self) -> int:
        return self.nanoseconds

    def pass_by(self, seconds: float) -> None:
        """Let time pass while everything that runs on the loop waits."""
        self.nanoseconds += math.ceil(seconds * SECOND)


class _Selector(selectors.SelectSelector):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self._clock.pass_by(timeout)
        elif not ready and timeout is None:
            raise AssertionError("everything waits for something that never comes")
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: VirtualClock) -> None:
        super().__init__(_Selector(clock))
        self._clock = clock

    def time(self) -> float:
        return self._clock.nanoseconds / SECOND


class NoThread(Executor):
    """Runs what it is given at once: on a virtual loop nobody could wait for another thread."""

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401 - as the base class
        done: Future[Any] = Future()
        done.set_result(work(*args, **kwargs))
        return done


def run_virtually(work: Callable[[VirtualClock], Coroutine[Any, Any, _Result]]) -> _Result:
    """Run what ``work`` makes of a clock on a loop that goes by this clock."""
    clock = VirtualClock()
    with asyncio.Runner(loop_factory=lambda: _VirtualLoop(clock)) as runner:
        return runner.run(work(clock))
