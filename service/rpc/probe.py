"""Asking a service how it is, by the gRPC health protocol: for container engines and operators."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.access.client_tls import ClientTls

__all__ = ["ask_health", "reachable"]

# Addresses to listen on that can't be connected to, and where what listens there is found.
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - read, not listened on

# A proxy named in the environment (engines hand theirs on to containers) is no way to this target.
_DIRECT = (("grpc.enable_http_proxy", 0),)


def reachable(listen: str) -> str:
    """Return where a service that listens at this host:port is found on its own machine."""
    host, separator, port = listen.rpartition(":")
    return f"{_WILDCARDS.get(host, host)}{separator}{port}"


def ask_health(target: str, timeout: float, tls: ClientTls | None = None) -> str:
    """Return the service's status: ``SERVING``, ``NOT_SERVING``, or why there is none.

    Args:
        target: host:port of its gRPC.
        timeout: seconds to wait for an answer.
        tls: whom to trust and what to show; without it the question is in clear text.
    """
    channel = (
        grpc.insecure_channel(target, options=_DIRECT)
        if tls is None
        else grpc.secure_channel(target, tls.credentials, options=[*_DIRECT, *tls.options])
    )
    with channel as connection:
        try:
            answer = health_pb2_grpc.HealthStub(connection).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout
            )
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return f"no answer from {target}: {code.name}"
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return name
