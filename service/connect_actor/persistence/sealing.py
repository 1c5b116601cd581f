"""Sealing: authenticated encryption of what the journal writes, bound to where it belongs.

Every opening of a journal seals under a key of its own, HKDF-SHA256(master key, a fresh random
salt). The salt is stored beside the number of the opening (its *epoch*) and the id of its master
key; every sealed blob names its epoch. The strategy that writes goes into the derivation, so it is
bound to all that it has written; and so does the file's format, so that nothing is read as another
format than the one it was written in.

Epochs are a chain: each is bound to the salt of the one before it, and to the row of the log that
it begins with. No epoch of another journal, or of another copy of this one, fits in, and no row
that an earlier epoch has left, in a commit that failed, passes for one of a later epoch.

A blob is its epoch (4 bytes), the nonce (12) and the AES-256-GCM ciphertext with its tag. A nonce
is a counter (5 bytes) and random bytes that the kernel gives at that moment (7). So no (key, nonce)
pair comes twice:

- within an opening, by the counter: not after a failed commit either;
- across crashes, restored backups and copied directories, by the salt;
- if the process's memory is cloned (a snapshot of a virtual machine that is resumed twice), by the
  random bytes: two blobs of one counter meet with a probability of 2**-56.

The associated data names what it is, where it belongs and the format, so that a blob moved, swapped
or replayed elsewhere in the journal does not open. Records are sealed by the row of the log, of
which the directory says whose they are; the payloads are bound to that very directory.

A whole state in the log is sealed once more, under a key that lies in its channel's newest
snapshot: when the next snapshot replaces that one, nobody can open the states between them any
more, however long the log's rows stay (forward secrecy at rest). Copies of a directory share that
key, so each state has a key of its own, derived from it and fresh random bytes (``StateCipher``).

Journals of format 2 are opened, too, to bring them up: see ``_FORM_BEFORE``.
"""

import hmac
import os
import struct
from bisect import bisect_right
from collections.abc import Callable
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from connect_actor.keys.keyring import MASTER_KEY_SIZE, MasterKey
from connect_actor.persistence.contract import CorruptRecordError

__all__ = [
    "SALT_SIZE",
    "STATE_KEY_SIZE",
    "Sealer",
    "StateCipher",
    "beginning_context",
    "canary_context",
    "directory_context",
    "epoch_of",
    "owner_context",
    "payloads_context",
    "snapshot_context",
    "state_context",
]

SALT_SIZE = 32
STATE_KEY_SIZE = 32
"""Bytes of the key in a snapshot that seals the whole states behind it."""

_EPOCH = struct.Struct(">I")
_NONCE_SIZE = 12
# At 2,000 seals a second, 17 years of one opening.
_COUNTER_SIZE = 5
_TAG_SIZE = 16
_OVERHEAD = _NONCE_SIZE + _TAG_SIZE
# A state's random bytes: one half goes into its key, the other is its nonce (C2SP's XAES-256-GCM
# divides 24 bytes in the same way).
_STATE_RANDOM_SIZE = 2 * _NONCE_SIZE
_STATE_LABEL = b"connect-actor sealed state v3 "


class _Form(NamedTuple):
    """How the blobs of a format are made."""

    label: str
    """In the derivation of their keys."""
    nonce_at: int
    """Offset of the nonce, which the ciphertext follows."""

    @property
    def head(self) -> int:
        """Bytes in front of the ciphertext."""
        return self.nonce_at + _NONCE_SIZE


_FORM = _Form("connect-actor journal seal v3 ", _EPOCH.size)
# The nonce was the epoch and a counter of 8 bytes.
_FORM_BEFORE = _Form("connect-actor journal seal v2 ", 0)

# What is sealed, the version of these contexts, and where: row, or channel, number and time taken.
_CONTEXT = struct.Struct(">BBQQQ")
_DIRECTORY, _PAYLOADS, _SNAPSHOT, _STATE, _CANARY, _OWNER, _BEGINNING = 1, 2, 3, 4, 5, 6, 7
_VERSION = 2


