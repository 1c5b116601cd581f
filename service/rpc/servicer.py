"""The gRPC service: unary calls, each one operation. Streams are in ``service.rpc.exchange``."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status
from pykka import ActorDeadError

from protos.connect_actor.v1 import connect_pb2 as wire
from protos.connect_actor.v1.connect_pb2_grpc import ConnectServiceServicer
from service.actors.future import LoopFuture
from service.actors.router import Router
from service.errors import ConnectError, DeadlineExceededError, OverloadedError
from service.rpc.admission import Admission, Bounds
from service.rpc.exchange import Exchange
from service.rpc.operations import OPERATIONS, OperationKind
from service.rpc.statistics import RequestStatistics
from service.rpc.status import public_error, status_of

__all__ = ["ConnectServicer"]

_Context = grpc.aio.ServicerContext[Any, Any]
_Response = TypeVar("_Response")

_SLOW_READER = OverloadedError(
    "the peer has read no answers for too long: open a new stream, and read what it brings"
)


class ConnectServicer(ConnectServiceServicer):
    """Serves the operations through a router."""

    def __init__(
        self,
        router: Router,
        *,
        max_message_bytes: int,
        max_frame_bytes: int,
        max_in_flight: int,
        bounds: Bounds | None = None,
    ) -> None:
        """Serve through ``router``, within these limits.

        Args:
            router: to the channels.
            max_message_bytes: of one plaintext or ciphertext.
            max_frame_bytes: of one frame.
            max_in_flight: operations of one stream.
            bounds: of the whole service; its defaults if not given.
        """
        self._router = router
        self.admission = Admission(bounds or Bounds())
        self._max_message_bytes = max_message_bytes
        self._max_frame_bytes = max_frame_bytes
        self._max_in_flight = max_in_flight
        self._exchanges: set[Exchange] = set()
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
        exchange = Exchange(
            self._router,
            self.statistics,
            self.admission,
            deadline=_deadline(context),
            max_message_bytes=self._max_message_bytes,
            max_frame_bytes=self._max_frame_bytes,
            max_in_flight=self._max_in_flight,
            end=partial(self._give_up, cast("asyncio.Task[None]", asyncio.current_task()), context),
        )
        self._exchanges.add(exchange)
        self.statistics.streams_open += 1
        try:
            # Sent ahead, so that nothing but a status is left to be said should a frame get stuck.
            await context.send_initial_metadata(())
            async with aclosing(exchange.serve(request_iterator)) as frames:
                async for frame in frames:
                    yield frame
        finally:
            self._exchanges.discard(exchange)
            self.statistics.streams_open -= 1

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

    async def _call(
        self, name: str, request: Message, context: _Context, response: _Response
    ) -> _Response:
        kind = OPERATIONS[name]
        reply: LoopFuture[Any] = LoopFuture()
        statistics = self.statistics
        accepted_at = statistics.call_accepted()
        held = 0
        try:
            held = self.admission.admit(request.ByteSize())
            # Not when the call ends: whoever gives up leaves the work behind.
            reply.add_done_callback(lambda _: self.admission.answered())
            self._submit(kind, request, context, reply)
            kind.fill(response, await reply)
        except (ConnectError, ActorDeadError) as error:
            refusal = public_error(error)
            statistics.call_refused(name, accepted_at, refusal)
            status = rpc_status.to_status(status_of(refusal))
            await context.abort(status.code, status.details, status.trailing_metadata)
        except Exception:
            statistics.call_failed(name, accepted_at)
            raise
        finally:
            self.admission.let_go(held)
            statistics.call_ended()
        statistics.call_answered(name, accepted_at)
        return response

    def _submit(
        self, kind: OperationKind, request: Message, context: _Context, reply: LoopFuture[Any]
    ) -> None:
        try:
            connect_id, command = kind.command(request, _deadline(context), self._max_message_bytes)
        except ConnectError as error:
            reply.set_exception((type(error), error, None))
        else:
            self._router.route(connect_id, command, reply)


def _this_task() -> "asyncio.Task[None]":
    # Never None within a call.
    return cast("asyncio.Task[None]", asyncio.current_task())


async def _tell(context: _Context, refusal: ConnectError) -> None:
    """End a call by a refusal."""
    status = rpc_status.to_status(status_of(refusal))
    with suppress(grpc.aio.AbortError):
        await context.abort(status.code, status.details, status.trailing_metadata)


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
