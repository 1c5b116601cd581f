"""What every message costs in cryptography: one step of its chain, its header and the AEAD.

There are two implementations with one contract. ``PYTHON`` is the specification; ``NATIVE`` is one
call of ``_message_step.c``, built where there are a C compiler and OpenSSL's headers, and takes
less than half of the time. They return identical bytes, so either reads what the other wrote.
"""

from collections.abc import Callable
from types import ModuleType
from typing import NamedTuple

from connect_actor.protocol import primitives
from connect_actor.protocol.payload import Header

_native: ModuleType | None
try:
    from connect_actor.protocol import _message_step as _native
except ImportError:  # not built, or no libcrypto of OpenSSL 3 here
    _native = None

__all__ = ["NATIVE", "PYTHON", "MessageStep", "active", "use"]


class MessageStep(NamedTuple):
    """One implementation.

    Both functions take the chain key (32 bytes), the channel's associated data, the header and the
    nonce (12 bytes), and return a message key and a next chain key behind their result.
    """

    name: str
    seal: Callable[[bytes, bytes, Header, bytes, bytes], tuple[bytes, bytes, bytes]]
    """The ciphertext followed by its tag, of a plaintext.

    Raises MalformedRequestError if a number of the header doesn't fit its field.
    """
    open: Callable[[bytes, bytes, Header, bytes, bytes], tuple[bytes, bytes, bytes] | None]
    """The plaintext of a ciphertext followed by its tag; None if the tag doesn't fit.

    Raises MalformedRequestError if a number of the header doesn't fit its field.
    """


def _seal(
    chain_key: bytes, associated_data: bytes, header: Header, nonce: bytes, plaintext: bytes
) -> tuple[bytes, bytes, bytes]:
    bound = associated_data + header.encode()
    message_key, next_chain_key = primitives.step_chain(chain_key)
    ciphertext = primitives.encrypt(message_key, nonce, plaintext, bound)
    return ciphertext, message_key, next_chain_key


def _open(
    chain_key: bytes, associated_data: bytes, header: Header, nonce: bytes, ciphertext: bytes
) -> tuple[bytes, bytes, bytes] | None:
    bound = associated_data + header.encode()
    message_key, next_chain_key = primitives.step_chain(chain_key)
    plaintext = primitives.decrypt(message_key, nonce, ciphertext, bound)
    return None if plaintext is None else (plaintext, message_key, next_chain_key)


PYTHON = MessageStep("python", _seal, _open)
NATIVE = (
    None if _native is None else MessageStep("native", _native.seal_message, _native.open_message)
)

_active = NATIVE or PYTHON


def active() -> MessageStep:
    """Return the implementation that this process uses: the native one where it is built."""
    return _active


def use(*, native: bool) -> MessageStep:
    """Choose the implementation for this process, at its start, and return the one in use."""
    global _active  # noqa: PLW0603 - as the hook of the allocators, one for the process
    _active = (NATIVE or PYTHON) if native else PYTHON
    return _active
