"""Seals as journals of format 2 have them (seal v2), to make what has to be brought up."""

import struct

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from connect_actor.keys.keyring import MasterKey
from connect_actor.persistence.sealing import directory_context

__all__ = ["FormerSealer"]


class FormerSealer:
    """The nonce is epoch and counter, in front of the ciphertext."""

    def __init__(self, epoch: int, key: MasterKey, salt: bytes, strategy: str) -> None:
        info = b"connect-actor journal seal v2 " + strategy.encode()
        derivation = HKDF(algorithm=SHA256(), length=32, salt=salt, info=info)
        self.cipher = AESGCM(derivation.derive(key.secret))
        self.epoch = epoch
        self.counter = 0

    def seal(self, payload: bytes, context: bytes, cipher: AESGCM | None = None) -> bytes:
        self.counter += 1
        nonce = struct.pack(">IQ", self.epoch, self.counter)
        return nonce + (cipher or self.cipher).encrypt(nonce, payload, context)

    def seal_row(self, number: int, directory: bytes, payloads: bytes) -> tuple[bytes, bytes]:
        sealed = self.seal(directory, directory_context(number))
        context = struct.pack(">BBQQQ", 2, 2, number, 0, 0) + sealed[:12]
        return sealed, self.seal(payloads, context)
