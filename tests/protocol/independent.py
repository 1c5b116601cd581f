"""Partners for interoperability: the `DoubleRatchet` and `X3DH` packages, set up as our protocol.

Both leave the choice of primitives to their user. Here they get our constants, and primitives from
`DoubleRatchet`'s own recommended implementations or straight from `cryptography`; nothing of
``protocol`` is used but its value types, so agreement is agreement of two implementations.

What is adapted, since the libraries offer no place for it:

- *The first ratchet key.* Ours comes with the handshake, so that either end may speak first.
  Theirs is drawn when Alice encrypts her first message. So their Alice draws, first, the private
  key that our request has offered (``begin_as_alice``); and their Bob, who learns it from Alice's
  first message, can only listen until then.
- *Request id and time* are in our header, but not in theirs. They travel with a message as the
  last 16 bytes of what theirs calls associated data, and are put behind the header from there.
- *The nonce.* Theirs has none; it is drawn here and put in front of the ciphertext.
"""

import struct
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from doubleratchet import AEAD, AuthenticationFailedException, EncryptedMessage, Header
from doubleratchet import DiffieHellmanRatchet as AbstractDiffieHellmanRatchet
from doubleratchet import DoubleRatchet as AbstractDoubleRatchet
from doubleratchet.recommended import HashFunction, kdf_hkdf, kdf_separate_hmacs
from x3dh import BaseState, IdentityKeyFormat

from connect_actor.protocol import payload as ours
from connect_actor.protocol.primitives import Random

__all__ = ["IndependentRatchet", "X3DHState"]

_NONCE_SIZE = 12


class _RootKDF(kdf_hkdf.KDF):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256

    @staticmethod
    def _get_info() -> bytes:
        return b"connect-actor ratchet v1"


class _ChainKDF(kdf_separate_hmacs.KDF):
    @staticmethod
    def _get_hash_function() -> HashFunction:
        return HashFunction.SHA_256


# Theirs takes the first half for the next chain key and the second for the message key.
_CHAIN_CONSTANT = b"\x02\x01"


class _DoubleRatchet(AbstractDoubleRatchet):
    @staticmethod
    def _build_associated_data(associated_data: bytes, header: Header) -> bytes:
        ends, id_and_time = associated_data[:32], associated_data[32:]
        return (
            ends
            + header.ratchet_pub
            + struct.pack(">II", header.previous_sending_chain_length, header.sending_chain_length)
            + id_and_time
        )


def _aes_gcm(random: Random) -> type[AEAD]:
    class AESGCMWithNonce(AEAD):
        @staticmethod
        async def encrypt(plaintext: bytes, key: bytes, associated_data: bytes) -> bytes:
            nonce = random(_NONCE_SIZE)
            return nonce + AESGCM(key).encrypt(nonce, plaintext, associated_data)

        @staticmethod
        async def decrypt(ciphertext: bytes, key: bytes, associated_data: bytes) -> bytes:
            try:
                return AESGCM(key).decrypt(
                    ciphertext[:_NONCE_SIZE], ciphertext[_NONCE_SIZE:], associated_data
                )
            except InvalidTag:
                raise AuthenticationFailedException from None

    return AESGCMWithNonce


def _x25519(draw: Callable[[], bytes]) -> type[AbstractDiffieHellmanRatchet]:
    class X25519Ratchet(AbstractDiffieHellmanRatchet):
        @staticmethod
        def _generate_priv() -> bytes:
            return draw()

        @staticmethod
        def _derive_pub(priv: bytes) -> bytes:
            return X25519PrivateKey.from_private_bytes(priv).public_key().public_bytes_raw()

        @staticmethod
        def _perform_diffie_hellman(own_priv: bytes, other_pub: bytes) -> bytes:
            own = X25519PrivateKey.from_private_bytes(own_priv)
            return own.exchange(X25519PublicKey.from_public_bytes(other_pub))

    return X25519Ratchet


class IndependentRatchet:
    """One end of a channel, by `DoubleRatchet`, that speaks our payloads."""

    def __init__(
        self, shared_key: bytes, associated_data: bytes, random: Random, max_skip: int = 100
    ) -> None:
        """Take what the handshake agreed on; ``random`` serves keys and nonces."""
        self._associated_data = associated_data
        self._first_draws: list[bytes] = []
        self._random = random
        self._ratchet: AbstractDoubleRatchet | None = None
        self._setup: dict[str, Any] = {
            "diffie_hellman_ratchet_class": _x25519(self._draw),
            "root_chain_kdf": _RootKDF,
            "message_chain_kdf": _ChainKDF,
            "message_chain_constant": _CHAIN_CONSTANT,
            "dos_protection_threshold": max_skip,
            "max_num_skipped_message_keys": 2 * max_skip,
            "aead": _aes_gcm(random),
            "shared_secret": shared_key,
        }

    def _draw(self) -> bytes:
        return self._first_draws.pop() if self._first_draws else self._random(32)

    def begin_as_alice(self, own_private_key: bytes, peer_key: bytes) -> None:
        """Be the initiator, with the ratchet key that its request offered."""
        self._first_draws = [own_private_key]
        self._setup["recipient_ratchet_pub"] = peer_key

    def begin_as_bob(self, own_private_key: bytes) -> None:
        """Be the responder; the ratchet key is the signed prekey."""
        self._setup["own_ratchet_priv"] = own_private_key

    async def encrypt(
        self, plaintext: bytes, request_id: int = 0, created_at: int = 0
    ) -> ours.Payload:
        """Encrypt the next message."""
        bound = self._associated_data + struct.pack(">Qq", request_id, created_at)
        if self._ratchet is None:
            self._ratchet, message = await _DoubleRatchet.encrypt_initial_message(
                **self._setup, message=plaintext, associated_data=bound
            )
        else:
            message = await self._ratchet.encrypt_message(plaintext, bound)
        theirs = message.header
        header = ours.Header(
            theirs.ratchet_pub,
            theirs.previous_sending_chain_length,
            theirs.sending_chain_length,
            request_id,
            created_at,
        )
        return ours.Payload(
            header, message.ciphertext[:_NONCE_SIZE], message.ciphertext[_NONCE_SIZE:]
        )

    async def decrypt(self, payload: ours.Payload) -> bytes:
        """Decrypt a message, with whatever exceptions theirs raises."""
        header = payload.header
        bound = self._associated_data + struct.pack(">Qq", header.request_id, header.created_at)
        message = EncryptedMessage(
            Header(header.ratchet_key, header.previous_chain_length, header.message_number),
            payload.nonce + payload.ciphertext,
        )
        if self._ratchet is None:
            self._ratchet, plaintext = await _DoubleRatchet.decrypt_initial_message(
                **self._setup, message=message, associated_data=bound
            )
            return plaintext
        return await self._ratchet.decrypt_message(message, bound)


class X3DHState(BaseState):
    """One party of `X3DH`; our signature covers more than theirs, so keys go over as they are."""

    @staticmethod
    def _encode_public_key(key_format: IdentityKeyFormat, pub: bytes) -> bytes:
        del key_format  # always X25519's
        return pub
