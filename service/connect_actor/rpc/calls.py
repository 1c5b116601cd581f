"""grpcio's asyncio server, with the two things that it lacks against callers who mean harm.

grpcio (1.85, ``aio/server.pyx.pxi``) decodes the name of an unknown method as UTF-8 outside of any
call, so that one call to a name that is none ends the server. Here every method is a registered
one, whose name is ours, and a call to any other is refused without a look at its name. And grpcio
has no way to end a call whose peer does not read: its status waits behind the data that the peer
does not take. Here a call can be dropped, which resets its stream and frees all that it holds (of
the last call that was taken up: once the next one is).

Both rest on internals of grpcio: ``tests/rpc/test_calls.py`` and ``test_strangers.py`` fail if
these change.
"""

import asyncio
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar, copy_context
from typing import Any

import grpc
from grpc._cython import cygrpc  # type: ignore[attr-defined, unused-ignore] # it has no stubs

__all__ = ["CallTask", "Handlers", "guarded_server"]

_UNIMPLEMENTED = "no such method: this service has those of its connect.proto"

# The name that grpcio gives the task which lasts as long as its call.
_CALL = "rpc_task"


class CallTask:
    """The two tasks of one call: grpcio's, which lasts as long as the call, and the handler's."""

    __slots__ = ("_handler", "_whole")

    def __init__(self) -> None:
        # Both tasks hold their context, and that holds this.
        self._whole: weakref.ref[asyncio.Task[Any]] | None = None
        self._handler: weakref.ref[asyncio.Task[Any]] | None = None

    @classmethod
    def current(cls) -> "CallTask":
        """Return that of the call which is being handled; outside of a server, of the task."""
        call = _current.get(None) or cls()
        call.handled()
        return call

    def started(self, task: "asyncio.Task[Any]") -> None:
        """Take note of grpcio's task."""
        self._whole = weakref.ref(task)

    def handled(self) -> None:
        """Take note of the handler's task, which this is."""
        task = asyncio.current_task()
        self._handler = None if task is None else weakref.ref(task)

    def when_over(self, act: Callable[[], object]) -> None:
        """Do something when the call has ended: all of it is written, or it was dropped."""
        whole = _task_of(self._whole or self._handler)
        if whole is None:
            act()
        else:
            whole.add_done_callback(lambda _: act())

    def cancel_handler(self) -> None:
        """Cancel what the call's handler does."""
        handler = _task_of(self._handler)
        if handler is not None:
            handler.cancel()

    def uncancelled(self) -> bool:
        """Take one cancellation of the handler back; say whether there was no other."""
        handler = _task_of(self._handler)
        return handler is None or handler.uncancel() == 0

    def drop(self) -> None:
        """End the call at once: its peer is sent a reset, and nothing of it is kept."""
        whole = _task_of(self._whole)
        if whole is not None:
            whole.cancel()
        self.cancel_handler()


_current: ContextVar[CallTask] = ContextVar("call")


def _task_of(reference: "weakref.ref[asyncio.Task[Any]] | None") -> "asyncio.Task[Any] | None":
    return None if reference is None else reference()


class _NotingLoop:
    """The event loop, as far as grpcio's server uses it: tells each call's task of itself."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the loop has
        return getattr(self._loop, name)

    def create_task(
        self, work: Coroutine[Any, Any, Any], *, name: str | None = None
    ) -> "asyncio.Task[Any]":
        if name != _CALL:
            return self._loop.create_task(work, name=name)
        call, context = CallTask(), copy_context()
        context.run(_current.set, call)
        task = self._loop.create_task(work, name=name, context=context)
        call.started(task)
        return task


class _Server(cygrpc.AioServer):  # type: ignore[misc, name-defined, unused-ignore]
    """See the module's text."""

    _refusing: "asyncio.Task[None] | None" = None

    def _make_request_call_future(self, method: bytes | None) -> "asyncio.Future[Any]":
        """Return the next call to a registered method, or the task that refuses all others."""
        if method is not None:
            future: asyncio.Future[Any] = super()._make_request_call_future(method)
            return future
        self._refusing = asyncio.ensure_future(self._refuse_unknown())
        return self._refusing

    async def _refuse_unknown(self) -> None:
        refusals: set[asyncio.Task[None]] = set()
        while True:
            # Raises once the server stops, which is what grpcio's own loop waits for.
            call = await self._request_call()
            if len(refusals) >= _MAX_REFUSALS:
                # Given up with its last reference, it is reset.
                continue
            refusal = asyncio.ensure_future(_refuse(call))
            refusals.add(refusal)
            refusal.add_done_callback(refusals.discard)


# Refusals of unknown methods that may wait to be written at a time, and for how many seconds.
_MAX_REFUSALS = 1_024
_REFUSING = 5.0


async def _refuse(call: Any) -> None:  # noqa: ANN401 - grpcio's RPCState
    loop = asyncio.get_running_loop()
    context = cygrpc._ServicerContext(call, None, None, loop)  # noqa: SLF001 - see above
    # Given up, it drops the call with its last reference.
    with suppress(grpc.aio.BaseError, TimeoutError):
        async with asyncio.timeout(_REFUSING):
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, _UNIMPLEMENTED)


Handlers = Mapping[str, "grpc.RpcMethodHandler[Any, Any]"]
"""Handlers of methods, by ``/service/method``."""


def guarded_server(handlers: Handlers, options: Sequence[tuple[str, int]]) -> grpc.aio.Server:
    """Make a server of these methods, with gRPC's channel arguments."""
    loop = _NotingLoop(asyncio.get_running_loop())
    core = _Server(loop, None, (), (), tuple(options), None)
    core.add_registered_method_handlers(dict(handlers))
    server: Any = grpc.aio.server()
    server._server = core  # noqa: SLF001 - see above
    made: grpc.aio.Server = server
    return made
