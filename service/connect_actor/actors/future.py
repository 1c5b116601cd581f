"""The future of a dispatched actor's answer.

A ``LoopFuture`` does what Pykka's ``ThreadingFuture`` does, and can besides be awaited on an event
loop and call back when it is done. It makes no condition variable, since almost every answer is
set before, or awaited without, any thread blocking for it.

Invariants:

1. It is set once; the first outcome stays. A second ``set`` raises ``queue.Full``, as in Pykka.
2. ``set`` raises nothing else, whatever became of those who wait: a cancelled task, a closed loop
   or a callback that raises is nobody else's affair, least of all the answering actor's.
3. It never blocks a thread that runs an event loop: ``get`` raises ``WouldBlockError`` there.
"""

import asyncio
import logging
import queue
import sys
import threading
from collections.abc import Callable, Generator
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

from pykka import Future, Timeout

from connect_actor.actors.work import Payer

__all__ = ["ExcInfo", "LoopFuture", "WouldBlockError", "standing_in_for"]

T = TypeVar("T")

ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]
"""What ``sys.exc_info()`` returns."""

_log = logging.getLogger(__name__)

# Stands for every future's own lock: it is held for a few bytecodes only, and one shared lock saves
# each future the making of its own.
_lock = threading.Lock()


# Pykka knows "no hook result yet" by the value's class, which is its own: any other sentinel would
# pass for a result, and ``stop(block=True)`` and ``map()`` would return it at once.
_NO_HOOK_RESULT: Any = Future[Any]()._get_hook_result  # noqa: SLF001


class WouldBlockError(RuntimeError):
    """``get()`` of a future without a result, on a thread that runs an event loop.

    Waiting would keep the loop from running what is to set the result. Await the future, give it a
    callback, or call ``get()`` on another thread.
    """

    def __init__(self, future: "LoopFuture[Any]") -> None:
        super().__init__(
            "get() would block the event loop that runs on this thread:"
            " await the future, or use add_done_callback()"
        )
        self.future = future
        """The future that has no result yet; the one asked for, or one that it derives from."""


