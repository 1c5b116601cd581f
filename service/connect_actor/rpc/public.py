"""What strangers may call: health and reflection, behind the same entrance as everything else.

The health service is our own: grpcio's (1.85) writes to a watcher under the lock that all watchers
and a change of health need, so that one watcher who does not read keeps the service from stopping.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from connect_actor.errors import ConnectError, MalformedRequestError
from connect_actor.rpc.calls import Handlers
from connect_actor.rpc.entrance import Context, Entrance, Visit, parse

__all__ = ["Health", "public_handlers"]

_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

_Handler = Any  # grpc.RpcMethodHandler, whose stubs lack its attributes


class Health:
    """The health of this service: it serves until it begins to stop."""

    def __init__(self, services: Sequence[str]) -> None:
        """Tell of these services, by their full names, and of all together, as the empty name."""
        self.services = services
        self._names = frozenset(("", *services))
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Say that nothing is served any more, and let those who watch go."""
        self._stopping.set()

    def _status(self) -> Message:
        serving = health_pb2.HealthCheckResponse.SERVING
        status = _NOT_SERVING if self._stopping.is_set() else serving
        answer: Message = health_pb2.HealthCheckResponse(status=status)
        return answer

    async def Check(  # noqa: N802 - gRPC's naming
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> Message:
        """See the health protocol."""
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return self._status()

    async def List(  # noqa: N802 - gRPC's naming
        self, _request: health_pb2.HealthListRequest, _context: Context
    ) -> Message:
        """See the health protocol."""
        statuses = dict.fromkeys(self._names, self._status())
        answer: Message = health_pb2.HealthListResponse(statuses=statuses)
        return answer

    async def Watch(  # noqa: N802 - gRPC's naming
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> None:
        """See the health protocol."""
        known = request.service in self._names
        unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        await context.write(
            self._status() if known else health_pb2.HealthCheckResponse(status=unknown)
        )
        if not self._stopping.is_set():
            await self._stopping.wait()
            await context.write(self._status())


class _Methods:
    """What generated code takes for a server to add handlers to."""

    def __init__(self) -> None:
        self.handlers: dict[str, _Handler] = {}

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        """Do nothing: they are the same handlers."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, _Handler]) -> None:
        for name, handler in handlers.items():
            self.handlers[f"/{service}/{name}"] = handler


def public_handlers(healthy: Health, entrance: Entrance) -> Handlers:
    """Return the handlers of health, and of reflection, which describes the same services.

    Args:
        healthy: serves the health protocol.
        entrance: bounds what callers hold.
    """
    methods: Any = _Methods()
    health_pb2_grpc.add_HealthServicer_to_server(healthy, methods)
    names = [*healthy.services, health.SERVICE_NAME, reflection.SERVICE_NAME]
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
        reflection.aio.ReflectionServicer(names), methods
    )
    return {path: _guarded(handler, entrance) for path, handler in methods.handlers.items()}


def _guarded(handler: _Handler, entrance: Entrance) -> _Handler:
    """Return a handler whose messages are read at the entrance."""

    async def unary(_messages: object, context: Context) -> Message:
        visit = entrance.enter(context)
        visit.stay_stranger()
        try:
            request = parse(handler.request_deserializer, await visit.message())
            answer: Message = await handler.unary_unary(request, context)
        except ConnectError as refusal:
            await visit.abort(refusal)
        finally:
            visit.leave()
        return answer

    async def watch(_messages: object, context: Context) -> None:
        visit = entrance.enter(context)
        visit.stay_stranger()
        try:
            request = parse(handler.request_deserializer, await visit.message())
            await handler.unary_stream(request, context)
        except ConnectError as refusal:
            await visit.abort(refusal)
        finally:
            visit.leave()

    async def stream(_messages: object, context: Context) -> AsyncGenerator[Message, None]:
        visit = entrance.enter(context)
        visit.stay_stranger()
        try:
            async for answer in handler.stream_stream(_requests(handler, visit), context):
                yield answer
        except ConnectError as refusal:
            await visit.abort(refusal)
        finally:
            visit.leave()

    if handler.unary_unary is not None:
        return grpc.stream_unary_rpc_method_handler(unary, None, handler.response_serializer)
    return grpc.stream_stream_rpc_method_handler(
        watch if handler.stream_stream is None else stream, None, handler.response_serializer
    )


async def _requests(handler: _Handler, visit: Visit) -> AsyncIterator[Message]:
    """Yield a stream's requests, each of which has to come in time."""
    while True:
        try:
            message = await visit.message()
        except MalformedRequestError:
            # That there are no more is how a stream ends.
            return
        yield parse(handler.request_deserializer, message)
