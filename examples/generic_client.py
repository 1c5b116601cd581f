"""A client that knows nothing but an address: it learns the service's interface by reflection.

What grpcurl does, in Python; any language with a reflection client can do the same.

    connect-actor serve &
    python examples/generic_client.py 127.0.0.1:50051
    python examples/generic_client.py 127.0.0.1:50051 Restore '{"connectId": "42"}'
"""

import sys

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToJson, Parse
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

SERVICE = "connect_actor.v1.ConnectService"


def describe(connection: grpc.Channel) -> ServiceDescriptor:
    """Return what the server itself says of the service."""
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(connection))
    service: ServiceDescriptor = pool.FindServiceByName(SERVICE)
    return service


def signature(method: MethodDescriptor) -> str:
    """Return a method as the proto file would show it."""
    takes = ("stream " if method.client_streaming else "") + method.input_type.name
    returns = ("stream " if method.server_streaming else "") + method.output_type.name
    return f"rpc {method.name}({takes}) returns ({returns})"


def call(connection: grpc.Channel, method: MethodDescriptor, request: str) -> str:
    """Call a unary method with a request in JSON, and return the answer in JSON.

    Raises:
        grpc.RpcError: what the service said instead.
    """
    send: grpc.UnaryUnaryMultiCallable[Message, Message] = connection.unary_unary(
        f"/{SERVICE}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    return MessageToJson(send(Parse(request, GetMessageClass(method.input_type)()), timeout=10))


def main(target: str, name: str | None = None, request: str = "{}") -> int:
    """List the service's methods, or call one; return an exit code."""
    # Straight to the target, even where the environment names a proxy.
    direct = [("grpc.enable_http_proxy", 0), ("grpc.address_http_proxy_enabled_addresses", "")]
    with grpc.insecure_channel(target, direct) as connection:
        service = describe(connection)
        if name is None:
            print("\n".join(signature(method) for method in service.methods))
            return 0
        try:
            print(call(connection, service.methods_by_name[name], request))
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1
        return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
