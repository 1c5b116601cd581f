"""The cryptographic choices, each behind one function: nothing else here names an algorithm.

X25519 (RFC 7748), Ed25519 (RFC 8032), HKDF-SHA256 (RFC 5869), HMAC-SHA256, AES-256-GCM. Those on
curves are libsodium's: it takes a private key as it is, where OpenSSL would first derive the public
half, and it derives and verifies in half the time. It reads 32 bytes wherever it expects a key, so
what is shorter must never get there.
Randomness comes in as a function, ``Random``, so that this package stays deterministic.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl import bindings as sodium
from nacl.exceptions import BadSignatureError, CryptoError

__all__ = [
    "KEY_SIZE",
    "NONCE_SIZE",
    "SIGNATURE_SIZE",
    "TAG_SIZE",
    "KeyPair",
    "KeyPairs",
    "Random",
    "SigningKey",
    "WeakKeyError",
    "decrypt",
    "digest",
    "encrypt",
    "hkdf",
    "is_weak_identity_key",
    "is_weak_public_key",
    "skip_chain",
    "step_chain",
    "step_root",
    "verify",
]

Random = Callable[[int], bytes]
"""Gives that many bytes, unpredictable and never the same again: ``os.urandom``, or a test's."""

KEY_SIZE = 32
NONCE_SIZE = 12
TAG_SIZE = 16
SIGNATURE_SIZE = 64

_ROOT_INFO = b"connect-actor ratchet v1"
# HMAC's two paddings (RFC 2104), as translations of a byte.
_HMAC_BLOCK_SIZE = 64
_INNER_PADDING = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PADDING = bytes(byte ^ 0x5C for byte in range(256))
_X25519_PRIME = 2**255 - 19
_COORDINATE = (1 << 255) - 1

# The u-coordinates of the points of small order, reduced modulo the prime: 0 and 1, the two of
# order 8, and -1. RFC 7748 (section 6.1) leaves rejecting them to the protocol.
_SMALL_ORDER = frozenset(
    {
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _X25519_PRIME - 1,
    }
)
# The same on Ed25519's curve, by y: RFC 8032 lets signatures under these fit any message.
_SMALL_ORDER_IDENTITY = frozenset(
    {
        0,
        1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
        _X25519_PRIME - 1,
    }
)


class WeakKeyError(Exception):
    """A public key whose shared secret would be known to anyone (small order)."""


def is_weak_public_key(key: bytes) -> bool:
    """Say whether an X25519 public key has the wrong size or is a point of small order."""
    if len(key) != KEY_SIZE:
        return True
    # The top bit is not part of the coordinate (RFC 7748, section 5).
    return (int.from_bytes(key, "little") & _COORDINATE) % _X25519_PRIME in _SMALL_ORDER


def is_weak_identity_key(key: bytes) -> bool:
    """Say whether an Ed25519 public key has the wrong size or is a point of small order."""
    if len(key) != KEY_SIZE:
        return True
    # The top bit is the sign of the other coordinate (RFC 8032, section 5.1.2).
    return (int.from_bytes(key, "little") & _COORDINATE) % _X25519_PRIME in _SMALL_ORDER_IDENTITY


def _require_key(private_key: bytes) -> None:
    if len(private_key) != KEY_SIZE:
        raise ValueError(f"a private key has {len(private_key)} bytes, expected {KEY_SIZE}")


class KeyPair:
    """An X25519 key pair; the public half is derived when first asked for.

    Equality is that of the private halves, or of the public ones where the private ones have been
    erased.
    """

    __slots__ = ("_public", "private_key")

    def __init__(self, private_key: bytes, public_key: bytes | None = None) -> None:
        self.private_key = private_key
        self._public = public_key

    @classmethod
    def generate(cls, random: Random) -> Self:
        """Make a fresh pair."""
        return cls(random(KEY_SIZE))

    @property
    def public_key(self) -> bytes:
        """The public half, 32 bytes.

        Raises:
            ValueError: the private half has another size.
        """
        if self._public is None:
            _require_key(self.private_key)
            self._public = sodium.crypto_scalarmult_base(self.private_key)
        return self._public

    def prepare(self) -> None:
        """Derive the public half now, so that nobody waits for it later."""
        _ = self.public_key

    def erased(self) -> "KeyPair":
        """Return the public half alone, for when nothing more is to be agreed with the pair."""
        return KeyPair(b"", self.public_key)

    def exchange(self, peer_public_key: bytes) -> bytes:
        """Return the shared secret, 32 bytes.

        Raises:
            ValueError: the private half has been erased.
            WeakKeyError: the peer's key is none, or contributes nothing: the secret is all zeros.
        """
        _require_key(self.private_key)
        if len(peer_public_key) != KEY_SIZE:
            raise WeakKeyError
        try:
            return sodium.crypto_scalarmult(self.private_key, peer_public_key)
        except CryptoError:
            raise WeakKeyError from None

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, KeyPair)
            and self.private_key == other.private_key
            and (bool(self.private_key) or self._public == other._public)
        )

    def __hash__(self) -> int:
        return hash(self.private_key)

    def __repr__(self) -> str:
        return f"KeyPair(public_key={self.public_key.hex()})"


