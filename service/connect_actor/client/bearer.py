"""Calls that carry a token."""

from functools import partial

from connect_actor.v1 import connect_pb2 as wire

__all__ = ["send_token"]

_SERVICE = wire.DESCRIPTOR.services_by_name["ConnectService"]


def send_token(stub: object, token: str) -> None:
    """Have every call of the service's stub carry a bearer token.

    In the stub and not in an interceptor, which would cost every message of a stream.
    """
    metadata = (("authorization", f"Bearer {token}"),)
    for name in (method.name for method in _SERVICE.methods):
        setattr(stub, name, partial(getattr(stub, name), metadata=metadata))
