"""A session: one end of a channel, from the handshake on.

It is made by ``protocol.handshake``, changed by ``encrypt`` and ``decrypt``, each of which
yields its result and a change, and made again from its stored form and the changes after it.
If it keeps deliveries, ``encrypted_before`` and ``decrypted_before`` give an answer again: they
change nothing, so they yield no change.
"""

from dataclasses import dataclass, field
from typing import Self

from google.protobuf.message import DecodeError

from connect_actor.errors import (
    ChannelExpiredError,
    IdempotencyKeyReusedError,
    MalformedRequestError,
)
from connect_actor.protocol.changes import (
    MAX_IDEMPOTENCY_KEY_SIZE,
    Acknowledged,
    Change,
    IdempotentSend,
    InconsistentChangeError,
    Received,
    ReceivedSkipped,
    Sent,
)
from connect_actor.protocol.delivery import (
    Delivered,
    DeliveryWindow,
    payload_digest,
    plaintext_digest,
)
from connect_actor.protocol.keys import ChannelKeys
from connect_actor.protocol.payload import Payload, require_well_formed
from connect_actor.protocol.primitives import KeyPair, KeyPairs, Random
from connect_actor.protocol.ratchet import Chain, Ratchet, RatchetLimits, SkippedChain
from connect_actor.protocol.soundness import require_sound
from connect_actor.protocol.stored_keys import channel_keys_to_stored, decode_channel_keys
from connect_actor.stored.v1 import session_pb2 as stored

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

    stored_keys: bytes = field(repr=False)
    """This end's channel keys: see ``protocol.stored_keys``."""
    handshake: Handshake = field(repr=False)
    expires_at: int
    """Microseconds since the epoch."""
    ratchet: Ratchet
    deliveries: DeliveryWindow | None = None
    """What can be delivered again; None if the channel keeps nothing."""
    _channel_keys: ChannelKeys | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def channel_keys(self) -> ChannelKeys:
        """This end's channel keys, taken apart when first asked for: no message needs them."""
        if self._channel_keys is None:
            self._channel_keys = decode_channel_keys(self.stored_keys)
        return self._channel_keys

    def encrypt(
        self,
        plaintext: bytes,
        *,
        now: int,
        random: Random,
        request_id: int = 0,
        idempotency_key: bytes = b"",
        key_pairs: KeyPairs | None = None,
    ) -> tuple[Payload, Sent]:
        """Encrypt one message to the other end.

        Args:
            plaintext: any bytes.
            now: microseconds since the epoch.
            random: source of nonces and of new ratchet keys.
            request_id: the caller's name for the message, 64 bits; travels authenticated.
            idempotency_key: 1 to 64 bytes to keep the message as a delivery under; none by default.
            key_pairs: gives new ratchet keys; by default they are made of ``random``.

        Raises:
            ChannelExpiredError: the session's lifetime is over.
            IdempotencyKeyReusedError: the key is in use: see ``encrypted_before``.
            MalformedRequestError: the request id or the time doesn't fit 64 bits, or there is an
                idempotency key that is too long, or no window to keep it in.
        """
        self.require_alive(now)
        if idempotency_key:
            return self._encrypt_once(
                plaintext, request_id, now, random, idempotency_key, key_pairs
            )
        payload, change, _ = self.ratchet.encrypt(
            plaintext, request_id=request_id, created_at=now, random=random, key_pairs=key_pairs
        )
        return payload, change

    def _encrypt_once(
        self,
        plaintext: bytes,
        request_id: int,
        now: int,
        random: Random,
        idempotency_key: bytes,
        key_pairs: KeyPairs | None,
    ) -> tuple[Payload, Sent]:
        window = self._require_window(idempotency_key)
        if window.holds(idempotency_key):
            raise IdempotencyKeyReusedError("this idempotency key has been used: take another")
        payload, change, message_key = self.ratchet.encrypt(
            plaintext, request_id=request_id, created_at=now, random=random, key_pairs=key_pairs
        )
        header = payload.header
        once = IdempotentSend(
            idempotency_key,
            plaintext_digest(plaintext, request_id, message_key),
            payload.nonce,
            request_id,
            now,
        )
        window.add_sent(
            header.ratchet_key,
            header.message_number,
            message_key,
            header.previous_chain_length,
            once,
        )
        return payload, change._replace(once=once)

    def decrypt(self, payload: Payload, *, now: int) -> tuple[bytes, Received | ReceivedSkipped]:
        """Decrypt one message of the other end, in any order of arrival.

        Raises:
            ChannelExpiredError: the session's lifetime is over.
            MalformedRequestError: a part of the payload has the wrong size or range.
            PeerError: as ``Ratchet.decrypt`` says.
        """
        self.require_alive(now)
        require_well_formed(payload)
        plaintext, change, message_key = self.ratchet.decrypt(payload)
        window = self.deliveries
        if window is None:
            return plaintext, change
        digest = payload_digest(payload)
        header = payload.header
        window.add_received(header.ratchet_key, header.message_number, message_key, digest)
        return plaintext, change._replace(digest=digest)

    # --- Delivering again -------------------------------------------------------------------------

    def encrypted_before(
        self, plaintext: bytes, *, now: int, idempotency_key: bytes, request_id: int = 0
    ) -> Delivered[Payload] | None:
        """Return the payload that this very request was answered with, if it is kept.

        Raises:
            ChannelExpiredError: the session's lifetime is over.
            IdempotencyKeyReusedError: something else was encrypted under this key.
            MalformedRequestError: the key is too long, there is no window to keep it in, or the
                request id doesn't fit 64 bits.
        """
        self.require_alive(now)
        window = self._require_window(idempotency_key)
        delivery = window.find_sent(idempotency_key, plaintext, request_id)
        if delivery is None:
            return None
        # No second use of the (key, nonce) pair: the digest has proved plaintext and request id to
        # be the same, all else is kept or constant, so these are the same bytes once more.
        payload = self.ratchet.seal(
            delivery.header, delivery.once.nonce, plaintext, delivery.message_key
        )
        return Delivered(payload, delivery.number, redelivered=True)

    def decrypted_before(self, payload: Payload, *, now: int) -> Delivered[bytes] | None:
        """Return the plaintext that this very payload was answered with, if it is kept.

        Raises:
            ChannelExpiredError: the session's lifetime is over.
            MalformedRequestError: a part of the payload has the wrong size or range.
            MessageReplayedError: another payload was decrypted at its place.
        """
        self.require_alive(now)
        require_well_formed(payload)
        delivery = None if self.deliveries is None else self.deliveries.find_received(payload)
        if delivery is None:
            return None
        plaintext = self.ratchet.open(payload, delivery.message_key)
        return Delivered(plaintext, delivery.number, redelivered=True)

    def acknowledge(self, up_to: int, *, now: int) -> Acknowledged | None:
        """Forget every delivery up to this number; None if there was nothing to forget.

        Raises:
            ChannelExpiredError: the session's lifetime is over.
            MalformedRequestError: no delivery has had this number.
        """
        self.require_alive(now)
        if self.deliveries is None:
            raise MalformedRequestError(
                "this channel keeps no deliveries (redelivery_window is 0), so there is none to"
                " acknowledge"
            )
        return Acknowledged(up_to) if self.deliveries.acknowledge(up_to) else None

    @property
    def last_delivery_number(self) -> int:
        """Number of the newest delivery, 0 if there has been none."""
        return 0 if self.deliveries is None else self.deliveries.last_number

    def forget_deliveries(self) -> None:
        """Drop every delivery, without a change: right before a snapshot of an expired session."""
        if self.deliveries is not None:
            self.deliveries.drop_all()

    def _require_window(self, idempotency_key: bytes) -> DeliveryWindow:
        if len(idempotency_key) > MAX_IDEMPOTENCY_KEY_SIZE:
            raise MalformedRequestError(
                f"idempotency_key has {len(idempotency_key)} bytes, at most"
                f" {MAX_IDEMPOTENCY_KEY_SIZE} are accepted"
            )
        if self.deliveries is None:
            raise MalformedRequestError(
                "this channel keeps no deliveries (redelivery_window is 0), so an Encrypt can't be"
                " repeated: send it without idempotency_key"
            )
        return self.deliveries

    def apply(self, change: Change) -> None:
        """Make a recorded change again.

        Raises:
            InconsistentChangeError: it does not follow from this session.
        """
        window = self.deliveries
        if isinstance(change, Acknowledged):
            if window is None or not 0 <= window.last_number - change.delivery_number < len(window):
                raise InconsistentChangeError(f"no delivery {change.delivery_number} is kept")
            window.acknowledge(change.delivery_number)
            return
        ratchet_key, message_key = self.ratchet.apply(change)
        index = change.message_number
        if isinstance(change, Sent):
            once = change.once
            if once is None:
                return
            if window is None or window.holds(once.key):
                raise InconsistentChangeError("no room for a delivery under its idempotency key")
            previous = self.ratchet.previous_chain_length
            window.add_sent(ratchet_key, index, message_key, previous, once)
        elif window is not None and change.digest:
            window.add_received(ratchet_key, index, message_key, change.digest)
        elif window is not None or change.digest:
            raise InconsistentChangeError("a digest without a window to keep it in, or none for it")

    def require_alive(self, now: int) -> None:
        """Check the lifetime.

        Raises:
            ChannelExpiredError: it is over. Nothing has changed: the clock may be wrong.
        """
        if now >= self.expires_at:
            raise ChannelExpiredError("the channel's lifetime is over: establish a new one")

    # --- Stored form ------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """Build and serialise the whole session, all parts of it anew."""
        state = self._static_state(channel_keys_to_stored(self.channel_keys))
        state.MergeFrom(self._changing_state())
        return state.SerializeToString()

    def encode_static(self) -> bytes:
        """Serialise only what never changes.

        Followed by ``encode_ratchet`` it is what ``decode`` reads: serialised messages merge by
        concatenation (protobuf encoding, "Last One Wins").
        """
        keys = stored.ChannelKeys.FromString(self.stored_keys)
        return self._static_state(keys).SerializeToString()

    def encode_ratchet(self) -> bytes:
        """Serialise only what changes with every message, as a partial session."""
        return self._changing_state().SerializeToString()

    def _static_state(self, channel_keys: stored.ChannelKeys) -> stored.SessionState:
        limits = self.ratchet.limits
        return stored.SessionState(
            channel_keys=channel_keys,
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
                redelivery_window=0 if self.deliveries is None else self.deliveries.size,
            ),
        )

    def _changing_state(self) -> stored.SessionState:
        return stored.SessionState(
            ratchet=self._ratchet_state(),
            deliveries=None if self.deliveries is None else self.deliveries.encode(),
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
        ratchet = state.ratchet
        sending = _decode_chain(ratchet.sending) if ratchet.HasField("sending") else None
        own_key = None
        if ratchet.ratchet_private_key:
            public = b"" if sending is None else sending.ratchet_key
            own_key = KeyPair(ratchet.ratchet_private_key, public or None)
        return cls(
            stored_keys=state.channel_keys.SerializeToString(),
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
            deliveries=(
                DeliveryWindow.decode(state.limits.redelivery_window, state.deliveries)
                if state.limits.redelivery_window
                else None
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