KeyPairs = Callable[[], KeyPair]
"""Gives a fresh pair with each call, never the same again."""


class SigningKey:
    """An Ed25519 private key, with the public half that each signature needs."""

    __slots__ = ("_both_halves", "public_key")

    def __init__(self, private_key: bytes) -> None:
        """Derive the public half of a key, 32 bytes, from its 32-byte seed.

        Raises:
            ValueError: the seed has another size.
        """
        self.public_key, self._both_halves = sodium.crypto_sign_seed_keypair(private_key)

    def sign(self, message: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return sodium.crypto_sign(message, self._both_halves)[:SIGNATURE_SIZE]


def verify(identity_key: bytes, signature: bytes, message: bytes) -> bool:
    """Say whether an Ed25519 signature is good; malformed keys and signatures are not."""
    if len(identity_key) != KEY_SIZE or len(signature) != SIGNATURE_SIZE:
        return False
    try:
        sodium.crypto_sign_open(signature + message, identity_key)
    except BadSignatureError:
        return False
    return True


def digest(message: bytes) -> bytes:
    """Return the SHA-256 digest, 32 bytes."""
    return sha256(message).digest()


def hkdf(key_material: bytes, *, salt: bytes, info: bytes, length: int) -> bytes:
    """Return ``length`` bytes of HKDF-SHA256 (extract, then expand)."""
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(key_material)


def step_root(root_key: bytes, shared_secret: bytes) -> tuple[bytes, bytes]:
    """Return the next root key and a new chain key: KDF_RK of the Double Ratchet spec, 5.2."""
    derived = hkdf(shared_secret, salt=root_key, info=_ROOT_INFO, length=2 * KEY_SIZE)
    return derived[:KEY_SIZE], derived[KEY_SIZE:]


def step_chain(chain_key: bytes) -> tuple[bytes, bytes]:
    """Return a message key and the next chain key: KDF_CK of the Double Ratchet spec, 5.2.

    These are HMAC-SHA256 of 1 and of 2, spelled out so that they share what depends on the key
    alone: ``hmac.digest`` takes nearly twice as long, and this runs once for every message and for
    every one that is skipped or recovered.
    """
    block = chain_key.ljust(_HMAC_BLOCK_SIZE, b"\x00")
    inner, outer = sha256(block.translate(_INNER_PADDING)), sha256(block.translate(_OUTER_PADDING))
    next_inner, next_outer = inner.copy(), outer.copy()
    inner.update(b"\x01")
    outer.update(inner.digest())
    next_inner.update(b"\x02")
    next_outer.update(next_inner.digest())
    return outer.digest(), next_outer.digest()


def skip_chain(chain_key: bytes, messages: int) -> bytes:
    """Return the chain key behind that many messages: ``step_chain`` without their keys."""
    rest = bytes(_HMAC_BLOCK_SIZE - KEY_SIZE)
    inner_rest = rest.translate(_INNER_PADDING) + b"\x02"
    outer_rest = rest.translate(_OUTER_PADDING)
    for _ in range(messages):
        inner = sha256(chain_key.translate(_INNER_PADDING) + inner_rest).digest()
        chain_key = sha256(chain_key.translate(_OUTER_PADDING) + outer_rest + inner).digest()
    return chain_key


def encrypt(message_key: bytes, nonce: bytes, plaintext: bytes, associated_data: bytes) -> bytes:
    """Return the AES-256-GCM ciphertext followed by its 16-byte tag."""
    return AESGCM(message_key).encrypt(nonce, plaintext, associated_data)


def decrypt(
    message_key: bytes, nonce: bytes, ciphertext: bytes, associated_data: bytes
) -> bytes | None:
    """Return the plaintext, or None if the tag does not fit."""
    try:
        return AESGCM(message_key).decrypt(nonce, ciphertext, associated_data)
    except InvalidTag:
        return None
