"""The Double Ratchet (Signal's specification, revision 1), one end of it.

How it differs from the specification's pseudo-code, and why:

1. A turn of the DH ratchet is made in two halves. The receiving half happens when the peer's new
   key arrives; the sending half waits for the next message out (the specification recommends to
   "defer generating new ratchet keys", section 6.3), and until that chain has ``turn_every``
   messages. With ``turn_every`` = 1 this is the classic behaviour.
2. Ends take turns: one may turn only against a peer key newer than its own last turn. So there is
   one sequence of root keys, whatever is in flight, and a new peer key can be told from a forged
   one by whether a turn is due at all: a message with an unknown key out of turn costs no
   exchange. The own private key is erased as soon as the peer has turned against it.
3. Nonces are random and sent along. A message key is used once, so any nonce would do; a random
   one bounds the harm if a backup is restored behind this service's back.

Invariants:

- Nothing changes until a message has been authenticated; an operation that raises has had no
  effect.
- A live operation and ``apply`` change the state through the same methods, so a recovered ratchet
  can't differ from the live one.
- Before its tag is checked, a message costs at most ``max_skip`` chain keys, one message key and
  one exchange; ``work_of`` says how many steps. An authentic one may demand ``2 * max_skip``
  message keys more.
"""

from dataclasses import dataclass, field
from itertools import islice

from connect_actor.errors import (
    AuthenticationFailedError,
    ChannelExpiredError,
    MessageReplayedError,
    SkipLimitExceededError,
)
from connect_actor.protocol import message_step, primitives
from connect_actor.protocol.changes import InconsistentChangeError, Received, ReceivedSkipped, Sent
from connect_actor.protocol.payload import Header, Payload
from connect_actor.protocol.primitives import KeyPair, KeyPairs, Random, WeakKeyError

__all__ = [
    "MAX_CHAIN_LENGTH",
    "MAX_SKIPPED_CHAINS",
    "Chain",
    "Ratchet",
    "RatchetLimits",
    "SkippedChain",
]

# Receiving chains whose skipped keys are kept, the current one included: libsignal's figure.
MAX_SKIPPED_CHAINS = 5
# Indexes, and the count of turns, are uint32 where they are written.
MAX_CHAIN_LENGTH = 2**32 - 1
_BAD_TAG = "the message's tag does not fit: it is forged, damaged or of another channel"


@dataclass(frozen=True, slots=True)
class RatchetLimits:
    """Bounds that both ends of a channel keep to, fixed when it is established."""

    turn_every: int
    """Messages on the sending chain after which a due turn is made."""
    max_skip: int
    """Messages that may be missing before one that is accepted, on each chain."""
    max_skipped_keys: int
    """Skipped message keys kept in all; the oldest go first."""


@dataclass(slots=True)
class Chain:
    """A symmetric-key chain: its next message has ``next_index`` and comes from ``chain_key``."""

    ratchet_key: bytes = field(repr=False)
    """Public ratchet key of the end that sends on it."""
    chain_key: bytes = field(repr=False)
    next_index: int


@dataclass(slots=True)
class SkippedChain:
    """Message keys of one receiving chain whose messages have not arrived, oldest first."""

    number: int
    ratchet_key: bytes = field(repr=False)
    keys: dict[int, bytes] = field(repr=False)


@dataclass(slots=True)
class _Advance:
    """A receiving chain moved on, not yet put into effect."""

    message_key: bytes = field(repr=False)
    chain_key: bytes = field(repr=False)
    next_index: int
    skipped: dict[int, bytes] = field(repr=False)


@dataclass(slots=True)
class _SendingTurn:
    """A turn of the sending half, not yet put into effect."""

    root_key: bytes = field(repr=False)
    own_key: KeyPair = field(repr=False)
    chain: Chain


def _skip(chain: Chain, index: int) -> tuple[dict[int, bytes], bytes]:
    """Derive the message keys before ``index``, and its chain key; the chain stays as it is."""
    key = chain.chain_key
    skipped: dict[int, bytes] = {}
    for missing in range(chain.next_index, index):
        skipped[missing], key = primitives.step_chain(key)
    return skipped, key


