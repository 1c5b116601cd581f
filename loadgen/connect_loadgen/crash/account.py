"""What is known of one channel: what its service's end has said, and what may have happened to it.

An operation whose answer never came may have happened or not. So what a channel may show is not one
state but a range: at least all that was acknowledged, at most that and all that is undecided.
"""

from bisect import bisect_right, insort
from collections import deque
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum, auto

from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.channels import ChannelEnd

__all__ = ["Account", "Message", "Place", "Span", "Standing"]

# Either end gives up what is five chains behind (protocol.ratchet, MAX_SKIPPED_CHAINS), and a
# message that was held back is up to two behind when it is sent.
_MOST_TURNS = 2

# Acknowledged messages of a channel that are kept for being sent again.
_REPEATABLE = 16

Place = tuple[int, int]
"""A peer's sending chain, from 0, and the index of a message on it."""

_NOWHERE: Place = (0, -1)


class Standing(Enum):
    """Whether a channel is there."""

    OPEN = auto()
    CLOSING = auto()
    """Close was sent; it may have happened."""
    CLOSED = auto()
    """Close was acknowledged."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the peer."""

    place: Place
    payload: wire.CipherPayload = field(repr=False)
    plaintext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Span:
    """How far a channel was known to be when it was asked where it stands."""

    sent_length: int
    """Of the service's newest sending chain that has been seen."""
    encrypts_open: int
    """Encrypts without an answer by then."""
    encrypts_asked: int
    """Encrypts asked for by then, over the channel's life."""
    received: Place
    """Newest message known to be decrypted."""


class Account:
    """One channel, its peer's end included."""

    def __init__(
        self, end: ChannelEnd, request: wire.EstablishRequest, response: wire.EstablishResponse
    ) -> None:
        self.end = end
        self.connect_id = end.connect_id
        self.request = request
        self.response = response.SerializeToString(deterministic=True)
        self.standing = Standing.OPEN
        self.held: list[tuple[int, Message]] = []
        """Sealed and never sent, each until so many have been sealed; the service must take them,
        late as they may come."""
        self.undecided: dict[Place, Message] = {}
        """Sent, and not known to be decrypted, those under way included."""
        self.decrypted: deque[Message] = deque(maxlen=_REPEATABLE)
        self.received = _NOWHERE
        """Newest message known to be decrypted."""
        self.encrypts_asked = 0
        self._sealed = 0
        self._turn_every = response.dh_ratchet_every
        self._under_way = 0
        self._unknown: list[int] = []  # lives in which Encrypts were left without an answer
        self._begun: dict[
            object, int
        ] = {}  # operations under way: chains of the peer at their start
        self._chains: dict[bytes, int] = {}
        self._sent: list[Place] = []

    # --- Operations under way ---------------------------------------------------------------------

    def begun(self, operation: object) -> None:
        """Take note that an operation goes out."""
        self._begun[operation] = len(self._chains)

    def ended(self, operation: object) -> None:
        """Take note that it has ended, in whatever way."""
        self._begun.pop(operation, None)

    @property
    def runs_ahead(self) -> bool:
        """Whether the ratchet has turned so often since an operation began that it must end first.

        Stream and unary overtake each other without bound, and the ends don't bear that.
        """
        oldest = next(iter(self._begun.values()), len(self._chains))
        return len(self._chains) - oldest >= _MOST_TURNS

    # --- The peer's messages ----------------------------------------------------------------------

    def seal(self, plaintext: bytes, request_id: int) -> Message:
        """Encrypt a message of the peer."""
        payload = self.end.channel.seal(plaintext, request_id)
        self._sealed += 1
        chain = self._chains.setdefault(payload.dh_public_key, len(self._chains))
        return Message((chain, payload.ratchet_index), payload, plaintext)

    def hold(self, message: Message, later: int) -> None:
        """Keep a message back until so many later ones have been sealed."""
        self.held.append((self._sealed + later, message))

    def take_held(self, *, even_if_early: bool = False) -> Message | None:
        """Return a message that was kept back for long enough, if there is one."""
        for index, (due, message) in enumerate(self.held):
            if even_if_early or due <= self._sealed:
                del self.held[index]
                return message
        return None

    def sending(self, message: Message) -> None:
        """Take note that a message goes out; from now on it may have been decrypted."""
        if message.place not in self.undecided and not self.has_sent(message):
            insort(self._sent, message.place)
        self.undecided[message.place] = message

    def has_sent(self, message: Message) -> bool:
        """Whether it went out before."""
        index = bisect_right(self._sent, message.place)
        return index > 0 and self._sent[index - 1] == message.place

    def was_decrypted(self, message: Message) -> None:
        """Take note that the service has decrypted it."""
        self.undecided.pop(message.place, None)
        self.decrypted.append(message)
        self.received = max(self.received, message.place)

    def not_sent(self, message: Message) -> None:
        """Take back what is known not to have been carried out; it is sent as if never before."""
        self.undecided.pop(message.place, None)
        index = bisect_right(self._sent, message.place)
        del self._sent[index - 1 : index]
        self.held.append((0, message))

    def may_be_behind(self, message: Message) -> bool:
        """Whether the service may have given up the message's chain, all of it being used."""
        return bool(self._sent) and self._sent[-1][0] > message.place[0]

    # --- The service's messages -------------------------------------------------------------------

    @property
    def sent_length(self) -> int:
        """Messages known on the service's newest sending chain that the peer has seen."""
        receiving = self.end.channel.session.ratchet.receiving
        return 0 if receiving is None else receiving.next_index

    def encrypt_asked(self) -> None:
        """Take note that an Encrypt goes out."""
        self.encrypts_asked += 1
        self._under_way += 1

    def encrypt_answered(self, life: int) -> None:
        """Take note of the message of an Encrypt that went out in this life.

        Its index stands behind whatever earlier lives left: of those nothing is open any more.
        """
        self._under_way -= 1
        self._unknown = [since for since in self._unknown if since >= life]

    def encrypt_refused(self) -> None:
        """Take note that an Encrypt did not happen."""
        self._under_way -= 1

    def encrypt_unknown(self, life: int) -> None:
        """Take note that an Encrypt may have happened."""
        self._under_way -= 1
        self._unknown.append(life)

    # --- Where the channel may stand --------------------------------------------------------------

    def span(self) -> Span:
        """Return how far it is known to be now."""
        return Span(
            self.sent_length,
            self._under_way + len(self._unknown),
            self.encrypts_asked,
            self.received,
        )

    def may_have_sent(self, length: int, since: Span) -> bool:
        """Whether a sending chain may be so long in an answer to what was asked at ``since``."""
        known = since.sent_length
        open_ = since.encrypts_open + self.encrypts_asked - since.encrypts_asked
        if known <= length <= known + open_:
            return True
        # A turn begins a new chain, but only once the one before it is long enough.
        return 1 <= length <= open_ - max(self._turn_every - known, 0)

    def may_have_received(self, length: int, since: Span) -> bool:
        """Whether a receiving chain may be so long in an answer to what was asked at ``since``."""
        return length in self._lengths_since(since.received)

    def _lengths_since(self, received: Place) -> AbstractSet[int]:
        later = self._sent[bisect_right(self._sent, received) :]
        return {received[1] + 1, *(index + 1 for _, index in later)}