class LoopFuture(Future[T]):
    """A Pykka future that event loops can use; see the module's text for what it promises.

    ``map``, ``filter``, ``join`` and ``reduce`` are Pykka's: the function runs when the derived
    future is waited for, on the thread that waits. ``await`` of a derived future calls it on the
    event loop once all that it needs from other ``LoopFuture`` objects is there.
    """

    __slots__ = (
        "_callbacks",
        "_done",
        "_exc_info",
        "_get_hook",
        "_get_hook_result",
        "_value",
        "payer",
        "request_id",
    )

    payer: Payer
    """Who pays for the message that is answered; seldom set."""
    request_id: str
    """Whose answer this is, for ``observe.tracing``; seldom set."""

    def __init__(self) -> None:
        # All that Pykka's __init__ does, too: calling it would double the cost of an ask's future.
        self._get_hook = None
        self._get_hook_result = _NO_HOOK_RESULT
        self._done = False
        self._value: Any = None
        self._exc_info: ExcInfo | None = None
        self._callbacks: list[Callable[[LoopFuture[T]], object]] | None = None

    def done(self) -> bool:
        """Say whether ``set`` or ``set_exception`` was called (never so with a get hook)."""
        return self._done

    def set(self, value: T | None = None) -> None:
        """Set the result, and run the callbacks on this thread.

        Raises:
            queue.Full: an outcome or a get hook is set already.
        """
        with _lock:
            if self._done or self._get_hook is not None:
                raise queue.Full
            self._value = value
            self._done = True
            callbacks, self._callbacks = self._callbacks, None
        if callbacks is not None:
            self._run(callbacks)

    def set_exception(self, exc_info: ExcInfo | None = None) -> None:
        """Set an exception as the outcome, and run the callbacks on this thread.

        Args:
            exc_info: as ``sys.exc_info()`` returns it; without, the exception in hand.

        Raises:
            queue.Full: an outcome or a get hook is set already.
            TypeError: neither an argument nor an exception in hand.
        """
        exc_info = exc_info or sys.exc_info()
        if exc_info[0] is None:
            raise TypeError("set_exception() needs exc_info, or an exception being handled")
        with _lock:
            if self._done or self._get_hook is not None:
                raise queue.Full
            self._exc_info = exc_info
            self._done = True
            callbacks, self._callbacks = self._callbacks, None
        if callbacks is not None:
            self._run(callbacks)

    def set_get_hook(self, func: Callable[[float | None], T]) -> None:
        """Let ``get`` call a function, with the timeout, for its result.

        Set it before anyone waits. Unlike a ``ThreadingFuture``'s, the hook may run more than once:
        on several threads that ``get()`` at the same time, and again each time that an ``await``
        has found it lacking something (``WouldBlockError`` from another future's ``get``).

        Raises:
            queue.Full: an outcome is set already.
        """
        with _lock:
            if self._done:
                raise queue.Full
            self._get_hook = func

    def get(self, *, timeout: float | None = None) -> Any:  # noqa: ANN401 - as Pykka's own
        """Return the result, or raise the exception, that was set; block until there is one.

        Args:
            timeout: seconds to wait.

        Raises:
            pykka.Timeout: there is none by then.
            WouldBlockError: there is none yet, and this thread runs an event loop.
        """
        if self._get_hook is not None:
            return super().get(timeout=timeout)
        if not self._done:
            self._block(timeout)
        return self._outcome()

    def __await__(self) -> Generator[Any, None, T]:
        """Wait for the result without blocking the event loop.

        Cancelling the waiting task leaves the future, and other waiters, as they are.
        """
        if self._get_hook is None:
            if not self._done:
                yield from self._wait()
            result: T = self._outcome()
            return result
        while True:
            try:
                result = self.get()
            except WouldBlockError as error:
                lacking = error.future
            else:
                return result
            yield from lacking._wait()  # noqa: SLF001 - this very class

    __iter__ = __await__

    def add_done_callback(self, callback: Callable[["LoopFuture[T]"], object]) -> None:
        """Call back with this future once it is done; at once if it is.

        The callback runs on the thread that sets the outcome (an actor's answer: the dispatcher's),
        within the setter's call: it must be quick and must not block. What it raises is logged.

        Raises:
            TypeError: the future has a get hook: nobody sets it, so it is never done.
        """
        with _lock:
            if self._get_hook is not None:
                raise TypeError("a future with a get hook is never set: await it")
            if not self._done:
                if self._callbacks is None:
                    self._callbacks = [callback]
                else:
                    self._callbacks.append(callback)
                return
        self._run([callback])

    def pass_on(self, other: Future[Any]) -> None:
        """Set this future's outcome on another future as well, as soon as there is one."""
        self.add_done_callback(partial(_copy, other))

    def _outcome(self) -> Any:  # noqa: ANN401 - what was set
        if self._exc_info is None:
            return self._value
        exc_type, exc_value, traceback = self._exc_info
        if exc_value is None and exc_type is not None:
            exc_value = exc_type()
        # Raising adds frames to the traceback: begin each time with the one that was set.
        raise exc_value.with_traceback(traceback)  # type: ignore[union-attr] # one is not None

    def _run(self, callbacks: list[Callable[["LoopFuture[T]"], object]]) -> None:
        for callback in callbacks:
            try:
                callback(self)
            except Exception:  # noqa: BLE001 - rule 2 of the module
                _log.exception("a future's callback failed: %r", callback)

    def _forget(self, callback: Callable[["LoopFuture[T]"], object]) -> None:
        """Drop a callback whose waiter has given up, so that waiting in vain leaves no trace."""
        with _lock:
            if self._callbacks is not None and callback in self._callbacks:
                self._callbacks.remove(callback)

    def _block(self, timeout: float | None) -> None:
        if _running_loop() is not None:
            raise WouldBlockError(self)
        done = threading.Event()
        callback = partial(_set_event, done)
        self.add_done_callback(callback)
        if not done.wait(timeout):
            self._forget(callback)
            # It may have come at the last moment; then it is a result after all.
            if not self._done:
                raise Timeout(f"{timeout} seconds")

    def _wait(self) -> Generator[Any, None, None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        callback = partial(_wake, waiter)
        self.add_done_callback(callback)
        try:
            yield from waiter
        except BaseException:
            self._forget(callback)
            raise


def standing_in_for(reply: Future[Any]) -> LoopFuture[Any]:
    """Return a future that carries what another one says of its message; nothing is passed on."""
    relay: LoopFuture[Any] = LoopFuture()
    for name in ("payer", "request_id"):
        if hasattr(reply, name):
            setattr(relay, name, getattr(reply, name))
    return relay


def _copy(other: Future[Any], done: LoopFuture[Any]) -> None:
    if done._exc_info is None:  # noqa: SLF001 - this module's own class
        other.set(done._value)  # noqa: SLF001
    else:
        other.set_exception(done._exc_info)  # noqa: SLF001


def _set_event(event: threading.Event, _done: object) -> None:
    event.set()


def _wake(waiter: asyncio.Future[None], _done: object) -> None:
    """Resume a waiting task, from whichever thread the outcome was set on."""
    loop = waiter.get_loop()
    if _running_loop() is loop:
        _release(waiter)
        return
    try:
        loop.call_soon_threadsafe(_release, waiter)
    except RuntimeError:
        _log.debug("the loop of a task that waited for a future is closed")


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():  # its task may have been cancelled meanwhile
        waiter.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
