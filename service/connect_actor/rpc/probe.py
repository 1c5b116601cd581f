"""Asking a service how it is, by the gRPC health protocol: for container engines and operators."""

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from connect_actor.network.client_tls import ClientTls
from connect_actor.network.connections import connect_blocking

__all__ = ["ask_health"]


def ask_health(target: str, timeout: float, tls: ClientTls | None = None) -> str:
    """Return the service's status: ``SERVING``, ``NOT_SERVING``, or why there is none.

    Args:
        target: address of its gRPC.
        timeout: seconds to wait for an answer.
        tls: whom to trust and what to show; without it the question is in clear text.
    """
    with connect_blocking(target, tls) as connection:
        try:
            answer = health_pb2_grpc.HealthStub(connection).Check(
                health_pb2.HealthCheckRequest(), timeout=timeout
            )
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return f"no answer from {target}: {code.name}"
    name: str = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    return name
