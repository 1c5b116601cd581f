"""The delivery window: what one end keeps so that a lost answer can be given again.

An answer can be lost after its commit. The ratchet has forgotten the message key by then, so a
channel that is to answer again keeps the keys of its last deliveries for a while. A *delivery* is
either

- a received message, found by its place (ratchet key of its chain, and index), or
- a sent message that the caller gave an idempotency key, found by that key.

Each has a *delivery number*, counted from 1 on the channel. Numbers of what is kept have no gaps:
deliveries leave oldest first, when ``size`` newer ones have come or when they are acknowledged,
and take their message keys with them.

Invariants:

- Nothing is answered again without a digest that proves that the very same thing was asked for. So
  a place never yields two plaintexts, and a (key, nonce) pair never two ciphertexts.
- Live operations and recorded changes reach the window through the same methods, so a recovered
  window can't differ from the live one.
"""

from dataclasses import dataclass, field
from hashlib import blake2b
from operator import attrgetter
from typing import Generic, NamedTuple, Self, TypeVar

from connect_actor.errors import (
    IdempotencyKeyReusedError,
    MalformedRequestError,
    MessageReplayedError,
)
from connect_actor.protocol.changes import (
    PAYLOAD_DIGEST_SIZE,
    PLAINTEXT_DIGEST_SIZE,
    IdempotentSend,
    InconsistentChangeError,
    encode_idempotent_send,
    idempotent_send_from_stored,
)
from connect_actor.protocol.payload import Header, Payload
from connect_actor.protocol.primitives import KEY_SIZE
from connect_actor.stored.v1 import session_pb2 as stored

__all__ = [
    "Delivered",
    "DeliveryWindow",
    "ReceivedDelivery",
    "SentDelivery",
    "payload_digest",
    "plaintext_digest",
]

_Result = TypeVar("_Result")


class Delivered(NamedTuple, Generic[_Result]):
    """An answer that can be given again, or has been."""

    result: _Result
    number: int
    """The delivery number."""
    redelivered: bool = False


@dataclass(slots=True)
class ReceivedDelivery:
    """A message that was decrypted."""

    number: int
    ratchet_key: bytes = field(repr=False)
    """Of the chain it came on."""
    index: int
    message_key: bytes = field(repr=False)
    digest: bytes
    """``payload_digest``, 16 bytes."""


@dataclass(slots=True)
class SentDelivery:
    """A message that was encrypted under an idempotency key."""

    number: int
    ratchet_key: bytes = field(repr=False)
    """Of the chain it went on."""
    index: int
    message_key: bytes = field(repr=False)
    previous_chain_length: int
    once: IdempotentSend

    @property
    def header(self) -> Header:
        """The header that it went with."""
        return Header(
            self.ratchet_key,
            self.previous_chain_length,
            self.index,
            self.once.request_id,
            self.once.created_at,
        )


def payload_digest(payload: Payload) -> bytes:
    """Return the digest over all fields of a payload, 16 bytes.

    Header and nonce have fixed widths, so no two payloads are digested alike.
    """
    digest = blake2b(payload.header.encode(), digest_size=PAYLOAD_DIGEST_SIZE)
    digest.update(payload.nonce)
    digest.update(payload.ciphertext)
    return digest.digest()


def plaintext_digest(plaintext: bytes, request_id: int, message_key: bytes) -> bytes:
    """Return the digest over what a caller asked to encrypt, 32 bytes.

    It is keyed, so that the digest alone gives no guess at the plaintext away, and so that no
    caller can look for two plaintexts of one digest.
    """
    digest = blake2b(
        request_id.to_bytes(8, "big"),
        digest_size=PLAINTEXT_DIGEST_SIZE,
        key=message_key,
        person=b"idempotent send",
    )
    digest.update(plaintext)
    return digest.digest()


