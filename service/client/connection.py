"""The way to the service: in clear text or by TLS, with a token or without."""

from collections.abc import Sequence
from functools import partial

import grpc

from protos.connect_actor.v1 import connect_pb2 as wire
from service.access.client_tls import ClientTls

__all__ = ["connect", "send_token"]

_SERVICE = wire.DESCRIPTOR.services_by_name["ConnectService"]


def connect(
    target: str, tls: ClientTls | None, options: Sequence[tuple[str, str | int]]
) -> grpc.aio.Channel:
    """Return a connection that opens at its first call."""
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    return grpc.aio.secure_channel(target, tls.credentials, options=[*options, *tls.options])


def send_token(stub: object, token: str) -> None:
    """Have every call of the service's stub carry a bearer token.

    In the stub and not in an interceptor, which would cost every message of a stream.
    """
    metadata = (("authorization", f"Bearer {token}"),)
    for name in (method.name for method in _SERVICE.methods):
        setattr(stub, name, partial(getattr(stub, name), metadata=metadata))
