"""The handshake that makes a channel: one request, one response, X3DH inside.

The initiator (the peer) sends its signed bundle, an ephemeral key and its first ratchet key. The
responder (the service) makes channel keys for this channel alone, agrees on SK as X3DH's B, and
answers with its own signed bundle. Unlike X3DH's usual setting, where B's bundle waits on a server,
the bundle is made when A's request is at hand, so its signature covers the request too: an answer
can't be replayed, and whoever pins the responder's identity knows that this very request reached
it. The initiator proves itself by the first message that decrypts (DH1 needs its identity).

The two ends' identities and the channel's id are bound into every message (associated data).
"""

from dataclasses import dataclass, field
from functools import partial

from connect_actor.errors import ChannelExistsError, HandshakeRefusedError
from connect_actor.protocol import primitives, x3dh
from connect_actor.protocol.delivery import DeliveryWindow
from connect_actor.protocol.keys import (
    DEFAULT_ONE_TIME_PREKEYS,
    ChannelKeys,
    Identity,
    PrekeyBundle,
    encode_parts,
)
from connect_actor.protocol.limits import (
    MAX_LIFETIME,
    MAX_ONE_TIME_PREKEYS,
    MAX_REDELIVERY_WINDOW,
    MAX_UINT32,
)
from connect_actor.protocol.primitives import KeyPair, KeyPairs, Random, WeakKeyError
from connect_actor.protocol.ratchet import Ratchet, RatchetLimits
from connect_actor.protocol.session import Handshake, Session
from connect_actor.protocol.stored_keys import channel_keys_to_stored
from connect_actor.protocol.wire import bundle_from_wire, bundle_to_wire
from connect_actor.v1 import connect_pb2 as wire

__all__ = [
    "MAX_CONNECT_ID",
    "ChannelLimits",
    "Initiation",
    "connect_id_of",
    "encode_request",
    "respond",
]

DEFAULT_DH_RATCHET_EVERY = 10
DEFAULT_MAX_SKIP = 1_000
# Twice the limit of a chain: a turn may leave as many behind on the old chain as on the new one.
DEFAULT_MAX_SKIPPED_KEYS = 2_000
DEFAULT_LIFETIME = 24 * 60 * 60
MAX_CONNECT_ID = 2**63 - 1
"""Ids are signed 64-bit integers in the journal."""


