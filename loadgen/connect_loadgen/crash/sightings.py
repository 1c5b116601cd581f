"""Every message that was ever on the wire, by either end: no place and no nonce bears two.

A place is (sender, its ratchet key, index on that key's chain) and fixes the message key, so one
place with two ciphertexts is one message key used twice, whatever the nonces. That is more than the
promise (no pair of key and nonce twice), and it can be seen from outside. Nonces are random, so two
equal ones among all messages of a run mean that randomness was repeated, as by a copied generator.
"""

from enum import Enum, auto
from hashlib import blake2b
from typing import Literal

from connect_actor.v1 import connect_pb2 as wire

__all__ = ["Sender", "Sighting", "Sightings"]

Sender = Literal["service", "peer"]

# Two among millions of messages are alike by chance once in 10**24 runs.
_DIGEST_BYTES = 16


class Sighting(Enum):
    """What a message turned out to be."""

    NEW = auto()
    SAME = auto()
    """Bit for bit one that was seen before, for the same plaintext."""
    PLACE_TAKEN = auto()
    """Another message has its place."""
    NONCE_TAKEN = auto()
    """Another message has its nonce."""


class Sightings:
    """The messages of a run; what is kept of each are digests."""

    def __init__(self) -> None:
        self._places: dict[tuple[Sender, bytes, int], bytes] = {}
        self._nonces: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        """Number of different messages."""
        return len(self._places)

    def see(self, sender: Sender, payload: wire.CipherPayload, plaintext: bytes) -> Sighting:
        """Take note of a message, and of what it says."""
        seen = payload.SerializeToString(deterministic=True)
        # With its length, so that no two pairs read alike.
        digest = blake2b(b"%d:" % len(seen), digest_size=_DIGEST_BYTES)
        digest.update(seen)
        digest.update(plaintext)
        said = digest.digest()
        place = (sender, payload.dh_public_key, payload.ratchet_index)
        before = self._places.setdefault(place, said)
        if before is not said:
            return Sighting.SAME if before == said else Sighting.PLACE_TAKEN
        if self._nonces.setdefault(payload.nonce, said) is not said:
            return Sighting.NONCE_TAKEN
        return Sighting.NEW
