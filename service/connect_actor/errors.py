"""The closed set of errors that a caller of the service can meet.

The tree says who has to act: the caller, the peer at the other end of the channel, the operator,
or nobody but time. ``rpc.status`` maps every leaf to one gRPC status, and a test holds the
two against each other. Messages say what was expected, what came and what to do next; they never
hold key material, plaintext or ciphertext.
"""

__all__ = [
    "ActorCrashedError",
    "AuthenticationFailedError",
    "CallerError",
    "ChannelDamagedError",
    "ChannelExistsError",
    "ChannelExpiredError",
    "ChannelNotFoundError",
    "ConnectError",
    "DeadlineExceededError",
    "HandshakeRefusedError",
    "IdempotencyKeyReusedError",
    "MalformedRequestError",
    "MessageReplayedError",
    "MessageTooLargeError",
    "OverloadedError",
    "PeerError",
    "QuotaExceededError",
    "RateLimitedError",
    "ReadFailedError",
    "ServiceError",
    "ShuttingDownError",
    "SkipLimitExceededError",
    "StorageError",
    "UnauthenticatedError",
    "WriteRejectedError",
    "WriteUncertainError",
]


class ConnectError(Exception):
    """Root of everything that the service says to a caller instead of a result."""

    retry_after: float | None = None
    """Seconds after which to try again; None: as is usual for an error of this kind."""


# --- The caller has to act ------------------------------------------------------------------


class CallerError(ConnectError):
    """The request can't be carried out as it is; nothing was changed."""


class MalformedRequestError(CallerError):
    """A field is missing, has the wrong size or an impossible value."""


class MessageTooLargeError(CallerError):
    """A plaintext, ciphertext or frame exceeds its limit: send less at once."""


class ChannelNotFoundError(CallerError):
    """No such channel, or no longer: establish one."""


class ChannelExistsError(CallerError):
    """Another handshake already made a channel of this id: use fresh keys."""


class ChannelExpiredError(CallerError):
    """The channel has reached the end of its lifetime: establish a new one."""


class IdempotencyKeyReusedError(CallerError):
    """Something else was encrypted under this idempotency key: give each request its own."""


class DeadlineExceededError(CallerError):
    """The caller's deadline passed before work on the operation began; nothing was changed."""


class UnauthenticatedError(CallerError):
    """The caller has not shown who they are: send a valid token, or use a valid certificate."""


class QuotaExceededError(CallerError):
    """The caller has as many channels as they may have: close some."""


class RateLimitedError(CallerError):
    """The caller asks for more than their rate; nothing was changed: try again later."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        """Say what the rate is, and after how many seconds there is room again."""
        super().__init__(message)
        self.retry_after = retry_after


# --- The peer has to act --------------------------------------------------------------------


class PeerError(ConnectError):
    """What the peer sent is refused; the channel is unharmed and goes on."""


class HandshakeRefusedError(PeerError):
    """A bundle's signature, key or prekey id isn't acceptable."""


class AuthenticationFailedError(PeerError):
    """The message is forged, damaged, or belongs to another channel."""


class MessageReplayedError(PeerError):
    """The message's key has been used or given up: it was decrypted before, or came too late."""


class SkipLimitExceededError(PeerError):
    """The message claims an index further ahead than the channel's skip limit allows."""


# --- Time, or the operator, has to act ------------------------------------------------------


class ServiceError(ConnectError):
    """The service can't serve this now, whoever asks."""


class OverloadedError(ServiceError):
    """A bounded resource is full; nothing was changed: try again after a pause."""


class ShuttingDownError(ServiceError):
    """The service is stopping and takes no new work: try again, on the next instance."""


class ActorCrashedError(ServiceError):
    """The channel's actor failed; it restarts from the journal: try again after a pause."""


class StorageError(ServiceError):
    """The journal could not do its part."""


class WriteRejectedError(StorageError):
    """The record is known not to be written, so the operation did not happen: try again."""


class WriteUncertainError(StorageError):
    """Whether the record was written is unknown, so the result is withheld.

    The channel goes on from what is durable: a Decrypt, or an Encrypt under an idempotency key,
    can be repeated as it is; on a channel that keeps no deliveries it may prove to be a replay.
    """


class ReadFailedError(StorageError):
    """The journal could not be read now; nothing was changed: try again after a pause."""


class ChannelDamagedError(StorageError):
    """What the journal holds of this channel can't be proved whole, so it is not served."""
