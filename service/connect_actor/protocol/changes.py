"""Changes: what one operation did to a session, as small values.

A change names what happened and carries only what can't be derived again: indexes, and new key
material when a ratchet turned. Applied to the session as it was before the operation, it yields
the session as it was after (``Session.apply``).
"""

from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.message import DecodeError

from connect_actor.protocol.primitives import KEY_SIZE, NONCE_SIZE
from connect_actor.stored.v1 import session_pb2

__all__ = [
    "MAX_CHANGES",
    "MAX_IDEMPOTENCY_KEY_SIZE",
    "PAYLOAD_DIGEST_SIZE",
    "PLAINTEXT_DIGEST_SIZE",
    "Acknowledged",
    "Change",
    "IdempotentSend",
    "InconsistentChangeError",
    "Received",
    "ReceivedSkipped",
    "Sent",
    "change_from_stored",
    "change_size",
    "change_to_stored",
    "decode_change",
    "decode_changes",
    "encode_change",
    "idempotent_send_from_stored",
    "idempotent_send_to_stored",
]

MAX_IDEMPOTENCY_KEY_SIZE = 64
MAX_CHANGES = 4_096
"""Changes in one record; bounds the work that a damaged one can ask for."""

PAYLOAD_DIGEST_SIZE = 16
PLAINTEXT_DIGEST_SIZE = 32


class InconsistentChangeError(Exception):
    """A change does not follow from the session it was applied to, or can't be read."""


class IdempotentSend(NamedTuple):
    """What makes the same payload again from its message key, and proves that it is the same."""

    key: bytes
    """The caller's idempotency key, 1 to 64 bytes."""
    digest: bytes
    """Over plaintext and request id, 32 bytes (``delivery.plaintext_digest``)."""
    nonce: bytes
    request_id: int
    created_at: int
    """Microseconds since the epoch."""


class Sent(NamedTuple):
    """A message was encrypted."""

    message_number: int
    ratchet_private_key: bytes = b""
    """The new ratchet key, if this message turned the ratchet."""
    once: IdempotentSend | None = None
    """Set if the message may be asked for again."""

    def __repr__(self) -> str:
        return (
            f"Sent(message_number={self.message_number}, turned={bool(self.ratchet_private_key)})"
        )


class Received(NamedTuple):
    """A message was decrypted at or beyond the head of the receiving chain."""

    message_number: int
    ratchet_key: bytes = b""
    """The peer's new public ratchet key, if this message turned the ratchet."""
    previous_chain_length: int = 0
    """The peer's PN, if this message turned the ratchet."""
    digest: bytes = b""
    """Over the payload, 16 bytes (``delivery.payload_digest``), if the channel keeps deliveries."""


class ReceivedSkipped(NamedTuple):
    """A message was decrypted with a key that had been skipped."""

    message_number: int
    chain_number: int
    digest: bytes = b""
    """As in ``Received``."""


class Acknowledged(NamedTuple):
    """The caller has what was delivered up to here, and will not ask for it again."""

    delivery_number: int


Change = Sent | Received | ReceivedSkipped | Acknowledged

_Stored = session_pb2.Change
_SENT, _RECEIVED = _Stored.SENT, _Stored.RECEIVED
_PLAIN = {Sent: _SENT, Received: _RECEIVED}


def encode_change(change: Change) -> bytes:
    """Return the stored form.

    It takes 4 bytes for a typical message, about 38 where a ratchet turned; 18 more for a received
    one if the channel keeps deliveries.
    """
    kind = _PLAIN.get(type(change))
    if kind is not None and not any(change[1:]):
        # Nearly every change: a message with nothing but its number.
        return _Stored(kind=kind, index=change[0]).SerializeToString()
    return change_to_stored(change).SerializeToString()


def change_to_stored(change: Change) -> session_pb2.Change:
    """Return the stored message of a change."""
    match change:
        case Sent(index, private_key, once):
            stored = _Stored(kind=_SENT, index=index)
            if private_key:
                stored.ratchet_key = private_key
            if once is not None:
                idempotent_send_to_stored(once, stored.sent)
        case Received(index, ratchet_key, previous, digest):
            stored = _Stored(kind=_RECEIVED, index=index)
            if ratchet_key:
                stored.ratchet_key = ratchet_key
            if previous:
                stored.previous_chain_length = previous
            if digest:
                stored.digest = digest
        case ReceivedSkipped(index, chain_number, digest):
            stored = _Stored(
                kind=_Stored.RECEIVED_SKIPPED, index=index, chain_number=chain_number, digest=digest
            )
        case Acknowledged(number):
            stored = _Stored(kind=_Stored.ACKNOWLEDGED, delivery_number=number)
    return stored


