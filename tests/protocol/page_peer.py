"""A peer from docs/reference/protocol.md alone: `cryptography`, hashlib, the wire's messages.

Nothing of ``service`` is used. Randomness comes in as draws, in the order that the page gives.
"""

import hashlib
import hmac
import struct
from collections.abc import Callable

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from connect_actor.v1 import connect_pb2 as wire

__all__ = ["PagePeer", "RefusedError"]

Draw = Callable[[int], bytes]


class RefusedError(Exception):
    """What the page says is refused."""


def parts(*strings: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(string)) + string for string in strings)


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


def u64(number: int) -> bytes:
    return struct.pack(">Q", number)


def public(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def dh(key: X25519PrivateKey, peer: bytes) -> bytes:
    try:
        return key.exchange(X25519PublicKey.from_public_bytes(peer))
    except ValueError:
        raise RefusedError("a key of small order") from None


def hkdf(salt: bytes, material: bytes, info: bytes, length: int) -> bytes:
    return HKDF(SHA256(), length, salt, info).derive(material)


def kdf_rk(root: bytes, secret: bytes) -> tuple[bytes, bytes]:
    both = hkdf(root, secret, b"connect-actor ratchet v1", 64)
    return both[:32], both[32:]


def kdf_ck(chain: bytes) -> tuple[bytes, bytes]:
    return hmac.digest(chain, b"\x01", "sha256"), hmac.digest(chain, b"\x02", "sha256")


def content(bundle: wire.PrekeyBundle, context: bytes) -> bytes:
    return parts(
        b"connect-actor prekey bundle v1",
        context,
        bundle.identity_key,
        bundle.exchange_identity_key,
        u32(bundle.signed_prekey_id),
        bundle.signed_prekey,
        *(u32(prekey.id) + prekey.public_key for prekey in bundle.one_time_prekeys),
    )


class PagePeer:
    """The initiator's end of one channel."""

    def __init__(self, identity_seed: bytes, draw: Draw, one_time_prekeys: int = 0) -> None:
        self.draw = draw
        self.identity = Ed25519PrivateKey.from_private_bytes(identity_seed)
        self.ik, spk = self._key(), self._key()
        prekeys = [self._key() for _ in range(one_time_prekeys)]
        self.ek, self.own = self._key(), self._key()
        bundle = wire.PrekeyBundle(
            identity_key=self.identity.public_key().public_bytes_raw(),
            exchange_identity_key=public(self.ik),
            signed_prekey_id=1,
            signed_prekey=public(spk),
            one_time_prekeys=[
                wire.OneTimePrekey(id=number, public_key=public(key))
                for number, key in enumerate(prekeys, start=1)
            ],
        )
        signed = content(bundle, parts(b"initiator", public(self.ek), public(self.own)))
        bundle.signature = self.identity.sign(signed)
        self.digest = hashlib.sha256(signed).digest()
        self.request = wire.EstablishRequest(
            bundle=bundle, ephemeral_key=public(self.ek), ratchet_key=public(self.own)
        )

    def _key(self) -> X25519PrivateKey:
        return X25519PrivateKey.from_private_bytes(self.draw(32))

    def complete(self, response: wire.EstablishResponse) -> None:
        """Take the answer to the request."""
        bundle = response.bundle
        chosen = response.HasField("one_time_prekey_id")
        context = parts(
            b"responder",
            self.digest,
            u32(response.one_time_prekey_id) if chosen else b"",
            u64(response.expires_at_unix_micros),
            u32(response.dh_ratchet_every),
        )
        try:
            Ed25519PublicKey.from_public_bytes(bundle.identity_key).verify(
                bundle.signature, content(bundle, context)
            )
        except InvalidSignature:
            raise RefusedError("the signature") from None
        self.connect_id = int.from_bytes(self.digest[:8], "big") >> 1
        if response.connect_id != self.connect_id:
            raise RefusedError("another channel")
        secrets = [
            dh(self.ik, bundle.signed_prekey),
            dh(self.ek, bundle.exchange_identity_key),
            dh(self.ek, bundle.signed_prekey),
        ]
        if chosen:
            keys = {prekey.id: prekey.public_key for prekey in bundle.one_time_prekeys}
            secrets.append(dh(self.ek, keys[response.one_time_prekey_id]))
        material = b"\xff" * 32 + b"".join(secrets)
        shared = hkdf(bytes(32), material, b"connect-actor X3DH v1", 32)
        self.ends = hashlib.sha256(
            parts(
                b"connect-actor channel v1",
                u64(self.connect_id),
                self.request.bundle.identity_key,
                public(self.ik),
                bundle.identity_key,
                bundle.exchange_identity_key,
            )
        ).digest()
        self.every = response.dh_ratchet_every
        self.root, self.sending = kdf_rk(shared, dh(self.own, bundle.signed_prekey))
        self.sent = self.previous = self.received = 0
        self.receiving = self.their_key = b""
        self.pending: bytes | None = None
        self.their_turn = True
        self.skipped: dict[tuple[bytes, int], bytes] = {}

    def _bound(self, message: wire.CipherPayload) -> bytes:
        return self.ends + struct.pack(
            ">32sIIQq",
            message.dh_public_key,
            message.previous_chain_length,
            message.ratchet_index,
            message.request_id,
            message.created_at_unix_micros,
        )

    def seal(self, plaintext: bytes, request_id: int, created_at: int) -> wire.CipherPayload:
        """Encrypt the next message."""
        if self.pending is not None and self.sent >= self.every:
            self.own, self.previous = self._key(), self.sent
            self.root, self.sending = kdf_rk(self.root, dh(self.own, self.pending))
            self.sent, self.pending, self.their_turn = 0, None, True
        key, self.sending = kdf_ck(self.sending)
        message = wire.CipherPayload(
            request_id=request_id,
            nonce=self.draw(12),
            ratchet_index=self.sent,
            previous_chain_length=self.previous,
            created_at_unix_micros=created_at,
            dh_public_key=public(self.own),
        )
        message.ciphertext = AESGCM(key).encrypt(message.nonce, plaintext, self._bound(message))
        self.sent += 1
        return message

    def open(self, message: wire.CipherPayload) -> bytes:
        """Decrypt a message; one that is refused changes nothing."""
        place = message.dh_public_key, message.ratchet_index
        if place in self.skipped:
            plaintext = self._decrypt(self.skipped[place], message)
            del self.skipped[place]
            return plaintext
        turns = message.dh_public_key != self.their_key
        root, chain, at = self.root, self.receiving, self.received
        if turns:
            if not self.their_turn:
                raise RefusedError("no turn is due")
            root, chain = kdf_rk(root, dh(self.own, message.dh_public_key))
            at = 0
        elif message.ratchet_index < at:
            raise RefusedError("a replay")
        passed = {}
        while at < message.ratchet_index:
            passed[message.dh_public_key, at], chain = kdf_ck(chain)
            at += 1
        key, chain = kdf_ck(chain)
        plaintext = self._decrypt(key, message)
        if turns:
            while self.their_key and self.received < message.previous_chain_length:
                left = self.their_key, self.received
                self.skipped[left], self.receiving = kdf_ck(self.receiving)
                self.received += 1
            self.pending = self.their_key = message.dh_public_key
            self.their_turn = False
        self.root, self.receiving, self.received = root, chain, at + 1
        self.skipped.update(passed)
        return plaintext

    def _decrypt(self, key: bytes, message: wire.CipherPayload) -> bytes:
        try:
            return AESGCM(key).decrypt(message.nonce, message.ciphertext, self._bound(message))
        except InvalidTag:
            raise RefusedError("the tag") from None
