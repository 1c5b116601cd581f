"""An event loop and a journal's thread that do one thing at a time, when and which they are told.

Real loops run what is ready in order; here any of it may be next. That is more than can happen
(timers, sockets and other threads shuffle less), so what holds here holds there.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor, Future
from contextvars import Context
from itertools import count
from typing import Any, TypeVar, TypeVarTuple

__all__ = ["Clock", "SteppedLoop", "SteppedThread"]


_Args = TypeVarTuple("_Args")
_Result = TypeVar("_Result")


class Clock:
    """Seconds, which pass only when told."""

    def __init__(self) -> None:
        self.now = 1_000.0


class SteppedLoop(asyncio.AbstractEventLoop):
    """What futures, tasks and the service use of an event loop."""

    def __init__(self, clock: Clock) -> None:
        self.failures: list[str] = []
        """What callbacks raised: nothing of the service may raise into the loop."""
        self._clock = clock
        self._ready: list[asyncio.Handle] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = count()

    # --- What the service uses ----------------------------------------------------------------

    def time(self) -> float:
        return self._clock.now

    def call_soon(
        self, callback: Callable[[*_Args], object], *args: *_Args, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Args], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Args], object],
        *args: *_Args,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        return handle

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any],  # type: ignore[override] # no generators here
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def run_in_executor(  # type: ignore[override] # no default executor here
        self, executor: Executor, func: Callable[[*_Args], _Result], *args: *_Args
    ) -> asyncio.Future[_Result]:
        done: asyncio.Future[_Result] = self.create_future()
        executor.submit(lambda: done.set_result(func(*args)))
        return done

    def get_debug(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.failures.append(f"{context['message']}: {context.get('exception')!r}")

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Asked by asyncio's handles; dropped when its time comes."""

    # --- What the scheduler uses --------------------------------------------------------------

    @property
    def ready(self) -> int:
        """How many callbacks could run now."""
        self._ready = [handle for handle in self._ready if not handle.cancelled()]
        return len(self._ready)

    def run(self, position: int) -> None:
        """Run one of them."""
        handle = self._ready.pop(position)
        asyncio._set_running_loop(self)
        try:
            handle._run()
        finally:
            asyncio._set_running_loop(None)

    def pass_time(self) -> None:
        """Let time pass until the next timer is due, which is then ready."""
        while self._timers:
            when, _, handle = heapq.heappop(self._timers)
            if not handle.cancelled():
                self._clock.now = max(self._clock.now, when)
                self._ready.append(handle)
                return


class SteppedThread(Executor):
    """The journal's thread: what it is given waits until the scheduler says so."""

    def __init__(self) -> None:
        self.jobs: deque[Callable[[], object]] = deque()

    def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:  # noqa: ANN401 - as the base class
        self.jobs.append(lambda: work(*args, **kwargs))
        return Future()

    def run(self) -> None:
        """Do the next piece of work."""
        self.jobs.popleft()()
