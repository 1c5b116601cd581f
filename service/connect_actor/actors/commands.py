"""What can be asked of a connect actor, and what it answers.

Commands come from outside and are counted against the mailbox bound. Signals are the actor's own
affairs (its journal, its router) and always get through.
"""

from typing import NamedTuple

from connect_actor.errors import (
    CallerError,
    ChannelExistsError,
    ChannelNotFoundError,
    OverloadedError,
    StorageError,
)
from connect_actor.persistence.contract import Recovery
from connect_actor.protocol.payload import Payload
from connect_actor.v1 import connect_pb2 as wire

__all__ = [
    "ID_TAKEN",
    "NO_SUCH_CHANNEL",
    "Acknowledge",
    "Close",
    "Command",
    "CommitFailed",
    "Decrypt",
    "Encrypt",
    "Ended",
    "Establish",
    "Passivate",
    "PermitGranted",
    "PermitRefused",
    "Recovered",
    "RecoveryFailed",
    "Restore",
    "Restored",
    "refusal_to_others",
]

NO_SUCH_CHANNEL = "no such channel: establish one"
ID_TAKEN = "another handshake already made this channel: establish with fresh keys"


class Establish(NamedTuple):
    """Make the channel; answered with the serialised ``EstablishResponse``."""

    request: wire.EstablishRequest
    deadline: float | None = None
    """On the event loop's clock; work does not begin after it."""


class Encrypt(NamedTuple):
    """Encrypt for the peer; answered with a ``Payload``, ``Delivered`` with an idempotency key."""

    plaintext: bytes
    request_id: int = 0
    deadline: float | None = None
    idempotency_key: bytes = b""

    def __repr__(self) -> str:
        return f"Encrypt({len(self.plaintext)} bytes)"


class Decrypt(NamedTuple):
    """Decrypt what the peer sent; answered with the plaintext.

    It is ``Delivered`` on a channel that keeps deliveries.
    """

    payload: Payload
    deadline: float | None = None


class Acknowledge(NamedTuple):
    """Forget the deliveries up to a number; answered with None."""

    up_to_delivery_number: int
    deadline: float | None = None


class Restore(NamedTuple):
    """Say where the channel stands; answered with ``Restored``."""

    deadline: float | None = None


class Close(NamedTuple):
    """End the channel; answered with None."""

    deadline: float | None = None


Command = Establish | Encrypt | Decrypt | Acknowledge | Restore | Close


def refusal_to_others(command: object) -> CallerError:
    """Return what whoever doesn't own a channel hears of it: there is none, but its id is taken."""
    if isinstance(command, Establish):
        return ChannelExistsError(ID_TAKEN)
    return ChannelNotFoundError(NO_SUCH_CHANNEL)


class Restored(NamedTuple):
    """Where a channel stands, all of it durable."""

    sending_chain_length: int
    receiving_chain_length: int
    skipped_message_keys: int
    expires_at: int
    """Microseconds since the epoch."""


class PermitGranted(NamedTuple):
    """The actor may load its channel now."""


class PermitRefused(NamedTuple):
    """Too many channels are loading: the actor won't get its turn."""

    error: OverloadedError


class Recovered(NamedTuple):
    """The journal has answered."""

    recovery: Recovery


class RecoveryFailed(NamedTuple):
    """The journal could not answer."""

    error: StorageError


class CommitFailed(NamedTuple):
    """A record of this actor is not known to be durable."""

    writer: object
    """What wrote it: it is of no more interest to an actor that has recovered since."""


class Ended(NamedTuple):
    """The last write of the actor's life is settled."""


class Passivate(NamedTuple):
    """The channel has been idle: save a snapshot and stop."""
