"""What strangers may call: health and reflection, as grpcio has them, behind the same entrance."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from service.errors import ConnectError, MalformedRequestError
from service.rpc.calls import Handlers
from service.rpc.entrance import Context, Entrance, Visit, abort, parse

__all__ = ["public_handlers"]

_Handler = Any  # grpc.RpcMethodHandler, whose stubs lack its attributes


class _Methods:
    """What generated code takes for a server to add handlers to."""

    def __init__(self) -> None:
        self.handlers: dict[str, _Handler] = {}

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        """Do nothing: they are the same handlers."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, _Handler]) -> None:
        for name, handler in handlers.items():
            self.handlers[f"/{service}/{name}"] = handler


def public_handlers(
    health: HealthServicer, services: Sequence[str], entrance: Entrance
) -> Handlers:
    """Return the handlers of health and reflection.

    Args:
        health: serves the health protocol.
        services: full names of what reflection describes, beside itself.
        entrance: bounds what callers hold.
    """
    methods: Any = _Methods()
    health_pb2_grpc.add_HealthServicer_to_server(health, methods)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(
        reflection.aio.ReflectionServicer([*services, reflection.SERVICE_NAME]), methods
    )
    return {path: _guarded(handler, entrance) for path, handler in methods.handlers.items()}


def _guarded(handler: _Handler, entrance: Entrance) -> _Handler:
    """Return a handler whose messages are read at the entrance."""

    async def unary(_messages: object, context: Context) -> Message:
        visit = entrance.enter(context)
        try:
            request = parse(handler.request_deserializer, await visit.message())
            answer: Message = await handler.unary_unary(request, context)
        except ConnectError as refusal:
            await abort(context, refusal)
        finally:
            visit.leave()
        return answer

    async def watch(_messages: object, context: Context) -> None:
        visit = entrance.enter(context)
        try:
            request = parse(handler.request_deserializer, await visit.message())
            await handler.unary_stream(request, context)
        except ConnectError as refusal:
            await abort(context, refusal)
        finally:
            visit.leave()

    async def stream(_messages: object, context: Context) -> AsyncGenerator[Message, None]:
        visit = entrance.enter(context)
        try:
            async for answer in handler.stream_stream(_requests(handler, visit), context):
                yield answer
        except ConnectError as refusal:
            await abort(context, refusal)
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
