"""The service's long-lived secrets: the master keys of everything at rest, and its identity.

Whoever holds the master keys and the journal holds the channels, so a deployment gives the keys
from elsewhere: a file, the environment, or a command (of a secret store). Keys are lines of 64 hex
digits; the first one seals, the others open what was sealed before a rotation. The identity is kept
sealed under them. Without any of it, both are made at the first start, readable by their owner
only.
"""

import asyncio
import os
import shlex
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from connect_actor.files import AccessFileError, read_file, sync
from connect_actor.keys.keyring import KEY_ID_SIZE, KeyRing, MasterKey
from connect_actor.protocol import primitives
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.primitives import Random

__all__ = ["KeyFileError", "KeySource", "identity_key_id", "load_identity"]

_IDENTITY_LABEL = b"connect-actor identity v2"
_COMMAND_TIMEOUT = 30.0
# Seconds for a command that was killed to be gone.
_REAP_TIMEOUT = 1.0
# Of a key file, or of a command's output: a thousand keys.
_MAX_BYTES = 65_536
_COMMAND_OUTPUT = "the output of sealing_key_command"


class KeyFileError(AccessFileError):
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
        """Read the keys; not where an event loop runs.

        Args:
            random: source of a key that is made.
            may_make: whether one may be; not where something has been sealed already.

        Raises:
            KeyFileError: there are none, or they can't be read.
        """
        if self.command is not None:
            return _parse(asyncio.run(_output_of(self.command)), _COMMAND_OUTPUT)
        return self._without_command(random, may_make=may_make)

    async def read(self, random: Random, *, may_make: bool = True) -> KeyRing:
        """Read the keys: as ``load``, on an event loop. Cancelled, it ends the command."""
        if self.command is not None:
            return _parse(await _output_of(self.command), _COMMAND_OUTPUT)
        return await asyncio.to_thread(self._without_command, random, may_make=may_make)

    def _without_command(self, random: Random, *, may_make: bool) -> KeyRing:
        if self.keys is not None:
            return _parse(self.keys, "sealing_keys")
        path = self.file or self.made_file
        if self.file is None and not path.exists():
            if not may_make:
                raise KeyFileError(
                    f"{path} is missing, but data has been sealed under it:"
                    " put it back, or say where the keys are (sealing_key_file)"
                )
            _write_durably(path, f"{random(primitives.KEY_SIZE).hex()}\n".encode())
        return _parse(_read(path, secret=True).decode(errors="replace"), str(path))


def _parse(text: str, source: str) -> KeyRing:
    words = [
        word
        for line in text.removeprefix("\ufeff").splitlines()
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


async def _output_of(command: str) -> str:
    """Run the operator's command, without a shell; return what it prints.

    If it is no longer waited for, it is killed, with what it has started in its process group.

    Raises:
        KeyFileError: it can't be run, fails, takes too long, or prints nothing or too much.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise KeyFileError(f"sealing_key_command can't be run: {error}") from None
    if not words:
        raise KeyFileError("sealing_key_command is empty: leave it out, or name a program")
    # A task of its own: a start that is cancelled half way would leave what the command starts.
    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *words,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
            limit=_MAX_BYTES,
        )
    )
    try:
        async with asyncio.timeout(_COMMAND_TIMEOUT):
            process = await asyncio.shield(starting)
            output = await _read_out(process)
            code = await process.wait()
    except TimeoutError:
        await _kill(starting)
        raise KeyFileError(f"sealing_key_command took over {_COMMAND_TIMEOUT:g} s") from None
    except (OSError, ValueError) as error:
        raise KeyFileError(f"sealing_key_command can't be run: {error}") from None
    except BaseException:
        # Cancelled, since the service stops; or it prints too much.
        await _kill(starting)
        raise
    if code:
        raise KeyFileError(f"sealing_key_command failed with exit code {code}")
    if not output.strip():
        raise KeyFileError("sealing_key_command printed nothing: expected the master keys")
    return output.decode(errors="replace")


async def _kill(starting: "asyncio.Task[asyncio.subprocess.Process]") -> None:
    """Kill a process, once it has started, and its group; wait until it is gone."""
    with suppress(OSError, ValueError):
        process = await starting
        os.killpg(process.pid, signal.SIGKILL)
        async with asyncio.timeout(_REAP_TIMEOUT):
            # To the end of what is in the pipe as well, so that nothing of it stays open.
            await process.communicate()


async def _read_out(process: asyncio.subprocess.Process) -> bytes:
    """Return what a process prints, to the end.

    Raises:
        KeyFileError: it prints too much.
    """
    assert process.stdout is not None  # noqa: S101 - asked for when it was started
    output = b""
    while chunk := await process.stdout.read(_MAX_BYTES):
        output += chunk
        if len(output) > _MAX_BYTES:
            raise KeyFileError(f"sealing_key_command prints over {_MAX_BYTES:,} bytes")
    return output


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


def _read(path: Path, *, secret: bool = False) -> bytes:
    try:
        return read_file(path, secret=secret, max_bytes=_MAX_BYTES)
    except AccessFileError as error:
        raise KeyFileError(str(error)) from error


def _write_durably(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Under another name first: a crash must not leave half a key behind.
        draft = path.with_name(path.name + ".new")
        # Made here and now, so that its mode is ours and nobody else has it open.
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        sync(path.parent)
    except OSError as error:
        raise KeyFileError(f"{path} can't be written: {error.strerror}") from error
