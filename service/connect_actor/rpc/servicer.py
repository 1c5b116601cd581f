"""The gRPC service: unary calls, each one operation. Streams are in ``rpc.exchange``.

Every handler takes what is on the wire, so that a caller is known before a message is parsed.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from time import perf_counter
from typing import Any, cast

import grpc
from google.protobuf.message import Message

from connect_actor.access.gate import Caller, Gate
from connect_actor.access.quotas import Account
from connect_actor.actors.router import Routes
from connect_actor.errors import (
    ConnectError,
    DeadlineExceededError,
    OverloadedError,
    UnauthenticatedError,
)
from connect_actor.observe.tracing import REQUEST_ID, acceptable_id, fresh_id, note, tracing
from connect_actor.reply import AwaitedReply
from connect_actor.rpc.admission import Admission, Bounds
from connect_actor.rpc.calls import Handlers
from connect_actor.rpc.entrance import Context, Entrance, parse
from connect_actor.rpc.exchange import Exchange, StreamLimits
from connect_actor.rpc.operations import OPERATIONS, OperationKind
from connect_actor.rpc.statistics import RequestStatistics
from connect_actor.rpc.status import public_error, tell_if_slow, tell_refusal
from connect_actor.v1 import connect_pb2 as wire

__all__ = ["ConnectServicer"]

_SERVICE = wire.DESCRIPTOR.services_by_name["ConnectService"]


class _Reply(AwaitedReply):
    """The answer to a call."""

    __slots__ = ()

    def refuse(self, error: BaseException) -> None:
        """See ``Reply``."""
        super().refuse(public_error(error))


class ConnectServicer:
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
        bounds = bounds or Bounds()
        self.entrance = Entrance(gate or Gate(), bounds, max_frame_bytes)
        self.admission = Admission(bounds)
        self._limits = StreamLimits(max_message_bytes, max_frame_bytes, max_in_flight)
        self._exchanges: set[Exchange] = set()
        self._tracing = tracing()
        self.statistics = RequestStatistics()

    def handlers(self) -> Handlers:
        """Return the handlers of all methods."""
        handlers: dict[str, Any] = {
            _path(kind.method): grpc.stream_unary_rpc_method_handler(
                partial(self.call, kind), None, kind.response.SerializeToString
            )
            for kind in OPERATIONS.values()
        }
        handlers[_path("Exchange")] = grpc.stream_stream_rpc_method_handler(
            self.exchange, None, wire.ResultFrame.SerializeToString
        )
        return handlers

    async def exchange(
        self, _messages: object, context: Context
    ) -> AsyncGenerator[wire.ResultFrame, None]:
        """Serve a stream; see connect.proto."""
        stream_id = _request_id(context)
        visit = self.entrance.enter(context)
        try:
            try:
                caller = visit.authenticate()
            except (OverloadedError, UnauthenticatedError) as refusal:
                self.statistics.stream_refused(refusal)
                await visit.abort(refusal)
            # Sent ahead, so that nothing but a status is left to be said should a frame get stuck.
            await context.send_initial_metadata(((REQUEST_ID, stream_id),))
            try:
                deadline = _deadline(context)
            except DeadlineExceededError as error:
                await visit.abort(error)
            exchange = Exchange(
                self._router,
                self.statistics,
                self.admission,
                caller,
                self._limits,
                visit,
                deadline=deadline,
                stream_id=stream_id,
            )
            self._exchanges.add(exchange)
            self.statistics.streams_open += 1
            try:
                async with aclosing(exchange.serve()) as frames:
                    async for frame in frames:
                        yield frame
            finally:
                self._exchanges.discard(exchange)
                self.statistics.streams_open -= 1
            if exchange.refusal is not None:
                self.statistics.stream_refused(exchange.refusal)
                await visit.abort(exchange.refusal)
        finally:
            visit.leave()

    def end_revoked(self) -> None:
        """End the streams of callers whom the gate lets in no more."""
        for exchange in self._exchanges:
            if not self.entrance.gate.still_admits(exchange.caller):
                exchange.revoke()

    def stop_reading(self) -> None:
        """Let every stream end once what it has sent so far is answered."""
        for exchange in self._exchanges:
            exchange.stop_reading()

    def _submit(
        self,
        kind: OperationKind,
        message: bytes,
        context: Context,
        caller: Caller,
        reply: AwaitedReply,
    ) -> None:
        """See that an admitted call gets its answer, which may be a refusal."""
        try:
            request = parse(kind.request.FromString, message)
            if caller.account is not None:
                _charge(caller.account, request, reply)
            connect_id, command = kind.command(
                request, _deadline(context), self._limits.message_bytes
            )
        except ConnectError as error:
            reply.refuse(error)
        else:
            if self._tracing:
                note("received", reply.request_id, operation=kind.name, connect_id=connect_id)
            self._router.route(connect_id, command, reply, caller.owner)

    async def call(self, kind: OperationKind, _messages: object, context: Context) -> Message:
        """Serve a unary call; see connect.proto."""
        name, statistics = kind.name, self.statistics
        reply = _Reply()
        accepted_at = statistics.call_accepted()
        request_id = _request_id(context)
        told = ((REQUEST_ID, request_id),)
        context.set_trailing_metadata(told)
        visit = self.entrance.enter(context)
        try:
            caller = visit.authenticate()
            message = await visit.message()
            # How long a message is on its way is its sender's affair.
            accepted_at = perf_counter()
            held = self.admission.admit(len(message))
            # Not when the call ends: whoever gives up leaves the work behind.
            reply.add_done_callback(lambda _: self.admission.answered())
            # An answer is held until it is written.
            visit.when_over(partial(self.admission.let_go, held))
            if self._tracing:
                reply.request_id = request_id
            self._submit(kind, message, context, caller, reply)
            response = kind.response()
            kind.fill(response, await reply)
        except ConnectError:
            refusal = public_error()
            statistics.call_refused(name, accepted_at, refusal)
            tell_refusal(name, request_id, refusal)
            await visit.abort(refusal, *told)
        except Exception:
            statistics.call_failed(name, accepted_at)
            raise
        finally:
            visit.leave()
            statistics.call_ended()
        tell_if_slow(name, request_id, statistics.call_answered(name, accepted_at))
        if self._tracing:
            note("answered", request_id, operation=name)
        return response


def _path(method: str) -> str:
    return f"/{_SERVICE.full_name}/{method}"


def _request_id(context: Context) -> str:
    """Return the id that the caller has given its call, or a fresh one."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID:
            return acceptable_id(value) or fresh_id()
    return fresh_id()


def _charge(account: Account, request: Message, reply: AwaitedReply) -> None:
    """Count a call with its caller until it is answered, whether anyone waits for that or not.

    Raises:
        ConnectError: the caller may not have another.
    """
    account.admit(request)
    reply.payer = account
    reply.add_done_callback(lambda _: account.leave())


def _deadline(context: Context) -> float | None:
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