@dataclass(frozen=True, slots=True)
class ChannelLimits:
    """What the responder fixes for a new channel.

    Raises:
        ValueError: one of them is out of range.
    """

    dh_ratchet_every: int = DEFAULT_DH_RATCHET_EVERY
    max_skip: int = DEFAULT_MAX_SKIP
    max_skipped_keys: int = DEFAULT_MAX_SKIPPED_KEYS
    lifetime: float = DEFAULT_LIFETIME
    """Seconds."""
    one_time_prekeys: int = DEFAULT_ONE_TIME_PREKEYS
    redelivery_window: int = 0
    """Deliveries kept to be given again; by default none, as the specification has it."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, value, least, most in (
            ("dh_ratchet_every", self.dh_ratchet_every, 1, MAX_UINT32),
            ("max_skip", self.max_skip, 0, MAX_UINT32),
            ("max_skipped_keys", self.max_skipped_keys, 0, MAX_UINT32),
            ("lifetime", self.lifetime, 0, MAX_LIFETIME),
            ("one_time_prekeys", self.one_time_prekeys, 0, MAX_ONE_TIME_PREKEYS),
            ("redelivery_window", self.redelivery_window, 0, MAX_REDELIVERY_WINDOW),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}, expected {least} to {most}")


def _initiator_context(ephemeral_key: bytes, ratchet_key: bytes) -> bytes:
    return encode_parts(b"initiator", ephemeral_key, ratchet_key)


def _responder_context(
    request_digest: bytes, one_time_prekey_id: int | None, expires_at: int, dh_ratchet_every: int
) -> bytes:
    return encode_parts(
        b"responder",
        request_digest,
        b"" if one_time_prekey_id is None else one_time_prekey_id.to_bytes(4, "big"),
        expires_at.to_bytes(8, "big"),
        dh_ratchet_every.to_bytes(4, "big"),
    )


def _digest_of(request: wire.EstablishRequest) -> bytes:
    bundle = bundle_from_wire(request.bundle)
    context = _initiator_context(request.ephemeral_key, request.ratchet_key)
    return primitives.digest(bundle.content(context))


def _connect_id(request_digest: bytes) -> int:
    # 63 bits, so that it fits a signed 64-bit column; the audited server's 32 collide at 77,000.
    return int.from_bytes(request_digest[:8], "big") >> 1


def connect_id_of(request: wire.EstablishRequest) -> int:
    """Return the id of the channel that this request makes, 63 bits, the same at both ends."""
    return _connect_id(_digest_of(request))


def encode_request(request: wire.EstablishRequest) -> bytes:
    """Return the form in which a request is kept and compared.

    Fields that this version does not know are left out: no signature covers them, and a stranger
    could have any amount of them written down with the channel.
    """
    known = wire.EstablishRequest()
    known.CopyFrom(request)
    known.DiscardUnknownFields()
    return known.SerializeToString(deterministic=True)


def _associated_data(connect_id: int, initiator: PrekeyBundle, responder: PrekeyBundle) -> bytes:
    return primitives.digest(
        encode_parts(
            b"connect-actor channel v1",
            connect_id.to_bytes(8, "big"),
            initiator.identity_key,
            initiator.exchange_identity_key,
            responder.identity_key,
            responder.exchange_identity_key,
        )
    )


def respond(
    request: wire.EstablishRequest,
    *,
    identity: Identity,
    limits: ChannelLimits,
    now: int,
    random: Random,
    key_pairs: KeyPairs | None = None,
) -> Session:
    """Make the responder's end of a channel; the response is in its ``handshake``.

    Args:
        request: as it came; nothing of it is trusted.
        identity: the responder's long-lived identity.
        limits: what holds for the new channel.
        now: microseconds since the epoch.
        random: source of all key material.
        key_pairs: gives fresh key pairs; by default they are made of ``random``.

    Raises:
        HandshakeRefusedError: a key or the signature is not acceptable.
    """
    peer = bundle_from_wire(request.bundle)
    context = _initiator_context(request.ephemeral_key, request.ratchet_key)
    digest = primitives.digest(peer.require_acceptable(context))
    for name, key in (("ephemeral", request.ephemeral_key), ("ratchet", request.ratchet_key)):
        if primitives.is_weak_public_key(key):
            raise HandshakeRefusedError(f"the {name} key is not 32 bytes or of small order")

    keys = ChannelKeys.generate(
        identity, key_pairs or partial(KeyPair.generate, random), limits.one_time_prekeys
    )
    connect_id = _connect_id(digest)
    prekey_id = next(iter(keys.one_time_prekeys), None)
    expires_at = now + int(limits.lifetime * 1_000_000)
    bundle = keys.offer(
        identity, _responder_context(digest, prekey_id, expires_at, limits.dh_ratchet_every)
    )
    one_time_prekey = None if prekey_id is None else keys.consume_one_time_prekey(prekey_id)
    associated_data = _associated_data(connect_id, peer, bundle)
    try:
        shared_key = x3dh.agree_as_responder(
            keys.exchange_identity,
            keys.signed_prekey,
            one_time_prekey,
            peer.exchange_identity_key,
            request.ephemeral_key,
        )
        ratchet = Ratchet.of_responder(
            RatchetLimits(limits.dh_ratchet_every, limits.max_skip, limits.max_skipped_keys),
            associated_data,
            shared_key,
            keys.signed_prekey,
            request.ratchet_key,
        )
    except WeakKeyError:
        raise HandshakeRefusedError("a key of the request is of small order") from None
    response = wire.EstablishResponse(
        connect_id=connect_id,
        bundle=bundle_to_wire(bundle),
        one_time_prekey_id=prekey_id,
        expires_at_unix_micros=expires_at,
        dh_ratchet_every=limits.dh_ratchet_every,
    )
    return Session(
        stored_keys=channel_keys_to_stored(keys.without_agreed()).SerializeToString(),
        handshake=Handshake(
            encode_request(request), response.SerializeToString(deterministic=True)
        ),
        expires_at=expires_at,
        ratchet=ratchet,
        deliveries=(DeliveryWindow(limits.redelivery_window) if limits.redelivery_window else None),
    )


@dataclass(frozen=True, slots=True)
class _InitiatorKeys:
    """The private halves of a request."""

    channel: ChannelKeys = field(repr=False)
    ephemeral: KeyPair = field(repr=False)
    ratchet: KeyPair = field(repr=False)


@dataclass(slots=True)
class Initiation:
    """The initiator's half-made end of a channel: its request, and the keys to complete it with.

    It completes once, and forgets the keys when it has: a second session from them would encrypt
    with the same message keys.
    """

    request: wire.EstablishRequest = field(repr=False)
    _keys: _InitiatorKeys | None = field(repr=False)

    @classmethod
    def begin(
        cls,
        identity: Identity,
        random: Random,
        one_time_prekeys: int = DEFAULT_ONE_TIME_PREKEYS,
    ) -> "Initiation":
        """Make fresh keys and the request that offers them."""
        key_pairs = partial(KeyPair.generate, random)
        channel_keys = ChannelKeys.generate(identity, key_pairs, one_time_prekeys)
        keys = _InitiatorKeys(channel_keys, key_pairs(), key_pairs())
        bundle = channel_keys.offer(
            identity, _initiator_context(keys.ephemeral.public_key, keys.ratchet.public_key)
        )
        request = wire.EstablishRequest(
            bundle=bundle_to_wire(bundle),
            ephemeral_key=keys.ephemeral.public_key,
            ratchet_key=keys.ratchet.public_key,
        )
        return cls(request, keys)

    def complete(
        self,
        response: wire.EstablishResponse,
        *,
        pinned_identity: bytes | None = None,
        max_skip: int = DEFAULT_MAX_SKIP,
        max_skipped_keys: int = DEFAULT_MAX_SKIPPED_KEYS,
    ) -> Session:
        """Make the initiator's end of the channel; after a refusal it can be tried again.

        Args:
            response: as it came; nothing of it is trusted.
            pinned_identity: the responder's identity key, if known. Without it, whoever answered
                is believed.
            max_skip: bound of this end, per chain.
            max_skipped_keys: bound of this end, in all.

        Raises:
            HandshakeRefusedError: the responder is not the pinned one, or a key, the signature or
                the channel's id is not acceptable.
            ChannelExistsError: it has been made already.
        """
        keys = self._keys
        if keys is None:
            raise ChannelExistsError("this handshake has made its channel: begin another")
        peer = bundle_from_wire(response.bundle)
        if pinned_identity is not None and peer.identity_key != pinned_identity:
            raise HandshakeRefusedError("the responder's identity key is not the pinned one")
        prekey_id = response.one_time_prekey_id if response.HasField("one_time_prekey_id") else None
        if response.expires_at_unix_micros < 0:
            raise HandshakeRefusedError("the channel's expiry is before 1970")
        if response.dh_ratchet_every == 0:
            raise HandshakeRefusedError("dh_ratchet_every is 0 or missing, expected 1 or more")
        digest = _digest_of(self.request)
        peer.require_acceptable(
            _responder_context(
                digest, prekey_id, response.expires_at_unix_micros, response.dh_ratchet_every
            )
        )
        if response.connect_id != _connect_id(digest):
            raise HandshakeRefusedError("the response names another channel")
        one_time_prekeys = dict(peer.one_time_prekeys)
        if prekey_id is not None and prekey_id not in one_time_prekeys:
            raise HandshakeRefusedError(f"the bundle holds no one-time prekey {prekey_id}")
        own = bundle_from_wire(self.request.bundle)
        try:
            shared_key = x3dh.agree_as_initiator(
                keys.channel.exchange_identity,
                keys.ephemeral,
                peer.exchange_identity_key,
                peer.signed_prekey,
                None if prekey_id is None else one_time_prekeys[prekey_id],
            )
            ratchet = Ratchet.of_initiator(
                RatchetLimits(response.dh_ratchet_every, max_skip, max_skipped_keys),
                _associated_data(response.connect_id, own, peer),
                shared_key,
                keys.ratchet,
                peer.signed_prekey,
            )
        except WeakKeyError:
            raise HandshakeRefusedError("a key of the response is of small order") from None
        self._keys = None
        return Session(
            stored_keys=channel_keys_to_stored(keys.channel.without_agreed()).SerializeToString(),
            handshake=Handshake(
                encode_request(self.request), response.SerializeToString(deterministic=True)
            ),
            expires_at=response.expires_at_unix_micros,
            ratchet=ratchet,
        )
