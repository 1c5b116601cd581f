"""Keys of a channel's ends: long-lived identities, per-channel key material, prekey bundles.

Each end of a channel has an Ed25519 *identity* that lives long and that the other end can pin, and
*channel keys* made for this one channel: an X25519 identity, a signed prekey and one-time prekeys
(X3DH, section 2). The identity's signature covers all of the public halves and the context in
which they are offered, so none can be exchanged or offered again elsewhere.
"""

from dataclasses import dataclass, field, replace

from connect_actor.errors import HandshakeRefusedError
from connect_actor.protocol import primitives
from connect_actor.protocol.primitives import KeyPair, KeyPairs, Random, SigningKey

__all__ = [
    "DEFAULT_ONE_TIME_PREKEYS",
    "ChannelKeys",
    "Identity",
    "PrekeyBundle",
    "encode_parts",
]

# As many as the audited server puts into a bundle.
DEFAULT_ONE_TIME_PREKEYS = 10


def encode_parts(*parts: bytes) -> bytes:
    """Join byte strings so that no two lists of parts encode alike (each behind its length)."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


@dataclass(frozen=True, slots=True)
class PrekeyBundle:
    """The public half of channel keys, signed: what one end shows the other."""

    identity_key: bytes
    """Ed25519, 32 bytes."""
    exchange_identity_key: bytes
    """X25519, 32 bytes (X3DH's IK)."""
    signed_prekey_id: int
    signed_prekey: bytes
    """X25519, 32 bytes (X3DH's SPK)."""
    one_time_prekeys: tuple[tuple[int, bytes], ...]
    """Ids and X25519 keys, 32 bytes each (X3DH's OPKs)."""
    signature: bytes
    """Ed25519, 64 bytes."""

    def content(self, context: bytes) -> bytes:
        """Return the bytes that the signature covers when the bundle is offered in ``context``."""
        return encode_parts(
            b"connect-actor prekey bundle v1",
            context,
            self.identity_key,
            self.exchange_identity_key,
            self.signed_prekey_id.to_bytes(4, "big"),
            self.signed_prekey,
            *(prekey_id.to_bytes(4, "big") + key for prekey_id, key in self.one_time_prekeys),
        )

    def require_acceptable(self, context: bytes) -> bytes:
        """Check every key and the signature, for a bundle offered in ``context``.

        Returns:
            The content that is signed.

        Raises:
            HandshakeRefusedError: with which of them is not acceptable.
        """
        if primitives.is_weak_identity_key(self.identity_key):
            # Signatures under such a key fit whatever is put under them.
            raise HandshakeRefusedError(
                "the bundle's identity_key is not 32 bytes or of small order"
            )
        for name, key in (
            ("exchange_identity_key", self.exchange_identity_key),
            ("signed_prekey", self.signed_prekey),
            *(("one_time_prekeys", key) for _, key in self.one_time_prekeys),
        ):
            if primitives.is_weak_public_key(key):
                raise HandshakeRefusedError(
                    f"the bundle's {name} holds a key that is not 32 bytes or of small order"
                )
        if len({prekey_id for prekey_id, _ in self.one_time_prekeys}) < len(self.one_time_prekeys):
            raise HandshakeRefusedError("the bundle's one-time prekeys repeat an id")
        content = self.content(context)
        if not primitives.verify(self.identity_key, self.signature, content):
            raise HandshakeRefusedError(
                "the bundle's signature does not fit: sign all of it, in this handshake's context,"
                " with the identity key it names"
            )
        return content


@dataclass(frozen=True, slots=True)
class Identity:
    """A long-lived Ed25519 key pair. Its public half is what peers pin."""

    private_key: bytes = field(repr=False)
    """The seed, 32 bytes."""
    public_key: bytes
    _signing_key: SigningKey = field(repr=False, compare=False)

    @classmethod
    def from_private_key(cls, private_key: bytes) -> "Identity":
        """Load an identity from its 32-byte seed."""
        signing_key = SigningKey(private_key)
        return cls(private_key, signing_key.public_key, signing_key)

    @classmethod
    def generate(cls, random: Random) -> "Identity":
        """Make a fresh identity."""
        return cls.from_private_key(random(primitives.KEY_SIZE))

    def sign(self, message: bytes) -> bytes:
        """Return this identity's signature, 64 bytes."""
        return self._signing_key.sign(message)


@dataclass(slots=True)
class ChannelKeys:
    """One end's own key material for one channel."""

    identity_key: bytes
    """The long-lived identity's public half."""
    exchange_identity: KeyPair
    signed_prekey_id: int
    signed_prekey: KeyPair
    one_time_prekeys: dict[int, KeyPair]
    """Those not yet consumed."""
    signature: bytes = b""
    """By the identity, over the bundle; empty until ``offer``."""

    @classmethod
    def generate(
        cls,
        identity: Identity,
        key_pairs: KeyPairs,
        one_time_prekeys: int = DEFAULT_ONE_TIME_PREKEYS,
    ) -> "ChannelKeys":
        """Make fresh key material, not yet signed."""
        return cls(
            identity_key=identity.public_key,
            exchange_identity=key_pairs(),
            signed_prekey_id=1,
            signed_prekey=key_pairs(),
            one_time_prekeys={
                prekey_id: key_pairs() for prekey_id in range(1, one_time_prekeys + 1)
            },
        )

    def _bundle(self) -> PrekeyBundle:
        return PrekeyBundle(
            identity_key=self.identity_key,
            exchange_identity_key=self.exchange_identity.public_key,
            signed_prekey_id=self.signed_prekey_id,
            signed_prekey=self.signed_prekey.public_key,
            one_time_prekeys=tuple(
                (prekey_id, pair.public_key) for prekey_id, pair in self.one_time_prekeys.items()
            ),
            signature=self.signature,
        )

    def offer(self, identity: Identity, context: bytes) -> PrekeyBundle:
        """Sign the public halves for use in ``context``, keep the signature, return the bundle."""
        bundle = self._bundle()
        self.signature = identity.sign(bundle.content(context))
        return replace(bundle, signature=self.signature)

    def without_agreed(self) -> "ChannelKeys":
        """Return the keys without the private halves that a finished handshake has used.

        With them and a recorded handshake SK could be agreed again, if no one-time prekey was in
        it; so forward secrecy begins with their end (X3DH, section 4.6).
        """
        return replace(
            self,
            exchange_identity=self.exchange_identity.erased(),
            signed_prekey=self.signed_prekey.erased(),
        )

    def consume_one_time_prekey(self, prekey_id: int) -> KeyPair:
        """Take a one-time prekey out for good, so that none is used twice.

        Raises:
            HandshakeRefusedError: there is none of that id, or no longer.
        """
        try:
            return self.one_time_prekeys.pop(prekey_id)
        except KeyError:
            raise HandshakeRefusedError(
                f"one-time prekey {prekey_id} does not exist or has been consumed"
            ) from None
