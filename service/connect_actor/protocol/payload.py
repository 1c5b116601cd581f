"""A message between the two ends of a channel, and the bytes of it that are authenticated."""

import struct
from typing import NamedTuple

from connect_actor.errors import MalformedRequestError
from connect_actor.protocol.primitives import KEY_SIZE, NONCE_SIZE, TAG_SIZE

__all__ = ["Header", "Payload", "require_well_formed"]

# Ratchet key, PN, N, request id, creation time: fixed width, so no two headers encode alike.
_HEADER = struct.Struct(">32sIIQq")

# A position on a chain is a uint32, and the one behind a message must be one too.
_MAX_CHAIN_LENGTH = 2**32 - 1


class Header(NamedTuple):
    """All that travels in the clear beside a ciphertext, but for the nonce (AES-GCM binds that)."""

    ratchet_key: bytes
    previous_chain_length: int
    message_number: int
    """Position on the sending chain, from 0 (the specification's N)."""
    request_id: int
    created_at: int
    """Sender's clock, microseconds since the epoch."""

    def encode(self) -> bytes:
        """Return the 56 bytes that go into the associated data.

        Raises:
            MalformedRequestError: a number does not fit its field.
        """
        try:
            return _HEADER.pack(*self)
        except struct.error:
            raise MalformedRequestError(
                "a chain position doesn't fit 32 bits, the request id (unsigned) or the creation"
                " time (signed) 64"
            ) from None


class Payload(NamedTuple):
    """One encrypted message. Field for field, the wire's ``CipherPayload``."""

    header: Header
    nonce: bytes
    ciphertext: bytes
    """Ciphertext followed by its tag."""


def require_well_formed(payload: Payload) -> None:
    """Check the sizes of a payload's parts, and its positions.

    Raises:
        MalformedRequestError: with what was expected and what came.
    """
    header = payload.header
    if len(payload.nonce) != NONCE_SIZE:
        raise MalformedRequestError(
            f"payload.nonce has {len(payload.nonce)} bytes, expected {NONCE_SIZE}"
        )
    if len(header.ratchet_key) != KEY_SIZE:
        raise MalformedRequestError(
            f"payload.dh_public_key has {len(header.ratchet_key)} bytes, expected {KEY_SIZE}"
        )
    if len(payload.ciphertext) < TAG_SIZE:
        raise MalformedRequestError(
            f"payload.ciphertext has {len(payload.ciphertext)} bytes,"
            f" expected at least the tag's {TAG_SIZE}"
        )
    if not (
        0 <= header.message_number < _MAX_CHAIN_LENGTH
        and 0 <= header.previous_chain_length <= _MAX_CHAIN_LENGTH
    ):
        raise MalformedRequestError(
            f"payload's positions are {header.message_number} on its chain and"
            f" {header.previous_chain_length} on the one before,"
            f" chains have at most {_MAX_CHAIN_LENGTH} messages"
        )