def directory_context(row: int) -> bytes:
    """Return the associated data of the directory of a row of the log."""
    return _CONTEXT.pack(_DIRECTORY, _VERSION, row, 0, 0)


def payloads_context(row: int, sealed_directory: bytes) -> bytes:
    """Return the associated data of the payloads behind a directory: its nonce stands for it."""
    return _payloads_context(row, sealed_directory, _FORM)


def _payloads_context(row: int, sealed_directory: bytes, form: _Form) -> bytes:
    return _CONTEXT.pack(_PAYLOADS, _VERSION, row, 0, 0) + sealed_directory[: form.head]


def snapshot_context(channel: int, number: int, taken_at: int) -> bytes:
    """Return the associated data of a snapshot's payload; its number is as it is stored."""
    return _CONTEXT.pack(_SNAPSHOT, _VERSION, channel, number, taken_at)


def owner_context(channel: int, life: int) -> bytes:
    """Return the associated data of a channel's owner."""
    return _CONTEXT.pack(_OWNER, _VERSION, channel, life, 0)


def state_context(channel: int, sequence_number: int) -> bytes:
    """Return the associated data of a whole state's inner seal."""
    return _CONTEXT.pack(_STATE, _VERSION, channel, sequence_number, 0)


def canary_context(
    epoch: int, opened_at: int = 0, first_row: int = 0, previous: bytes = b""
) -> bytes:
    """Return the associated data of the blob that tells whether an epoch's row is as it was.

    Args:
        epoch: its number.
        opened_at: nanoseconds since 1970.
        first_row: number of the row of the log that the epoch begins with.
        previous: salt of the epoch before it.
    """
    return _CONTEXT.pack(_CANARY, _VERSION, epoch, opened_at, first_row) + previous


def beginning_context(kind: int) -> bytes:
    """Return the associated data of what says where the log begins, in this kind of file."""
    return _CONTEXT.pack(_BEGINNING, _VERSION, kind, 0, 0)


def epoch_of(blob: bytes) -> int:
    """Return the epoch that a sealed blob names.

    Raises:
        CorruptRecordError: it is too short to name one.
    """
    # What a damaged page yields may be of any type.
    if not isinstance(blob, bytes) or len(blob) < _OVERHEAD:
        raise CorruptRecordError("a sealed blob is too short")
    epoch: int = _EPOCH.unpack_from(blob)[0]
    return epoch


def _open(cipher: AESGCM, blob: bytes, context: bytes, nonce_at: int = 0) -> bytes:
    begin = nonce_at + _NONCE_SIZE
    try:
        return cipher.decrypt(blob[nonce_at:begin], blob[begin:], context)
    except (InvalidTag, ValueError):
        raise CorruptRecordError("a sealed blob does not open in its place") from None


class StateCipher:
    """Seals the whole states behind a snapshot, under the key that lies in it."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        """Take the snapshot's key, of ``STATE_KEY_SIZE`` bytes."""
        self._key = key

    def seal(self, payload: bytes, context: bytes) -> bytes:
        """Return the sealed blob of a state in its context."""
        random = os.urandom(_STATE_RANDOM_SIZE)
        return random + self._derive(random).encrypt(random[_NONCE_SIZE:], payload, context)

    def open(self, blob: bytes, context: bytes) -> bytes:
        """Return the state in a blob.

        Raises:
            CorruptRecordError: it is damaged, belongs elsewhere, or was sealed under another key.
        """
        return _open(self._derive(blob), blob, context, _NONCE_SIZE)

    def open_before(self, blob: bytes, context: bytes) -> bytes:
        """As ``open``, of the form before this one: sealed under the snapshot's key itself."""
        return _open(AESGCM(self._key), blob, context)

    def _derive(self, random: bytes) -> AESGCM:
        return AESGCM(hmac.digest(self._key, _STATE_LABEL + random[:_NONCE_SIZE], "sha256"))


