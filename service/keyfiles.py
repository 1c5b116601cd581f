"""The service's two long-lived secrets on disk: the sealing master key and its identity.

The master key is the root of everything sealed at rest; whoever holds its file and the journal
holds the channels, so a deployment gives it from elsewhere (``sealing_key_file``). The identity is
kept sealed under it. Both are made at the first start, readable by their owner only.
"""

import os
from collections.abc import Callable
from pathlib import Path

from service.protocol import primitives
from service.protocol.keys import Identity
from service.protocol.primitives import Random

__all__ = ["KeyFileError", "load_identity", "load_master_key"]

_IDENTITY_LABEL = b"connect-actor identity v1"


class KeyFileError(Exception):
    """A key file can't be used; the message says which and why."""


def load_master_key(path: Path, random: Random) -> bytes:
    """Return the sealing master key, 32 bytes, making its file if there is none.

    Raises:
        KeyFileError: the file can't be read or doesn't hold 32 bytes.
    """
    return _load_or_create(path, primitives.KEY_SIZE, lambda: random(primitives.KEY_SIZE))


def load_identity(path: Path, master_key: bytes, random: Random) -> Identity:
    """Return the service's identity, making its file if there is none.

    Raises:
        KeyFileError: the file can't be read, or was sealed under another master key.
    """
    key = primitives.hkdf(master_key, salt=b"", info=_IDENTITY_LABEL, length=primitives.KEY_SIZE)

    def create() -> bytes:
        nonce = random(primitives.NONCE_SIZE)
        private_key = Identity.generate(random).private_key
        return nonce + primitives.encrypt(key, nonce, private_key, _IDENTITY_LABEL)

    size = primitives.NONCE_SIZE + primitives.KEY_SIZE + primitives.TAG_SIZE
    sealed = _load_or_create(path, size, create)
    private_key = primitives.decrypt(
        key, sealed[: primitives.NONCE_SIZE], sealed[primitives.NONCE_SIZE :], _IDENTITY_LABEL
    )
    if private_key is None:
        raise KeyFileError(f"{path} was sealed under another master key, or is damaged")
    return Identity.from_private_key(private_key)


def _load_or_create(path: Path, size: int, create: Callable[[], bytes]) -> bytes:
    try:
        if not path.exists():
            _write_durably(path, create())
        content = path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path} can't be used: {error.strerror}") from error
    if len(content) != size:
        raise KeyFileError(f"{path} holds {len(content)} bytes, expected {size}")
    return content


def _write_durably(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Under another name first: a crash must not leave half a key behind.
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
