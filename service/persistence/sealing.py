"""Sealing: authenticated encryption of what the journal writes, bound to where it belongs.

Every opening of a journal seals under a key of its own, HKDF-SHA256(master key, a fresh random
salt), with a counter in the nonce. So no (key, nonce) pair comes twice: not after a failed commit,
nor after a crash, nor when a backup is restored and written to again. The salt is stored beside the
number of the opening (its *epoch*), which every sealed blob names.

A blob is the nonce, which is the epoch (4 bytes) and the counter (8 bytes), followed by the
AES-256-GCM ciphertext with its tag.
The associated data names what it is, where it belongs and the format, so that a blob moved, swapped
or replayed elsewhere in the journal does not open. Records are sealed by the row of the log, of
which the directory says whose they are; the payloads are bound to that very directory.
"""

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.persistence.contract import CorruptRecordError

__all__ = [
    "OVERHEAD",
    "SALT_SIZE",
    "Sealer",
    "directory_context",
    "owner_context",
    "payloads_context",
    "snapshot_context",
]

SALT_SIZE = 32
_MASTER_KEY_SIZE = 32
_INFO = b"connect-actor journal seal v1"
_NONCE = struct.Struct(">IQ")
_TAG_SIZE = 16

OVERHEAD = _NONCE.size + _TAG_SIZE
"""Bytes that sealing adds to a payload."""

# What is sealed, the format's version, and where: row, or channel, sequence number and time taken.
_CONTEXT = struct.Struct(">BBQQQ")
_DIRECTORY, _PAYLOADS, _SNAPSHOT, _OWNER = 1, 2, 3, 4
_FORMAT = 1


def directory_context(row: int) -> bytes:
    """Return the associated data of the directory of a row of the log."""
    return _CONTEXT.pack(_DIRECTORY, _FORMAT, row, 0, 0)


def payloads_context(row: int, sealed_directory: bytes) -> bytes:
    """Return the associated data of the payloads behind a directory: its nonce stands for it."""
    return _CONTEXT.pack(_PAYLOADS, _FORMAT, row, 0, 0) + sealed_directory[: _NONCE.size]


def snapshot_context(channel: int, sequence_number: int, taken_at: int) -> bytes:
    """Return the associated data of a snapshot's payload."""
    return _CONTEXT.pack(_SNAPSHOT, _FORMAT, channel, sequence_number, taken_at)


def owner_context(channel: int) -> bytes:
    """Return the associated data of a channel's owner."""
    return _CONTEXT.pack(_OWNER, _FORMAT, channel, 0, 0)


class Sealer:
    """Seals under the current epoch, opens what any known epoch has sealed."""

    def __init__(self, master_key: bytes) -> None:
        """Begin without an epoch.

        Args:
            master_key: 32 bytes.

        Raises:
            ValueError: it has another size.
        """
        if len(master_key) != _MASTER_KEY_SIZE:
            raise ValueError(
                f"a master key has {_MASTER_KEY_SIZE} bytes, this one {len(master_key)}"
            )
        self._master_key = master_key
        self._ciphers: dict[int, AESGCM] = {}
        self._epoch = 0
        self._counter = 0

    def know_epoch(self, epoch: int, salt: bytes) -> None:
        """Be able to open what an earlier opening of the journal has sealed."""
        derivation = HKDF(algorithm=SHA256(), length=_MASTER_KEY_SIZE, salt=salt, info=_INFO)
        self._ciphers[epoch] = AESGCM(derivation.derive(self._master_key))

    def begin_epoch(self, epoch: int, salt: bytes) -> None:
        """Seal under a key of this epoch from now on; its salt must be fresh and random."""
        self.know_epoch(epoch, salt)
        self._epoch = epoch
        self._counter = 0

    def seal(self, payload: bytes, context: bytes) -> bytes:
        """Return the sealed blob of a payload in its context."""
        self._counter = counter = self._counter + 1
        nonce = _NONCE.pack(self._epoch, counter)
        return nonce + self._ciphers[self._epoch].encrypt(nonce, payload, context)

    def open(self, blob: bytes, context: bytes) -> bytes:
        """Return the payload of a blob.

        Raises:
            CorruptRecordError: it is damaged, belongs elsewhere, or was sealed under another key.
        """
        if len(blob) < OVERHEAD:
            raise CorruptRecordError(f"a sealed blob has only {len(blob)} bytes")
        epoch, _ = _NONCE.unpack_from(blob)
        cipher = self._ciphers.get(epoch)
        if cipher is None:
            raise CorruptRecordError(f"a blob names the unknown sealing epoch {epoch}")
        try:
            return cipher.decrypt(blob[: _NONCE.size], blob[_NONCE.size :], context)
        except InvalidTag:
            raise CorruptRecordError("a sealed blob does not open in its place") from None