class Sealer:
    """Seals under the current epoch, opens what any known epoch has sealed."""

    def __init__(self, file_format: int = 3, random: Callable[[int], bytes] = os.urandom) -> None:
        """Begin without an epoch.

        Args:
            file_format: of the journal; 2 is opened only.
            random: draws a part of each nonce.
        """
        self._form = _FORM if file_format == 3 else _FORM_BEFORE
        self._random = random
        self._ciphers: dict[int, AESGCM] = {}
        self._epochs: list[int] = []
        self._first_rows: list[int] = []
        """With which row of the log each of the epochs begins, in order."""
        self._epoch = 0
        self._counter = 0

    def know_epoch(
        self, epoch: int, key: MasterKey, salt: bytes, strategy: str, first_row: int = 1
    ) -> None:
        """Be able to open what an epoch has sealed; it is the newest one that is known."""
        derivation = HKDF(
            algorithm=SHA256(),
            length=MASTER_KEY_SIZE,
            salt=salt,
            info=(self._form.label + strategy).encode(),
        )
        self._ciphers[epoch] = AESGCM(derivation.derive(key.secret))
        self._epochs.append(epoch)
        self._first_rows.append(first_row)

    def begin_epoch(
        self, epoch: int, key: MasterKey, salt: bytes, strategy: str, first_row: int = 1
    ) -> None:
        """Seal under a key of this epoch from now on; its salt must be fresh and random."""
        self.know_epoch(epoch, key, salt, strategy, first_row)
        self._epoch = epoch
        self._counter = 0

    def forget_epochs_before(self, epoch: int) -> None:
        """Drop the keys of earlier epochs: nothing is sealed under them any more."""
        self._ciphers = {known: cipher for known, cipher in self._ciphers.items() if known >= epoch}

    def seal(self, payload: bytes, context: bytes) -> bytes:
        """Return the sealed blob of a payload in its context."""
        self._counter = counter = self._counter + 1
        # Drawn now and not ahead: a clone of this memory must not hold it, too.
        fresh = self._random(_NONCE_SIZE - _COUNTER_SIZE)
        nonce = counter.to_bytes(_COUNTER_SIZE, "big") + fresh
        sealed = self._ciphers[self._epoch].encrypt(nonce, payload, context)
        return _EPOCH.pack(self._epoch) + nonce + sealed

    def seal_row(self, number: int, directory: bytes, payloads: bytes) -> tuple[bytes, bytes]:
        """Return a row of the log, sealed: its directory, and its payloads bound to that one."""
        sealed = self.seal(directory, directory_context(number))
        return sealed, self.seal(payloads, payloads_context(number, sealed))

    def open(self, blob: bytes, context: bytes) -> bytes:
        """Return the payload of a blob.

        Raises:
            CorruptRecordError: it is damaged, belongs elsewhere, or was sealed under another key.
        """
        epoch = epoch_of(blob)
        cipher = self._ciphers.get(epoch)
        if cipher is None:
            raise CorruptRecordError(f"a blob names the unknown sealing epoch {epoch}")
        return _open(cipher, blob, context, self._form.nonce_at)

    def open_row(self, number: int, blob: bytes, context: bytes) -> bytes:
        """Return the payload of a part of a row of the log.

        Raises:
            CorruptRecordError: as ``open``; or an epoch has sealed it that was over before this row
                was written.
        """
        began = bisect_right(self._first_rows, number)
        if began and epoch_of(blob) < self._epochs[began - 1]:
            raise CorruptRecordError("it is left over from a commit that failed")
        return self.open(blob, context)

    def open_payloads(self, number: int, directory: bytes, payloads: bytes) -> bytes:
        """Return the payloads of a row, given its sealed directory, too.

        Raises:
            CorruptRecordError: as ``open_row``, or they are those of another directory.
        """
        context = _payloads_context(number, directory, self._form)
        return self.open_row(number, payloads, context)