@dataclass(slots=True)
class DeliveryWindow:
    """The last deliveries of one end of a channel. Mutable; compare by value."""

    size: int
    """Deliveries that are kept, fixed when the channel is established; 1 or more."""
    last_number: int = 0
    """Of the newest delivery that there has been, kept or not."""
    _received: dict[tuple[bytes, int], ReceivedDelivery] = field(default_factory=dict)
    """By place, oldest first."""
    _sent: dict[bytes, SentDelivery] = field(default_factory=dict)
    """By idempotency key, oldest first."""

    def __len__(self) -> int:
        """Return how many deliveries are kept."""
        return len(self._received) + len(self._sent)

    # --- Asking -----------------------------------------------------------------------------------

    def holds(self, idempotency_key: bytes) -> bool:
        """Say whether a message sent under this key is kept."""
        return idempotency_key in self._sent

    def find_received(self, payload: Payload) -> ReceivedDelivery | None:
        """Return the delivery of this very payload, or None if none of its place is kept.

        Raises:
            MessageReplayedError: another payload was delivered at its place.
        """
        header = payload.header
        delivery = self._received.get((header.ratchet_key, header.message_number))
        if delivery is not None and delivery.digest != payload_digest(payload):
            raise MessageReplayedError(
                f"another message {header.message_number} of its chain was decrypted before:"
                " send the very same payload to have its answer again"
            )
        return delivery

    def find_sent(
        self, idempotency_key: bytes, plaintext: bytes, request_id: int
    ) -> SentDelivery | None:
        """Return the delivery of this very request, or None if none of its key is kept.

        Raises:
            IdempotencyKeyReusedError: something else was encrypted under this key.
            MalformedRequestError: the request id doesn't fit 64 bits.
        """
        delivery = self._sent.get(idempotency_key)
        if delivery is None:
            return None
        try:
            digest = plaintext_digest(plaintext, request_id, delivery.message_key)
        except OverflowError:
            raise MalformedRequestError("the request id doesn't fit 64 bits (unsigned)") from None
        if delivery.once.digest != digest:
            raise IdempotencyKeyReusedError(
                "another plaintext or request id was encrypted under this idempotency key: repeat"
                " the very same request, or give another request another key"
            )
        return delivery

    # --- The only ways in which the window changes -----------------------------------------------

    def add_received(
        self, ratchet_key: bytes, index: int, message_key: bytes, digest: bytes
    ) -> None:
        """Keep a received message as the newest delivery."""
        number = self._next_number()
        self._received[ratchet_key, index] = ReceivedDelivery(
            number, ratchet_key, index, message_key, digest
        )

    def add_sent(
        self,
        ratchet_key: bytes,
        index: int,
        message_key: bytes,
        previous_chain_length: int,
        once: IdempotentSend,
    ) -> None:
        """Keep a sent message as the newest delivery; nothing of its key may be kept."""
        number = self._next_number()
        self._sent[once.key] = SentDelivery(
            number, ratchet_key, index, message_key, previous_chain_length, once
        )

    def acknowledge(self, up_to: int) -> bool:
        """Drop every delivery up to this number; say whether there was any.

        Raises:
            MalformedRequestError: no delivery has had this number.
        """
        if not 0 < up_to <= self.last_number:
            raise MalformedRequestError(
                f"there has been no delivery {up_to}, they have numbers from 1 to"
                f" {self.last_number}: acknowledge one that an answer named"
            )
        before = len(self)
        self._drop(up_to)
        return len(self) < before

    def drop_all(self) -> None:
        """Drop every delivery."""
        self._drop(self.last_number)

    def _next_number(self) -> int:
        """Count a delivery and make room for it."""
        self.last_number += 1
        self._drop(self.last_number - self.size)
        return self.last_number

    def _drop(self, up_to: int) -> None:
        received, sent = self._received, self._sent
        while received and received[place := next(iter(received))].number <= up_to:
            del received[place]
        while sent and sent[key := next(iter(sent))].number <= up_to:
            del sent[key]

    # --- Stored form ------------------------------------------------------------------------------

    def encode(self) -> stored.DeliveryWindow:
        """Return the stored form; ``size`` is kept with the channel's limits."""
        window = stored.DeliveryWindow(last_number=self.last_number)
        deliveries: list[ReceivedDelivery | SentDelivery] = [
            *self._received.values(),
            *self._sent.values(),
        ]
        deliveries.sort(key=attrgetter("number"))
        ratchet_key = b""
        for delivery in deliveries:
            kept = window.kept.add(index=delivery.index, message_key=delivery.message_key)
            # Most messages come on the chain of the one before.
            if delivery.ratchet_key != ratchet_key:
                ratchet_key = kept.ratchet_key = delivery.ratchet_key
            if isinstance(delivery, ReceivedDelivery):
                kept.digest = delivery.digest
            else:
                kept.previous_chain_length = delivery.previous_chain_length
                kept.sent.MergeFromString(encode_idempotent_send(delivery.once))
        return window

    @classmethod
    def decode(cls, size: int, window: stored.DeliveryWindow) -> Self:
        """Return the window that ``encode`` stored.

        Raises:
            InconsistentChangeError: it holds what no window of this size can hold.
        """
        if len(window.kept) > min(size, window.last_number):
            raise InconsistentChangeError(f"a stored delivery window holds {len(window.kept)}")
        made = cls(size, window.last_number - len(window.kept))
        ratchet_key = b""
        for kept in window.kept:
            ratchet_key = kept.ratchet_key or ratchet_key
            if not (
                len(ratchet_key) == len(kept.message_key) == KEY_SIZE
                and len(kept.digest) == (0 if kept.HasField("sent") else PAYLOAD_DIGEST_SIZE)
            ):
                raise InconsistentChangeError(
                    "a stored delivery window holds a key or digest of the wrong size"
                )
            if not kept.HasField("sent"):
                made.add_received(ratchet_key, kept.index, kept.message_key, kept.digest)
                continue
            once = idempotent_send_from_stored(kept.sent)
            made.add_sent(
                ratchet_key, kept.index, kept.message_key, kept.previous_chain_length, once
            )
        if len(made) < len(window.kept):
            raise InconsistentChangeError("a stored delivery window holds a delivery twice")
        return made