def change_size(change: Change) -> int:
    """Return the length of what ``encode_change`` returns, without making it."""
    match change:
        case Sent(index, key, once):
            size = 2 + _number_size(index) + _bytes_size(key)
            return size if once is None else size + 1 + _sized(_idempotent_send_size(once))
        case Received(index, key, previous, digest):
            size = 2 + _number_size(index) + _number_size(previous) + _bytes_size(key)
        case ReceivedSkipped(index, chain_number, digest):
            size = 2 + _number_size(index) + _number_size(chain_number)
        case Acknowledged(number):
            return 2 + _number_size(number)
    return size + _bytes_size(digest)


def _idempotent_send_size(once: IdempotentSend) -> int:
    return (
        _bytes_size(once.key)
        + _bytes_size(once.digest)
        + _bytes_size(once.nonce)
        + _number_size(once.request_id)
        + _number_size(once.created_at & 0xFFFF_FFFF_FFFF_FFFF)
    )


def _number_size(value: int) -> int:
    """Size of a varint field with a tag of one byte; 0 is not stored."""
    return 1 + _varint_size(value) if value else 0


def _bytes_size(value: bytes) -> int:
    """Size of a field of bytes with a tag of one byte; none are not stored."""
    return 1 + _sized(len(value)) if value else 0


def _sized(length: int) -> int:
    return _varint_size(length) + length


def _varint_size(value: int) -> int:
    return (value.bit_length() + 6) // 7


def decode_change(stored: bytes) -> Change:
    """Return the change that ``encode_change`` stored.

    Raises:
        InconsistentChangeError: the bytes are not a change that this version knows.
    """
    try:
        change = _Stored.FromString(stored)
    except DecodeError as error:
        raise InconsistentChangeError("a stored change can't be parsed") from error
    return change_from_stored(change)


def decode_changes(stored: bytes) -> Iterator[Change]:
    """Yield the changes of one record that holds several, as journals of earlier releases do.

    Messages next to each other on a chain are a run: its first change, and how many follow.

    Raises:
        InconsistentChangeError: the bytes are no runs of changes, or more than ``MAX_CHANGES``.
    """
    try:
        message = session_pb2.ChangeRuns.FromString(stored)
    except DecodeError as error:
        raise InconsistentChangeError("stored changes can't be parsed") from error
    count = len(message.runs) + sum(run.further for run in message.runs)
    if not 0 < count <= MAX_CHANGES:
        raise InconsistentChangeError(f"a record of changes holds {count}")
    for run in message.runs:
        first = change_from_stored(run.first)
        yield first
        if not run.further:
            continue
        if not isinstance(first, Sent | Received):
            raise InconsistentChangeError(f"a run of {run.further} changes that can't be one")
        kind = type(first)
        for number in range(run.further):
            yield kind(first.message_number + number + 1)


def change_from_stored(change: session_pb2.Change) -> Change:
    """Return the change of a stored message.

    Raises:
        InconsistentChangeError: it is none that this version knows.
    """
    if len(change.ratchet_key) not in (0, KEY_SIZE):
        raise InconsistentChangeError(
            f"a stored change's ratchet key has {len(change.ratchet_key)} bytes"
        )
    if len(change.digest) not in (0, PAYLOAD_DIGEST_SIZE):
        raise InconsistentChangeError(f"a stored change's digest has {len(change.digest)} bytes")
    if change.kind == _Stored.SENT:
        once = idempotent_send_from_stored(change.sent) if change.HasField("sent") else None
        return Sent(change.index, change.ratchet_key, once)
    if change.kind == _Stored.RECEIVED:
        return Received(
            change.index, change.ratchet_key, change.previous_chain_length, change.digest
        )
    if change.kind == _Stored.RECEIVED_SKIPPED:
        return ReceivedSkipped(change.index, change.chain_number, change.digest)
    if change.kind == _Stored.ACKNOWLEDGED:
        return Acknowledged(change.delivery_number)
    raise InconsistentChangeError(f"unknown kind of change: {change.kind}")


def idempotent_send_to_stored(once: IdempotentSend, message: session_pb2.IdempotentSend) -> None:
    """Write into the stored message."""
    message.key = once.key
    message.digest = once.digest
    message.nonce = once.nonce
    message.request_id = once.request_id
    message.created_at_unix_micros = once.created_at


def idempotent_send_from_stored(message: session_pb2.IdempotentSend) -> IdempotentSend:
    """Return what ``idempotent_send_to_stored`` wrote.

    Raises:
        InconsistentChangeError: a part has a size that none was ever written with.
    """
    if not (
        0 < len(message.key) <= MAX_IDEMPOTENCY_KEY_SIZE
        and len(message.digest) == PLAINTEXT_DIGEST_SIZE
        and len(message.nonce) == NONCE_SIZE
    ):
        raise InconsistentChangeError("a part of a stored idempotent send has the wrong size")
    return IdempotentSend(
        message.key,
        message.digest,
        message.nonce,
        message.request_id,
        message.created_at_unix_micros,
    )
