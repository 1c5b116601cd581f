"""Errors as gRPC statuses: every error of ``errors`` has one code, told with rich details.

Beside code and message a status carries ``google.rpc.ErrorInfo`` (a stable reason for programs, in
the domain below) and, where waiting helps, ``google.rpc.RetryInfo``.
"""

import math
import sys
from dataclasses import dataclass
from functools import lru_cache

import grpc
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from pykka import ActorDeadError

from connect_actor import errors
from connect_actor.errors import ConnectError
from connect_actor.observe.tracing import note, tell

__all__ = [
    "DOMAIN",
    "STATUSES",
    "StatusRule",
    "public_error",
    "rule_of",
    "status_of",
    "tell_if_slow",
    "tell_refusal",
]

DOMAIN = "connect-actor"

SLOW_SECONDS = 1.0
"""An operation that took so long is worth a line in the log: ten times what an objective allows."""


@dataclass(frozen=True, slots=True)
class StatusRule:
    """How one kind of error is told."""

    code: grpc.StatusCode
    reason: str
    retry_after_millis: int | None = None
    """When to try again, if that may help."""


_CODE = grpc.StatusCode

STATUSES: dict[type[ConnectError], StatusRule] = {
    errors.MalformedRequestError: StatusRule(_CODE.INVALID_ARGUMENT, "MALFORMED_REQUEST"),
    errors.MessageTooLargeError: StatusRule(_CODE.INVALID_ARGUMENT, "MESSAGE_TOO_LARGE"),
    errors.ChannelNotFoundError: StatusRule(_CODE.NOT_FOUND, "CHANNEL_NOT_FOUND"),
    errors.ChannelExistsError: StatusRule(_CODE.ALREADY_EXISTS, "CHANNEL_EXISTS"),
    errors.ChannelExpiredError: StatusRule(_CODE.FAILED_PRECONDITION, "CHANNEL_EXPIRED"),
    errors.IdempotencyKeyReusedError: StatusRule(_CODE.INVALID_ARGUMENT, "IDEMPOTENCY_KEY_REUSED"),
    errors.DeadlineExceededError: StatusRule(_CODE.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"),
    errors.UnauthenticatedError: StatusRule(_CODE.UNAUTHENTICATED, "UNAUTHENTICATED"),
    errors.QuotaExceededError: StatusRule(_CODE.RESOURCE_EXHAUSTED, "QUOTA_EXCEEDED"),
    errors.RateLimitedError: StatusRule(_CODE.RESOURCE_EXHAUSTED, "RATE_LIMITED", 1_000),
    errors.HandshakeRefusedError: StatusRule(_CODE.INVALID_ARGUMENT, "HANDSHAKE_REFUSED"),
    errors.AuthenticationFailedError: StatusRule(_CODE.INVALID_ARGUMENT, "AUTHENTICATION_FAILED"),
    errors.MessageReplayedError: StatusRule(_CODE.ALREADY_EXISTS, "MESSAGE_REPLAYED"),
    errors.SkipLimitExceededError: StatusRule(_CODE.OUT_OF_RANGE, "SKIP_LIMIT_EXCEEDED"),
    errors.OverloadedError: StatusRule(_CODE.RESOURCE_EXHAUSTED, "OVERLOADED", 200),
    errors.ShuttingDownError: StatusRule(_CODE.UNAVAILABLE, "SHUTTING_DOWN", 1_000),
    errors.ActorCrashedError: StatusRule(_CODE.INTERNAL, "ACTOR_CRASHED", 500),
    errors.WriteRejectedError: StatusRule(_CODE.ABORTED, "WRITE_REJECTED", 0),
    errors.WriteUncertainError: StatusRule(_CODE.UNAVAILABLE, "WRITE_UNCERTAIN", 500),
    errors.ReadFailedError: StatusRule(_CODE.UNAVAILABLE, "READ_FAILED", 500),
    errors.ChannelDamagedError: StatusRule(_CODE.DATA_LOSS, "CHANNEL_DAMAGED"),
}


# What nobody outside has caused: each of them is for the operator to look at.
_FAILURES = (errors.StorageError, errors.ActorCrashedError)


def rule_of(error: ConnectError) -> StatusRule:
    """Return how ``error`` is told; a room's own subclass of a public error is told as that."""
    return next(STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES)


def status_of(error: ConnectError) -> Status:
    """Return the status that tells ``error``, with its details; not to be changed."""
    return _status_of(rule_of(error), str(error), error.retry_after)


# Under overload the same refusal is told thousands of times a second: made once, it costs a
# twentieth of it. Texts that hold a figure push each other out.
@lru_cache(maxsize=64)
def _status_of(rule: StatusRule, message: str, retry_after: float | None) -> Status:
    number, _ = rule.code.value
    details: list[ErrorInfo | RetryInfo] = [ErrorInfo(reason=rule.reason, domain=DOMAIN)]
    pause = rule.retry_after_millis
    if retry_after is not None:
        # Rounded up: who tries again then is to be served.
        pause = math.ceil(retry_after * 1_000)
    if pause is not None:
        details.append(RetryInfo(retry_delay=_milliseconds(pause)))
    packed = []
    for detail in details:
        slot = Any()
        slot.Pack(detail)
        packed.append(slot)
    return Status(code=number, message=message, details=packed)


def public_error(error: BaseException | None = None) -> ConnectError:
    """Return what to tell for an error that a command ended with.

    Pykka itself answers for an actor that stopped before it came to the message; any other error
    that isn't public is a defect, and says no more than that.

    It comes without its traceback. The frames in there hold the request and whoever is told of the
    error, who holds the error: a circle, which would keep them all until the collector runs.

    Args:
        error: what it ended with; without, the exception in hand.
    """
    error = error or sys.exc_info()[1]
    if isinstance(error, ConnectError):
        return error.with_traceback(None)
    if isinstance(error, ActorDeadError):
        return errors.ShuttingDownError("the channel's actor has stopped meanwhile: try again")
    return errors.ActorCrashedError("the operation failed unexpectedly: try again after a pause")


def tell_refusal(operation: str, request_id: str, refusal: ConnectError) -> None:
    """Tell the log of a refusal: at debug, or at warning if the service itself has failed."""
    rule = rule_of(refusal)
    say = tell if isinstance(refusal, _FAILURES) else note
    say("refused", request_id, operation=operation, reason=rule.reason)


def tell_if_slow(operation: str, request_id: str, seconds: float) -> None:
    """Tell the log, at warning, of an operation that took ``SLOW_SECONDS`` or longer."""
    if seconds >= SLOW_SECONDS:
        tell("slow", request_id, operation=operation, milliseconds=round(seconds * 1_000))


def _milliseconds(millis: int) -> Duration:
    return Duration(seconds=millis // 1_000, nanos=millis % 1_000 * 1_000_000)
