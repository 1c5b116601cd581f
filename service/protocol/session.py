"""A session: one end of a channel, from the handshake on.

It is made by ``service.protocol.handshake``, changed by ``encrypt`` and ``decrypt``, each of which
yields its result and a change, and made again from its stored form and the changes after it.
"""

from dataclasses import dataclass, field
from typing import Self

from google.protobuf.message import DecodeError

from protos.connect_actor.stored.v1 import session_pb2 as stored
from service.errors import ChannelExpiredError
from service.protocol.changes import Change, InconsistentChangeError, Sent
from service.protocol.keys import ChannelKeys
from service.protocol.payload import Payload, require_well_formed
from service.protocol.primitives import KeyPair, Random
from service.protocol.ratchet import Chain, Ratchet, RatchetLimits, SkippedChain
from service.protocol.soundness import require_sound

__all__ = ["Handshake", "Session"]


@dataclass(frozen=True, slots=True)
class Handshake:
    """The two messages that made a channel, as they went over the wire."""

    request: bytes = field(repr=False)
    response: bytes = field(repr=False)


@dataclass(slots=True)
class Session:
    """One end of a channel. Mutable; compare by value.

    An operation that raises leaves the session as it was. After one that returns, the session is
    ahead of the journal until the change is durable: the result must not leave before.
    """

    channel_keys: ChannelKeys = field(repr=False)
    handshake: Handshake = field(repr=False)
    expires_at: int
    """Microseconds since the epoch."""
    ratchet: Ratchet

    def encrypt(
        self, plaintext: bytes, *, now: int, random: Random, request_id: int = 0
    ) -> tuple[Payload, Sent]:
        """Encrypt one message to the other end.

        Args:
            plaintext: any bytes.
            now: microseconds since the epoch.
            random: source of nonces and of new ratchet keys.
            request_id: the caller's name for the message, 64 bits; travels authenticated.

        Raises:
            ChannelExpiredError: the session's lifetime is over.
            MalformedRequestError: the request id or the time doesn't fit 64 bits.
        """
        self.require_alive(now)
        return self.ratchet.encrypt(plaintext, request_id=request_id, created_at=now, random=random)

    def decrypt(self, payload: Payload, *, now: int) -> tuple[bytes, Change]:
        """Decrypt one message of the other end, in any order of arrival.

        Raises:
            ChannelExpiredError: the session's lifetime is over.
            MalformedRequestError: a part of the payload has the wrong size or range.
            PeerError: as ``Ratchet.decrypt`` says.
        """
        self.require_alive(now)
        require_well_formed(payload)
        return self.ratchet.decrypt(payload)

    def apply(self, change: Change) -> None:
        """Make a recorded change again.

        Raises:
            InconsistentChangeError: it does not follow from this session.
        """
        self.ratchet.apply(change)

    def require_alive(self, now: int) -> None:
        """Check the lifetime.

        Raises:
            ChannelExpiredError: it is over.
        """
        if now >= self.expires_at:
            raise ChannelExpiredError("the channel's lifetime is over: establish a new one")

    # --- Stored form ------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """Build and serialise the whole session."""
        state = self._static_state()
        state.ratchet.CopyFrom(self._ratchet_state())
        return state.SerializeToString()

    def encode_static(self) -> bytes:
        """Serialise only what never changes.

        Followed by ``encode_ratchet`` it is what ``decode`` reads: serialised messages merge by
        concatenation (protobuf encoding, "Last One Wins").
        """
        return self._static_state().SerializeToString()

    def encode_ratchet(self) -> bytes:
        """Serialise only what changes with every message, as a partial session."""
        return stored.SessionState(ratchet=self._ratchet_state()).SerializeToString()

    def _static_state(self) -> stored.SessionState:
        keys = self.channel_keys
        limits = self.ratchet.limits
        return stored.SessionState(
            channel_keys=stored.ChannelKeys(
                identity_key=keys.identity_key,
                exchange_identity_private_key=keys.exchange_identity.private_key,
                exchange_identity_key=keys.exchange_identity.public_key,
                signed_prekey_id=keys.signed_prekey_id,
                signed_prekey_private_key=keys.signed_prekey.private_key,
                signed_prekey=keys.signed_prekey.public_key,
                signature=keys.signature,
                one_time_prekeys=[
                    stored.OneTimePrekeyPair(
                        id=prekey_id, private_key=pair.private_key, public_key=pair.public_key
                    )
                    for prekey_id, pair in keys.one_time_prekeys.items()
                ],
            ),
            handshake=stored.Handshake(
                request=self.handshake.request,
                response=self.handshake.response,
                associated_data=self.ratchet.associated_data,
            ),
            limits=stored.Limits(
                dh_ratchet_every=limits.turn_every,
                max_skip=limits.max_skip,
                max_skipped_keys=limits.max_skipped_keys,
                expires_at_unix_micros=self.expires_at,
            ),
        )

    def _ratchet_state(self) -> stored.RatchetState:
        ratchet = self.ratchet
        return stored.RatchetState(
            root_key=ratchet.root_key,
            ratchet_private_key=b"" if ratchet.own_key is None else ratchet.own_key.private_key,
            sending=_encode_chain(ratchet.sending),
            previous_chain_length=ratchet.previous_chain_length,
            receiving=_encode_chain(ratchet.receiving),
            receiving_turns=ratchet.receiving_turns,
            pending_peer_key=ratchet.pending_peer_key or b"",
            skipped=[
                stored.SkippedChain(
                    number=chain.number,
                    ratchet_key=chain.ratchet_key,
                    keys=[
                        stored.SkippedKey(index=number, message_key=key)
                        for number, key in chain.keys.items()
                    ],
                )
                for chain in ratchet.skipped
            ],
        )

    @classmethod
    def decode(cls, encoded: bytes) -> Self:
        """Return the session that ``encode`` (or its two halves, joined) stored.

        Raises:
            InconsistentChangeError: the bytes are not a session, or one that can't be used.
        """
        try:
            state = stored.SessionState.FromString(encoded)
        except DecodeError as error:
            raise InconsistentChangeError("a stored session can't be parsed") from error
        require_sound(state)
        keys, ratchet = state.channel_keys, state.ratchet
        sending = _decode_chain(ratchet.sending) if ratchet.HasField("sending") else None
        own_key = None
        if ratchet.ratchet_private_key:
            public = b"" if sending is None else sending.ratchet_key
            own_key = KeyPair(ratchet.ratchet_private_key, public or None)
        return cls(
            channel_keys=ChannelKeys(
                identity_key=keys.identity_key,
                exchange_identity=KeyPair(
                    keys.exchange_identity_private_key, keys.exchange_identity_key
                ),
                signed_prekey_id=keys.signed_prekey_id,
                signed_prekey=KeyPair(keys.signed_prekey_private_key, keys.signed_prekey),
                one_time_prekeys={
                    pair.id: KeyPair(pair.private_key, pair.public_key)
                    for pair in keys.one_time_prekeys
                },
                signature=keys.signature,
            ),
            handshake=Handshake(state.handshake.request, state.handshake.response),
            expires_at=state.limits.expires_at_unix_micros,
            ratchet=Ratchet(
                limits=RatchetLimits(
                    turn_every=state.limits.dh_ratchet_every,
                    max_skip=state.limits.max_skip,
                    max_skipped_keys=state.limits.max_skipped_keys,
                ),
                associated_data=state.handshake.associated_data,
                root_key=ratchet.root_key,
                own_key=own_key,
                sending=sending,
                previous_chain_length=ratchet.previous_chain_length,
                receiving=(
                    _decode_chain(ratchet.receiving) if ratchet.HasField("receiving") else None
                ),
                receiving_turns=ratchet.receiving_turns,
                pending_peer_key=ratchet.pending_peer_key or None,
                skipped=[
                    SkippedChain(
                        chain.number,
                        chain.ratchet_key,
                        {key.index: key.message_key for key in chain.keys},
                    )
                    for chain in ratchet.skipped
                ],
            ),
        )


def _encode_chain(chain: Chain | None) -> stored.Chain | None:
    if chain is None:
        return None
    return stored.Chain(
        ratchet_key=chain.ratchet_key, chain_key=chain.chain_key, next_index=chain.next_index
    )


def _decode_chain(chain: stored.Chain) -> Chain:
    return Chain(chain.ratchet_key, chain.chain_key, chain.next_index)