def _advance(chain: Chain, index: int) -> _Advance:
    """Derive the message key of ``index`` and those before it, leaving the chain as it is."""
    skipped, key = _skip(chain, index)
    message_key, key = primitives.step_chain(key)
    return _Advance(message_key, key, index + 1, skipped)


@dataclass(slots=True)
class Ratchet:
    """One end's ratchet state. Mutable; compare by value."""

    limits: RatchetLimits
    associated_data: bytes = field(repr=False)
    """Bound into every message before its header; says who the two ends are."""
    root_key: bytes = field(repr=False)
    own_key: KeyPair | None = field(repr=False)
    """The own ratchet key, while the peer may still turn against it."""
    sending: Chain | None
    previous_chain_length: int
    receiving: Chain | None
    receiving_turns: int
    """How many receiving chains there have been; the current one bears this number."""
    pending_peer_key: bytes | None = field(repr=False)
    """The peer's newest key, if the own ratchet has not been turned against it yet."""
    skipped: list[SkippedChain]
    """Oldest chain first; no chain in it is empty."""

    @classmethod
    def of_initiator(
        cls,
        limits: RatchetLimits,
        associated_data: bytes,
        shared_key: bytes,
        own_key: KeyPair,
        peer_key: bytes,
    ) -> "Ratchet":
        """Begin as the end that turns first (the specification's Alice, section 3.3).

        Args:
            limits: the channel's bounds.
            associated_data: says who the two ends are.
            shared_key: SK, 32 bytes, from X3DH.
            own_key: the first ratchet key; its public half goes to the peer.
            peer_key: the peer's first ratchet key: its signed prekey.

        Raises:
            WeakKeyError: the peer's key is of small order.
        """
        root_key, chain_key = primitives.step_root(shared_key, own_key.exchange(peer_key))
        return cls(
            limits=limits,
            associated_data=associated_data,
            root_key=root_key,
            own_key=own_key,
            sending=Chain(own_key.public_key, chain_key, 0),
            previous_chain_length=0,
            receiving=None,
            receiving_turns=0,
            pending_peer_key=None,
            skipped=[],
        )

    @classmethod
    def of_responder(
        cls,
        limits: RatchetLimits,
        associated_data: bytes,
        shared_key: bytes,
        own_key: KeyPair,
        peer_key: bytes,
    ) -> "Ratchet":
        """Begin as the other end (the specification's Bob), with Alice's first key at hand.

        The arguments are ``of_initiator``'s; ``own_key`` is the signed prekey pair.

        Raises:
            WeakKeyError: the peer's key is of small order.
        """
        root_key, chain_key = primitives.step_root(shared_key, own_key.exchange(peer_key))
        return cls(
            limits=limits,
            associated_data=associated_data,
            root_key=root_key,
            own_key=None,
            sending=None,
            previous_chain_length=0,
            receiving=Chain(peer_key, chain_key, 0),
            receiving_turns=1,
            pending_peer_key=peer_key,
            skipped=[],
        )

    @property
    def skipped_keys(self) -> int:
        """How many skipped message keys are held."""
        return sum(len(chain.keys) for chain in self.skipped)

    # --- Operations ---------------------------------------------------------------------------

    def encrypt(
        self,
        plaintext: bytes,
        *,
        request_id: int,
        created_at: int,
        random: Random,
        key_pairs: KeyPairs | None = None,
    ) -> tuple[Payload, Sent, bytes]:
        """Encrypt the next message of the sending chain, turning the ratchet first if that is due.

        Returns:
            The payload, the change, and the message key, which the ratchet itself has forgotten.

        Raises:
            ChannelExpiredError: the chain has no index left.
        """
        turn = None
        sending = self.sending
        previous_chain_length = self.previous_chain_length
        if self.pending_peer_key is not None and (
            sending is None or sending.next_index >= self.limits.turn_every
        ):
            own_key = KeyPair.generate(random) if key_pairs is None else key_pairs()
            turn = self._derive_turn(own_key, self.pending_peer_key)
            previous_chain_length = 0 if sending is None else sending.next_index
            sending = turn.chain
        if sending is None:
            # An initiator begins with a chain, a responder with a turn that is due.
            raise InconsistentChangeError("no sending chain and no peer key to make one")
        number = sending.next_index
        if number >= MAX_CHAIN_LENGTH:
            raise ChannelExpiredError("the sending chain has no number left: establish anew")
        header = Header(sending.ratchet_key, previous_chain_length, number, request_id, created_at)
        nonce = random(primitives.NONCE_SIZE)
        ciphertext, message_key, chain_key = message_step.active().seal(
            sending.chain_key, self.associated_data, header, nonce, plaintext
        )
        # From here on nothing can fail.
        if turn is not None:
            self._turn_sending(turn)
        sending.chain_key = chain_key
        sending.next_index = number + 1
        private_key = b"" if turn is None else turn.own_key.private_key
        return Payload(header, nonce, ciphertext), Sent(number, private_key), message_key

    def decrypt(self, payload: Payload) -> tuple[bytes, Received | ReceivedSkipped, bytes]:
        """Decrypt one message, in any order of arrival.

        Returns:
            The plaintext, the change, and the message key, which the ratchet itself has forgotten.

        Raises:
            AuthenticationFailedError: forged, damaged, or of another channel.
            MessageReplayedError: its key was used before, or is no longer kept.
            SkipLimitExceededError: it claims to be further ahead than the limit allows.
            ChannelExpiredError: the ratchet has turned 2**32 - 1 times.
        """
        header = payload.header
        receiving = self.receiving
        if receiving is not None and header.ratchet_key == receiving.ratchet_key:
            if header.message_number < receiving.next_index:
                return self._decrypt_skipped(payload)
            self._require_skip(header.message_number - receiving.next_index)
            plaintext, advance = self._open_ahead(payload, receiving)
            self._move_receiving(receiving, advance)
            return plaintext, Received(header.message_number), advance.message_key
        if any(chain.ratchet_key == header.ratchet_key for chain in self.skipped):
            return self._decrypt_skipped(payload)
        return self._decrypt_turning(payload)

    def work_of(self, header: Header) -> int:
        """Return the chain steps beyond its own that decrypting a message takes, by its header.

        0 for the next message of its chain, for one whose key is kept, and for one that is refused
        without a step. Nothing of the header is authentic yet.
        """
        receiving, skip = self.receiving, header.message_number
        left_behind = 0
        if receiving is not None and header.ratchet_key == receiving.ratchet_key:
            skip -= receiving.next_index
            if skip <= 0:
                return 0
        elif self.own_key is None or any(
            chain.ratchet_key == header.ratchet_key for chain in self.skipped
        ):
            return 0
        elif receiving is not None:
            left_behind = max(header.previous_chain_length - receiving.next_index, 0)
        return 0 if max(skip, left_behind) > self.limits.max_skip else skip + left_behind

    def apply(self, change: Sent | Received | ReceivedSkipped) -> tuple[bytes, bytes]:
        """Make a change again, on a ratchet as it was before the operation that yielded it.

        Returns:
            The ratchet key of the message's chain, and the message key, forgotten again.

        Raises:
            InconsistentChangeError: the change does not follow from this state. The state is then
                of no more use.
        """
        match change:
            case Sent():
                return self._apply_sent(change.message_number, change.ratchet_private_key)
            case Received(index, ratchet_key, previous_chain_length, _):
                return self._apply_received(index, ratchet_key, previous_chain_length)
            case ReceivedSkipped(index, chain_number, _):
                for position, chain in enumerate(self.skipped):
                    if chain.number == chain_number and index in chain.keys:
                        message_key = chain.keys[index]
                        self._drop_skipped(position, index)
                        return chain.ratchet_key, message_key
                raise InconsistentChangeError(f"no skipped key {index} on chain {chain_number}")

    # --- One message by its key -------------------------------------------------------------------

    def seal(self, header: Header, nonce: bytes, plaintext: bytes, message_key: bytes) -> Payload:
        """Return the payload of a plaintext by its message key; the state plays no part in it."""
        ciphertext = primitives.encrypt(
            message_key, nonce, plaintext, self.associated_data + header.encode()
        )
        return Payload(header, nonce, ciphertext)

    def open(self, payload: Payload, message_key: bytes) -> bytes:
        """Return the plaintext of a payload by its message key; the state plays no part in it.

        Raises:
            AuthenticationFailedError: its tag does not fit.
        """
        plaintext = primitives.decrypt(
            message_key,
            payload.nonce,
            payload.ciphertext,
            self.associated_data + payload.header.encode(),
        )
        if plaintext is None:
            raise AuthenticationFailedError(_BAD_TAG)
        return plaintext

    # --- Decrypting, by where the message's key comes from ---------------------------------------

    def _decrypt_skipped(self, payload: Payload) -> tuple[bytes, ReceivedSkipped, bytes]:
        header = payload.header
        for position, chain in enumerate(self.skipped):
            if chain.ratchet_key == header.ratchet_key and header.message_number in chain.keys:
                message_key = chain.keys[header.message_number]
                plaintext = self.open(payload, message_key)
                self._drop_skipped(position, header.message_number)
                change = ReceivedSkipped(header.message_number, chain.number)
                return plaintext, change, message_key
        raise MessageReplayedError(
            f"message {header.message_number} of its chain was decrypted before,"
            " or its key was given up: don't send it again"
        )

    def _decrypt_turning(self, payload: Payload) -> tuple[bytes, Received, bytes]:
        header = payload.header
        own_key = self.own_key
        if own_key is None:
            raise AuthenticationFailedError(
                "the message bears a ratchet key that is unknown, and no turn of the peer is due:"
                " it is forged, of another channel, or of a chain given up long ago"
            )
        if self.receiving_turns >= MAX_CHAIN_LENGTH:
            raise ChannelExpiredError("no more turns can be counted: establish anew")
        receiving = self.receiving
        left_behind = (
            0 if receiving is None else header.previous_chain_length - receiving.next_index
        )
        self._require_skip(left_behind)
        self._require_skip(header.message_number)
        try:
            shared_secret = own_key.exchange(header.ratchet_key)
        except WeakKeyError:
            raise AuthenticationFailedError("the message's ratchet key is of small order") from None
        root_key, chain_key = primitives.step_root(self.root_key, shared_secret)
        # Authenticate on the new chain before any work for the old one.
        turned = Chain(header.ratchet_key, chain_key, 0)
        plaintext, advance = self._open_ahead(payload, turned)
        self._turn_receiving(root_key, turned, header.previous_chain_length)
        self._move_receiving(turned, advance)
        change = Received(header.message_number, header.ratchet_key, header.previous_chain_length)
        return plaintext, change, advance.message_key

    def _open_ahead(self, payload: Payload, chain: Chain) -> tuple[bytes, _Advance]:
        """Return the plaintext of a message of a chain, and the chain moved on to behind it."""
        header = payload.header
        index = header.message_number
        ahead = index - chain.next_index
        # Chain keys alone take half as long: the skipped messages' keys are for what is authentic.
        chain_key = primitives.skip_chain(chain.chain_key, ahead) if ahead else chain.chain_key
        opened = message_step.active().open(
            chain_key, self.associated_data, header, payload.nonce, payload.ciphertext
        )
        if opened is None:
            raise AuthenticationFailedError(_BAD_TAG)
        plaintext, message_key, chain_key = opened
        skipped = _skip(chain, index)[0] if ahead else {}
        return plaintext, _Advance(message_key, chain_key, index + 1, skipped)

    def _derive_turn(self, own_key: KeyPair, peer_key: bytes) -> _SendingTurn:
        root_key, chain_key = primitives.step_root(self.root_key, own_key.exchange(peer_key))
        return _SendingTurn(root_key, own_key, Chain(own_key.public_key, chain_key, 0))

    def _require_skip(self, missing: int) -> None:
        if missing > self.limits.max_skip:
            raise SkipLimitExceededError(
                f"the message comes {missing} ahead on its chain, at most"
                f" {self.limits.max_skip} may be missing: send what is missing, or establish anew"
            )

    # --- The only ways in which the state changes ------------------------------------------------

    def _turn_sending(self, turn: _SendingTurn) -> None:
        self.previous_chain_length = 0 if self.sending is None else self.sending.next_index
        self.root_key = turn.root_key
        self.own_key = turn.own_key
        self.sending = turn.chain
        self.pending_peer_key = None

    def _turn_receiving(self, root_key: bytes, turned: Chain, previous_chain_length: int) -> None:
        receiving = self.receiving
        if receiving is not None and previous_chain_length > receiving.next_index:
            last = _advance(receiving, previous_chain_length - 1)
            last.skipped[previous_chain_length - 1] = last.message_key
            self._keep_skipped(receiving.ratchet_key, last.skipped)
        self.root_key = root_key
        self.own_key = None
        self.receiving = turned
        self.receiving_turns += 1
        self.pending_peer_key = turned.ratchet_key
        oldest = self.receiving_turns - MAX_SKIPPED_CHAINS + 1
        self.skipped = [chain for chain in self.skipped if chain.number >= oldest]

    def _move_receiving(self, receiving: Chain, advance: _Advance) -> None:
        receiving.chain_key = advance.chain_key
        receiving.next_index = advance.next_index
        if advance.skipped:
            self._keep_skipped(receiving.ratchet_key, advance.skipped)

    def _keep_skipped(self, ratchet_key: bytes, keys: dict[int, bytes]) -> None:
        if self.skipped and self.skipped[-1].number == self.receiving_turns:
            self.skipped[-1].keys.update(keys)
        else:
            self.skipped.append(SkippedChain(self.receiving_turns, ratchet_key, keys))
        surplus = self.skipped_keys - self.limits.max_skipped_keys
        while surplus > 0:
            oldest = self.skipped[0]
            dropped = min(surplus, len(oldest.keys))
            surplus -= dropped
            if dropped == len(oldest.keys):
                del self.skipped[0]
            else:
                # Deleted one by one from its front, a dict searches past all that it has lost.
                oldest.keys = dict(islice(oldest.keys.items(), dropped, None))

    def _drop_skipped(self, position: int, index: int) -> None:
        chain = self.skipped[position]
        del chain.keys[index]
        if not chain.keys:
            del self.skipped[position]

    # --- Making a stored change again -----------------------------------------------------------

    def _apply_sent(self, index: int, private_key: bytes) -> tuple[bytes, bytes]:
        if private_key:
            if self.pending_peer_key is None:
                raise InconsistentChangeError("a turn of the sending chain that was not due")
            self._turn_sending(self._derive_turn(KeyPair(private_key), self.pending_peer_key))
        sending = self.sending
        if sending is None or sending.next_index != index or index >= MAX_CHAIN_LENGTH:
            raise InconsistentChangeError(f"message {index} is not the next one to send")
        message_key, sending.chain_key = primitives.step_chain(sending.chain_key)
        sending.next_index = index + 1
        return sending.ratchet_key, message_key

    def _apply_received(
        self, index: int, ratchet_key: bytes, previous_chain_length: int
    ) -> tuple[bytes, bytes]:
        if ratchet_key:
            if self.own_key is None or self.receiving_turns >= MAX_CHAIN_LENGTH:
                raise InconsistentChangeError("a turn of the receiving chain that was not due")
            if self.receiving is not None:
                self._require_recorded_skip(previous_chain_length - self.receiving.next_index)
            try:
                shared_secret = self.own_key.exchange(ratchet_key)
            except WeakKeyError:
                raise InconsistentChangeError("a turn with a key of small order") from None
            root_key, chain_key = primitives.step_root(self.root_key, shared_secret)
            self._turn_receiving(root_key, Chain(ratchet_key, chain_key, 0), previous_chain_length)
        receiving = self.receiving
        if receiving is None or index < receiving.next_index:
            raise InconsistentChangeError(f"message {index} is not ahead on its chain")
        self._require_recorded_skip(index - receiving.next_index)
        if index >= MAX_CHAIN_LENGTH:
            raise InconsistentChangeError(f"message {index} is beyond the end of its chain")
        advance = _advance(receiving, index)
        self._move_receiving(receiving, advance)
        return receiving.ratchet_key, advance.message_key

    def _require_recorded_skip(self, missing: int) -> None:
        # Bounds the work that a record can cause, as ``_require_skip`` does for a message.
        if missing > self.limits.max_skip:
            raise InconsistentChangeError(f"a message {missing} ahead was never accepted")
