"""Changes: what one operation did to a session, as small values.

A change names what happened and carries only what can't be derived again: indexes, and new key
material when a ratchet turned. Applied to the session as it was before the operation, it yields
the session as it was after (``Session.apply``).
"""

from typing import NamedTuple

from google.protobuf.message import DecodeError

from protos.connect_actor.stored.v1 import session_pb2
from service.protocol.primitives import KEY_SIZE

__all__ = [
    "Change",
    "InconsistentChangeError",
    "Received",
    "ReceivedSkipped",
    "Sent",
    "change_size",
    "decode_change",
    "encode_change",
]


class InconsistentChangeError(Exception):
    """A change does not follow from the session it was applied to, or can't be read."""


class Sent(NamedTuple):
    """A message was encrypted."""

    message_number: int
    ratchet_private_key: bytes = b""
    """The new ratchet key, if this message turned the ratchet."""

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


class ReceivedSkipped(NamedTuple):
    """A message was decrypted with a key that had been skipped."""

    message_number: int
    chain_number: int


Change = Sent | Received | ReceivedSkipped

_Stored = session_pb2.Change


def encode_change(change: Change) -> bytes:
    """Return the stored form: 4 bytes for a typical message, about 38 where a ratchet turned."""
    match change:
        case Sent(index, private_key):
            stored = _Stored(kind=_Stored.SENT, index=index)
            if private_key:
                stored.ratchet_key = private_key
        case Received(index, ratchet_key, previous):
            stored = _Stored(kind=_Stored.RECEIVED, index=index)
            if ratchet_key:
                stored.ratchet_key = ratchet_key
            if previous:
                stored.previous_chain_length = previous
        case ReceivedSkipped(index, chain_number):
            stored = _Stored(kind=_Stored.RECEIVED_SKIPPED, index=index, chain_number=chain_number)
    return stored.SerializeToString()


def change_size(change: Change) -> int:
    """Return the length of what ``encode_change`` returns, without making it."""
    match change:
        case Sent(index, key):
            size = 2 + _field_size(index)
        case Received(index, key, previous):
            size = 2 + _field_size(index) + _field_size(previous)
        case ReceivedSkipped(index, chain_number):
            return 2 + _field_size(index) + _field_size(chain_number)
    # A key is shorter than 128 bytes: one for the tag, one for the length.
    return size + 2 + len(key) if key else size


def _field_size(value: int) -> int:
    """Size of a varint field with a tag of one byte; 0 is not stored."""
    return 1 + (value.bit_length() + 6) // 7 if value else 0


def decode_change(stored: bytes) -> Change:
    """Return the change that ``encode_change`` stored.

    Raises:
        InconsistentChangeError: the bytes are not a change that this version knows.
    """
    try:
        change = _Stored.FromString(stored)
    except DecodeError as error:
        raise InconsistentChangeError("a stored change can't be parsed") from error
    if len(change.ratchet_key) not in (0, KEY_SIZE):
        raise InconsistentChangeError(
            f"a stored change's ratchet key has {len(change.ratchet_key)} bytes"
        )
    if change.kind == _Stored.SENT:
        return Sent(change.index, change.ratchet_key)
    if change.kind == _Stored.RECEIVED:
        return Received(change.index, change.ratchet_key, change.previous_chain_length)
    if change.kind == _Stored.RECEIVED_SKIPPED:
        return ReceivedSkipped(change.index, change.chain_number)
    raise InconsistentChangeError(f"unknown kind of change: {change.kind}")
