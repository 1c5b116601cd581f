"""The service's long-lived secrets: the master keys of everything at rest, and its identity.

Whoever holds the master keys and the journal holds the channels, so a deployment gives the keys
from elsewhere: a file, the environment, or a command (of a secret store). Keys are lines of 64 hex
digits; the first one seals, the others open what was sealed before a rotation. The identity is kept
sealed under them. Without any of it, both are made at the first start, readable by their owner
only.
"""

import os
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from service.persistence.keyring import KEY_ID_SIZE, KeyRing, MasterKey
from service.protocol import primitives
from service.protocol.keys import Identity
from service.protocol.primitives import Random
from service.syncing import sync

__all__ = ["KeyFileError", "KeySource", "identity_key_id", "load_identity"]

_IDENTITY_LABEL = b"connect-actor identity v2"
_COMMAND_TIMEOUT = 30.0


class KeyFileError(Exception):
    """A key can't be used; the message says which and why, and never what it is."""


@dataclass(frozen=True, slots=True)
class KeySource:
    """Where the master keys come from: one of the three, or else a file that is made."""

    made_file: Path
    """Made at the first start, if nothing else is given."""
    file: Path | None = None
    keys: str | None = field(default=None, repr=False)
    command: str | None = None

    def load(self, random: Random, *, may_make: bool = True) -> KeyRing:
        """Read the keys.

        Args:
            random: source of a key that is made.
            may_make: whether one may be; not where something has been sealed already.

        Raises:
            KeyFileError: there are none, or they can't be read.
        """
        if self.keys is not None:
            return _parse(self.keys, "sealing_keys")
        if self.command is not None:
            return _parse(_output_of(self.command), "the output of sealing_key_command")
        path = self.file or self.made_file
        if self.file is None and not path.exists():
            if not may_make:
                raise KeyFileError(
                    f"{path} is missing, but data has been sealed under it:"
                    " put it back, or say where the keys are (sealing_key_file)"
                )
            _write_durably(path, f"{random(primitives.KEY_SIZE).hex()}\n".encode())
        return _parse(_read(path).decode(errors="replace"), str(path))


def _parse(text: str, source: str) -> KeyRing:
    words = [
        word
        for line in text.splitlines()
        for word in line.partition("#")[0].replace(",", " ").split()
    ]
    try:
        return KeyRing([MasterKey(bytes.fromhex(word)) for word in words])
    except ValueError:
        # From None: what it would say is part of a key.
        raise KeyFileError(
            f"{source} does not hold master keys: expected lines of"
            f" {2 * primitives.KEY_SIZE} hex digits, the sealing one first"
        ) from None


def _output_of(command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - the operator's own command, run without a shell
            shlex.split(command),
            check=True,
            timeout=_COMMAND_TIMEOUT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
        )
    except subprocess.CalledProcessError as error:
        # From None: the exception holds the output, too.
        raise KeyFileError(
            f"sealing_key_command failed with exit code {error.returncode}"
        ) from None
    except subprocess.TimeoutExpired:
        raise KeyFileError(f"sealing_key_command took over {_COMMAND_TIMEOUT:g} s") from None
    except (OSError, ValueError) as error:
        raise KeyFileError(f"sealing_key_command can't be run: {error}") from None
    return done.stdout


def load_identity(path: Path, keys: KeyRing, random: Random) -> Identity:
    """Return the service's identity, making its file if there is none.

    A file that an older key of the ring has sealed is sealed anew under the first one.

    Raises:
        KeyFileError: the file can't be read, or was sealed under a key that is not on the ring.
    """
    if not path.exists():
        identity = Identity.generate(random)
        _write_durably(path, _seal(identity, keys.sealing, random))
        return identity
    sealed = _read(path)
    size = KEY_ID_SIZE + primitives.NONCE_SIZE + primitives.KEY_SIZE + primitives.TAG_SIZE
    if len(sealed) != size:
        raise KeyFileError(f"{path} holds {len(sealed)} bytes, expected {size}")
    key = keys.find(sealed[:KEY_ID_SIZE])
    if key is None:
        raise KeyFileError(
            f"{path} was sealed under the master key {sealed[:KEY_ID_SIZE].hex()},"
            " which is not given"
        )
    box = sealed[KEY_ID_SIZE:]
    private_key = primitives.decrypt(
        _identity_key(key), box[: primitives.NONCE_SIZE], box[primitives.NONCE_SIZE :], key.id
    )
    if private_key is None:
        raise KeyFileError(f"{path} is damaged")
    identity = Identity.from_private_key(private_key)
    if key.id != keys.sealing.id:
        _write_durably(path, _seal(identity, keys.sealing, random))
    return identity


def identity_key_id(path: Path) -> bytes:
    """Return the id of the master key that an identity's file is sealed under.

    Raises:
        KeyFileError: the file can't be read.
    """
    return _read(path)[:KEY_ID_SIZE]


def _identity_key(key: MasterKey) -> bytes:
    return primitives.hkdf(key.secret, salt=b"", info=_IDENTITY_LABEL, length=primitives.KEY_SIZE)


def _seal(identity: Identity, key: MasterKey, random: Random) -> bytes:
    nonce = random(primitives.NONCE_SIZE)
    return (
        key.id + nonce + primitives.encrypt(_identity_key(key), nonce, identity.private_key, key.id)
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path} can't be read: {error.strerror}") from error


def _write_durably(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Under another name first: a crash must not leave half a key behind.
        draft = path.with_name(path.name + ".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        sync(path.parent)
    except OSError as error:
        raise KeyFileError(f"{path} can't be written: {error.strerror}") from error
