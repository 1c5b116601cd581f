"""Sealing: authenticated encryption of what the journal writes, bound to where it belongs.

Every opening of a journal seals under a key of its own, HKDF-SHA256(master key, a fresh random
salt), with a counter in the nonce. So no (key, nonce) pair comes twice: not after a failed commit,
nor after a crash, nor when a backup is restored and written to again. The salt is stored beside the
number of the opening (its *epoch*) and the id of its master key; every sealed blob names its epoch.
The strategy that writes goes into the derivation, so it is bound to all that it has written.

A blob is the nonce, which is the epoch (4 bytes) and the counter (8 bytes), followed by the
AES-256-GCM ciphertext with its tag.
The associated data names what it is, where it belongs and the format, so that a blob moved, swapped
or replayed elsewhere in the journal does not open. Records are sealed by the row of the log, of
which the directory says whose they are; the payloads are bound to that very directory.

A whole state in the log is sealed once more, under a key that lies in its channel's newest
snapshot: when the next snapshot replaces that one, nobody can open the states between them any
more, however long the log's rows stay (forward secrecy at rest).
"""

import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from service.persistence.contract import CorruptRecordError
from service.persistence.keyring import MASTER_KEY_SIZE, MasterKey

__all__ = [
    "SALT_SIZE",
    "STATE_KEY_SIZE",
    "Sealer",
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

_INFO = b"connect-actor journal seal v2 "
_NONCE = struct.Struct(">IQ")
_TAG_SIZE = 16
_OVERHEAD = _NONCE.size + _TAG_SIZE

# What is sealed, the format's version, and where: row, or channel, sequence number and time taken.
_CONTEXT = struct.Struct(">BBQQQ")
_DIRECTORY, _PAYLOADS, _SNAPSHOT, _STATE, _CANARY, _OWNER = 1, 2, 3, 4, 5, 6
_FORMAT = 2


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


def state_context(channel: int, sequence_number: int) -> bytes:
    """Return the associated data of a whole state's inner seal."""
    return _CONTEXT.pack(_STATE, _FORMAT, channel, sequence_number, 0)


def canary_context(epoch: int) -> bytes:
    """Return the associated data of the blob that tells whether an epoch's key is the right one."""
    return _CONTEXT.pack(_CANARY, _FORMAT, epoch, 0, 0)


def epoch_of(blob: bytes) -> int:
    """Return the epoch that a sealed blob names.

    Raises:
        CorruptRecordError: it is too short to name one.
    """
    # What a damaged page yields may be of any type.
    if not isinstance(blob, bytes) or len(blob) < _OVERHEAD:
        raise CorruptRecordError("a sealed blob is too short")
    epoch: int = _NONCE.unpack_from(blob)[0]
    return epoch


class Sealer:
    """Seals under the current epoch, opens what any known epoch has sealed."""

    def __init__(self) -> None:
        """Begin without an epoch."""
        self._ciphers: dict[int, AESGCM] = {}
        self._epoch = 0
        self._counter = 0

    def know_epoch(self, epoch: int, key: MasterKey, salt: bytes, strategy: str) -> None:
        """Be able to open what an epoch has sealed."""
        derivation = HKDF(
            algorithm=SHA256(), length=MASTER_KEY_SIZE, salt=salt, info=_INFO + strategy.encode()
        )
        self._ciphers[epoch] = AESGCM(derivation.derive(key.secret))

    def begin_epoch(self, epoch: int, key: MasterKey, salt: bytes, strategy: str) -> None:
        """Seal under a key of this epoch from now on; its salt must be fresh and random."""
        self.know_epoch(epoch, key, salt, strategy)
        self._epoch = epoch
        self._counter = 0

    def forget_epochs_before(self, epoch: int) -> None:
        """Drop the keys of earlier epochs: nothing is sealed under them any more."""
        self._ciphers = {known: cipher for known, cipher in self._ciphers.items() if known >= epoch}

    def seal(self, payload: bytes, context: bytes) -> bytes:
        """Return the sealed blob of a payload in its context."""
        return self.seal_with(self._ciphers[self._epoch], payload, context)

    def seal_with(self, cipher: AESGCM, payload: bytes, context: bytes) -> bytes:
        """Return the blob of a payload sealed under another key.

        Its nonce is one that no other blob has, under whichever key.
        """
        self._counter = counter = self._counter + 1
        nonce = _NONCE.pack(self._epoch, counter)
        return nonce + cipher.encrypt(nonce, payload, context)

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
        return self.open_with(cipher, blob, context)

    @staticmethod
    def open_with(cipher: AESGCM, blob: bytes, context: bytes) -> bytes:
        """Return the payload of a blob that ``seal_with`` has sealed.

        Raises:
            CorruptRecordError: as ``open``.
        """
        try:
            return cipher.decrypt(blob[: _NONCE.size], blob[_NONCE.size :], context)
        except (InvalidTag, ValueError):
            raise CorruptRecordError("a sealed blob does not open in its place") from None
