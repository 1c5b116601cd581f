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
    "decode_change",
    "decode_changes",
    "encode_change",
    "encode_idempotent_send",
    "idempotent_send_from_stored",
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


def _varint(number: int) -> bytes:
    """Return an unsigned integer as protobuf encodes it: 7 bits a byte, the lowest first."""
    if number < len(_SMALL_VARINTS):
        return _SMALL_VARINTS[number]
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_SMALL_VARINTS: tuple[bytes, ...] = ()
_SMALL_VARINTS = tuple(map(_varint, range(4_096)))


def _number(tag: bytes, value: int) -> bytes:
    """Return a numeric field; 0 is not stored."""
    return tag + _varint(value) if value else b""


def _octets(tag: bytes, value: bytes) -> bytes:
    """Return a field of bytes; an empty one is not stored."""
    return tag + _varint(len(value)) + value if value else b""


def encode_change(change: Change) -> bytes:
    """Return the stored form: protobuf's bytes of ``session.proto``'s ``Change``.

    They are put together here, since protobuf takes ten times as long. A typical message takes 4
    bytes, one that turned the ratchet about 38; a received one has 18 more if the channel keeps
    deliveries.
    """
    match change:
        case Sent(number, private_key, once):
            # Kind SENT, and the number's field; nearly every change has nothing else.
            stored = b"\x08\x01\x10" + _varint(number) if number else b"\x08\x01"
            if private_key or once is not None:
                stored += _octets(b"\x1a", private_key)
                if once is not None:
                    stored += b"\x3a" + _sized(encode_idempotent_send(once))
        case Received(number, ratchet_key, previous, digest):
            stored = b"\x08\x02\x10" + _varint(number) if number else b"\x08\x02"
            if ratchet_key or previous or digest:
                stored += _octets(b"\x1a", ratchet_key) + _number(b"\x20", previous)
                stored += _octets(b"\x32", digest)
        case ReceivedSkipped(number, chain_number, digest):
            stored = b"\x08\x03" + _number(b"\x10", number) + _number(b"\x28", chain_number)
            stored += _octets(b"\x32", digest)
        case Acknowledged(number):
            stored = b"\x08\x04" + _number(b"\x40", number)
    return stored


def encode_idempotent_send(once: IdempotentSend) -> bytes:
    """Return the stored form: protobuf's bytes of ``session.proto``'s ``IdempotentSend``."""
    return (
        _octets(b"\x0a", once.key)
        + _octets(b"\x12", once.digest)
        + _octets(b"\x1a", once.nonce)
        + _number(b"\x20", once.request_id)
        # A negative integer is stored as its two's complement in 64 bits.
        + _number(b"\x28", once.created_at & 0xFFFF_FFFF_FFFF_FFFF)
    )


def _sized(message: bytes) -> bytes:
    return _varint(len(message)) + message


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


def idempotent_send_from_stored(message: session_pb2.IdempotentSend) -> IdempotentSend:
    """Return what ``encode_idempotent_send`` stored.

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
