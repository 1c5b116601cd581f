"""The service's randomness: the operating system's, drawn in blocks where that is safe."""

import os

__all__ = ["BlockRandom"]

_BLOCK = 4_096
# Nonces: they go over the wire in clear, so that they linger in a block harms nobody. Anything
# longer may be a key, and is drawn on its own.
_LARGEST_FROM_BLOCK = 12


class BlockRandom:
    """Callable as ``Random``. One system call serves some 340 nonces; not for several threads."""

    __slots__ = ("_block", "_position")

    def __init__(self) -> None:
        """Begin with an empty block."""
        self._block = b""
        self._position = 0

    def __call__(self, size: int) -> bytes:
        """Return ``size`` fresh bytes."""
        if size > _LARGEST_FROM_BLOCK:
            return os.urandom(size)
        position = self._position
        end = position + size
        if end > len(self._block):
            self._block = os.urandom(_BLOCK)
            position, end = 0, size
        self._position = end
        return self._block[position:end]
