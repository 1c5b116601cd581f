"""The service's statuses as the errors they were made from (``errors``)."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from connect_actor.errors import ConnectError
from connect_actor.rpc.status import DOMAIN, STATUSES

__all__ = ["error_of", "translated"]

_BY_REASON = {rule.reason: kind for kind, rule in STATUSES.items()}


def error_of(status: Status) -> ConnectError:
    """Return the error that a status tells; one of unknown reason becomes a ``ConnectError``."""
    info = ErrorInfo()
    for detail in status.details:
        if detail.Unpack(info) and info.domain == DOMAIN:
            return _BY_REASON.get(info.reason, ConnectError)(status.message)
    return ConnectError(f"status {status.code}: {status.message}")


@contextmanager
def translated() -> Iterator[None]:
    """Raise the service's error in place of gRPC's; other failures of a call stay as they are."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        if status is None:
            raise
        raise error_of(status) from error
