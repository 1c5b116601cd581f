"""Master keys: what everything at rest is sealed under, and how they are told apart.

Rotation needs two at a time: a new one that seals, and old ones that still open what they sealed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Self

__all__ = ["KEY_ID_SIZE", "MASTER_KEY_SIZE", "KeyRing", "MasterKey"]

MASTER_KEY_SIZE = 32
KEY_ID_SIZE = 8

_ID_LABEL = b"connect-actor master key id v1"


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One master key: 32 random bytes."""

    secret: bytes = field(repr=False)
    id: bytes = field(init=False)
    """Names the key without giving it away: 8 bytes of a digest of it."""

    def __post_init__(self) -> None:
        """Derive the id.

        Raises:
            ValueError: the key has another size.
        """
        if len(self.secret) != MASTER_KEY_SIZE:
            raise ValueError(
                f"a master key has {MASTER_KEY_SIZE} bytes, this one {len(self.secret)}"
            )
        object.__setattr__(self, "id", sha256(_ID_LABEL + self.secret).digest()[:KEY_ID_SIZE])


class KeyRing:
    """Master keys in order: the first one seals, all of them open."""

    def __init__(self, keys: Sequence[MasterKey]) -> None:
        """Take at least one key.

        Raises:
            ValueError: there is none.
        """
        if not keys:
            raise ValueError("a key ring holds at least one key")
        self.keys = tuple(keys)
        self._by_id = {key.id: key for key in self.keys}

    @classmethod
    def of(cls, *secrets: bytes) -> Self:
        """Make a ring of keys of 32 bytes each, the sealing one first."""
        return cls([MasterKey(secret) for secret in secrets])

    @property
    def sealing(self) -> MasterKey:
        """The key that seals."""
        return self.keys[0]

    def find(self, key_id: bytes) -> MasterKey | None:
        """Return the key of this id, if it is on the ring."""
        return self._by_id.get(key_id)
