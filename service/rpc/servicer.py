"""The gRPC service: unary calls, each one operation. Streams are in ``service.rpc.exchange``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, NoReturn, TypeVar, cast

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from protos.connect_actor.v1 import connect_pb2 as wire
from protos.connect_actor.v1.connect_pb2_grpc import ConnectServiceServicer
from service.access.gate import Caller, Gate
from service.access.quotas import Account
from service.actors.commands import refuse
from service.actors.future import ExcInfo, LoopFuture
from service.actors.router import Routes
from service.errors import (
    ConnectError,
    DeadlineExceededError,
    OverloadedError,
    UnauthenticatedError,
)
from service.rpc.admission import Admission, Bounds
from service.rpc.exchange import Exchange, StreamLimits
from service.rpc.operations import OPERATIONS, OperationKind
from service.rpc.statistics import RequestStatistics
from service.rpc.status import public_error, status_of, tell_refusal
from service.tracing import REQUEST_ID, acceptable_id, fresh_id, note, tracing

__all__ = ["ConnectServicer"]

_Context = grpc.aio.ServicerContext[Any, Any]
_Response = TypeVar("_Response")

_SLOW_READER = OverloadedError(
    "the peer has read no answers for too long: open a new stream, and read what it brings"
)


class _Reply(LoopFuture[Any]):
    """The answer to a call."""

    __slots__ = ()

    def set_exception(self, exc_info: ExcInfo | None = None) -> None:
        """Take the refusal."""
        error = public_error(exc_info)
        super().set_exception((type(error), error, None))


class ConnectServicer(ConnectServiceServicer):
    """Serves the operations through a router."""

    def __init__(
        self,
        router: Routes,
        *,
        max_message_bytes: int,
        max_frame_bytes: int,
        max_in_flight: int,
        gate: Gate | None = None,
        bounds: Bounds | None = None,
    ) -> None:
        """Serve through ``router``, within these limits.

        Args:
            router: to the channels.
            max_message_bytes: of one plaintext or ciphertext.
            max_frame_bytes: of one frame.
            max_in_flight: operations of one stream.
            gate: whom it lets in; without one everybody, as one and the same.
            bounds: of the whole service; its defaults if not given.
        """
        self._router = router
        self._gate = gate or Gate()
        self.admission = Admission(bounds or Bounds())
        self._limits = StreamLimits(max_message_bytes, max_frame_bytes, max_in_flight)
        self._exchanges: set[Exchange] = set()
        self._tracing = tracing()
        self._telling: set[asyncio.Task[None]] = set()
        self.statistics = RequestStatistics()

    async def Establish(  # noqa: N802 - gRPC's naming
        self, request: wire.EstablishRequest, context: _Context
    ) -> wire.EstablishResponse:
        """See connect.proto."""
        return await self._call("establish", request, context, wire.EstablishResponse())

    async def Encrypt(  # noqa: N802 - gRPC's naming
        self, request: wire.EncryptRequest, context: _Context
    ) -> wire.EncryptResponse:
        """See connect.proto."""
        return await self._call("encrypt", request, context, wire.EncryptResponse())

    async def Decrypt(  # noqa: N802 - gRPC's naming
        self, request: wire.DecryptRequest, context: _Context
    ) -> wire.DecryptResponse:
        """See connect.proto."""
        return await self._call("decrypt", request, context, wire.DecryptResponse())

    async def Acknowledge(  # noqa: N802 - gRPC's naming
        self, request: wire.AcknowledgeRequest, context: _Context
    ) -> wire.AcknowledgeResponse:
        """See connect.proto."""
        return await self._call("acknowledge", request, context, wire.AcknowledgeResponse())

    async def Restore(  # noqa: N802 - gRPC's naming
        self, request: wire.RestoreRequest, context: _Context
    ) -> wire.RestoreResponse:
        """See connect.proto."""
        return await self._call("restore", request, context, wire.RestoreResponse())

    async def Close(  # noqa: N802 - gRPC's naming
        self, request: wire.CloseRequest, context: _Context
    ) -> wire.CloseResponse:
        """See connect.proto."""
        return await self._call("close", request, context, wire.CloseResponse())

    async def Exchange(  # noqa: N802 - gRPC's naming
        self, request_iterator: AsyncIterator[wire.OperationFrame], context: _Context
    ) -> AsyncIterator[wire.ResultFrame]:
        """See connect.proto."""
        stream_id = _request_id(context)
        try:
            caller = self._gate.admit(context)
        except UnauthenticatedError as refusal:
            self.statistics.stream_refused(refusal)
            await _abort(context, refusal)
        # Sent ahead, so that nothing but a status is left to be said should a frame get stuck.
        await context.send_initial_metadata(((REQUEST_ID, stream_id),))
        try:
            deadline = _deadline(context)
        except DeadlineExceededError as error:
            await _abort(context, error)
        exchange = Exchange(
            self._router,
            self.statistics,
            self.admission,
            caller,
            self._limits,
            deadline=deadline,
            stream_id=stream_id,
            end=partial(self._give_up, _this_task(), context),
        )
        self._exchanges.add(exchange)
        self.statistics.streams_open += 1
        try:
            async with aclosing(exchange.serve(request_iterator)) as frames:
                async for frame in frames:
                    yield frame
        finally:
            self._exchanges.discard(exchange)
            self.statistics.streams_open -= 1
        if exchange.refusal is not None:
            self.statistics.stream_refused(exchange.refusal)
            await _abort(context, exchange.refusal)

    def end_revoked(self) -> None:
        """End the streams of callers whom the gate lets in no more."""
        for exchange in self._exchanges:
            if not self._gate.still_admits(exchange.caller):
                exchange.revoke()

    def _give_up(self, call: "asyncio.Task[None]", context: _Context) -> None:
        """End a stream whose peer does not read, though a frame waits to be written."""
        telling = asyncio.ensure_future(_tell(context, _SLOW_READER))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        call.cancel()

    def stop_reading(self) -> None:
        """Let every stream end once what it has sent so far is answered."""
        for exchange in self._exchanges:
            exchange.stop_reading()

    def _submit(
        self,
        kind: OperationKind,
        request: Message,
        context: _Context,
        caller: Caller,
        reply: LoopFuture[Any],
    ) -> None:
        """See that an admitted call gets its answer, which may be a refusal."""
        try:
            if caller.account is not None:
                _charge(caller.account, request, reply)
            connect_id, command = kind.command(
                request, _deadline(context), self._limits.message_bytes
            )
        except ConnectError as error:
            refuse(reply, error)
        else:
            if self._tracing:
                note("received", reply.request_id, operation=kind.name, connect_id=connect_id)
            self._router.route(connect_id, command, reply, caller.owner)

    async def _call(
        self, name: str, request: Message, context: _Context, response: _Response
    ) -> _Response:
        kind = OPERATIONS[name]
        reply = _Reply()
        statistics = self.statistics
        accepted_at = statistics.call_accepted()
        request_id = _request_id(context)
        told = ((REQUEST_ID, request_id),)
        context.set_trailing_metadata(told)
        held = 0
        try:
            caller = self._gate.admit(context)
            held = self.admission.admit(request.ByteSize())
            # Not when the call ends: whoever gives up leaves the work behind.
            reply.add_done_callback(lambda _: self.admission.answered())
            if self._tracing:
                reply.request_id = request_id
            self._submit(kind, request, context, caller, reply)
            kind.fill(response, await reply)
        except ConnectError:
            refusal = public_error()
            statistics.call_refused(name, accepted_at, refusal)
            tell_refusal(name, request_id, refusal)
            await _abort(context, refusal, *told)
        except Exception:
            statistics.call_failed(name, accepted_at)
            raise
        finally:
            self.admission.let_go(held)
            statistics.call_ended()
        statistics.call_answered(name, accepted_at)
        if self._tracing:
            note("answered", request_id, operation=name)
        return response


def _this_task() -> "asyncio.Task[None]":
    # Never None within a call.
    return cast("asyncio.Task[None]", asyncio.current_task())


async def _tell(context: _Context, refusal: ConnectError) -> None:
    """End a call by a refusal, from beside its handler."""
    with suppress(grpc.aio.AbortError):
        await _abort(context, refusal)


async def _abort(context: _Context, refusal: ConnectError, *metadata: tuple[str, str]) -> NoReturn:
    status = rpc_status.to_status(status_of(refusal))
    await context.abort(status.code, status.details, (*status.trailing_metadata, *metadata))


def _request_id(context: _Context) -> str:
    """Return the id that the caller has given its call, or a fresh one."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID:
            return acceptable_id(value) or fresh_id()
    return fresh_id()


def _charge(account: Account, request: Message, reply: LoopFuture[Any]) -> None:
    """Count a call with its caller until it is answered, whether anyone waits for that or not.

    Raises:
        ConnectError: the caller may not have another.
    """
    account.admit(request)
    reply.payer = account
    reply.add_done_callback(lambda _: account.leave())


def _deadline(context: _Context) -> float | None:
    """Return the caller's deadline on the event loop's clock.

    Raises:
        DeadlineExceededError: it has passed.
    """
    # None without a deadline, whatever the stubs say.
    remaining = cast("float | None", context.time_remaining())
    if remaining is None:
        return None
    if remaining <= 0:
        raise DeadlineExceededError("the deadline passed before work began: nothing was changed")
    return asyncio.get_running_loop().time() + remaining
