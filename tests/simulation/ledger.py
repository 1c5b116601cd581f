"""What was asked and answered, held against what is durable at that moment."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from pykka import ActorDeadError

from connect_actor.actors.commands import (
    Close,
    Command,
    Decrypt,
    Encrypt,
    Establish,
    Restore,
    Restored,
)
from connect_actor.errors import (
    ActorCrashedError,
    ChannelDamagedError,
    ChannelNotFoundError,
    ConnectError,
    MessageReplayedError,
    PeerError,
    ReadFailedError,
    WriteRejectedError,
    WriteUncertainError,
)
from connect_actor.protocol.payload import Payload
from connect_actor.reply import Reply
from tests.simulation.peers import Peer, spot_of
from tests.simulation.storage import Place, SimulatedJournal, Spot

__all__ = ["Asked", "Ledger"]


class Asked(Reply):
    """One command, and its one answer."""

    __slots__ = ("after", "command", "error", "established", "number", "peer", "value")

    def __init__(
        self, number: int, peer: Peer, command: Command, after: Callable[["Asked"], None]
    ) -> None:
        super().__init__()
        self.number = number
        self.peer = peer
        self.command = command
        self.after = after
        self.established = bool(peer.response)
        """Whether the peer knew, when it asked, that the channel is there."""
        self.value: Any = None
        self.error: BaseException | None = None

    @property
    def channel(self) -> int:
        """The channel's id."""
        return self.peer.connect_id

    def answer(self, value: Any) -> None:  # noqa: ANN401 - whatever was asked for
        self.value = value
        self.after(self)

    def refuse(self, error: BaseException) -> None:
        self.error = error
        self.after(self)


class Ledger:
    """Knows of every command, and which answers would break a rule."""

    def __init__(
        self,
        journal: SimulatedJournal,
        faults: Counter[str],
        blame: Callable[[str], None],
        note: Callable[..., None],
    ) -> None:
        self.commands = 0
        self.answers: Counter[str] = Counter()
        self.unanswered: dict[int, Asked] = {}
        self._journal = journal
        self._faults = faults
        self._blame = blame
        self._note = note
        self._given: dict[Spot, bytes] = {}
        self._foreign: set[Spot] = set()
        self._answered_up_to: dict[int, int] = {}
        self._closes_answered: Counter[int] = Counter()
        self._may_be_sent: Counter[int] = Counter()
        self._may_be_received: set[Spot] = set()

    def ask(self, peer: Peer, command: Command) -> Asked:
        """Write a command down; the caller sends it."""
        self.commands += 1
        asked = self.unanswered[self.commands] = Asked(self.commands, peer, command, self._answered)
        self._note("ask", asked.number, peer.number, type(command).__name__)
        if isinstance(command, Decrypt):
            self._may_be_received.add(spot_of(command.payload))
        elif isinstance(command, Encrypt):
            # Until it is known not to have happened.
            self._may_be_sent[peer.connect_id] += 1
        return asked

    def give_out(self, peer: Peer, payload: Payload, plaintext: bytes) -> None:
        """Take note that a message has left the service, towards its peer."""
        spot, sealed = spot_of(payload), payload.nonce + payload.ciphertext
        if self._given.setdefault(spot, sealed) != sealed:
            self._blame(f"index {spot.number} of a chain was given out twice with different bytes")
        peer.unopened.append((payload, plaintext))

    def give_out_foreign(self, peer: Peer, payload: Payload, plaintext: bytes) -> None:
        """Take note that another service has sent a message."""
        self._foreign.add(spot_of(payload))
        self.give_out(peer, payload, plaintext)

    def bury(self) -> None:
        """The process is dead: what it has not answered it never may."""
        for asked in self.unanswered.values():
            asked.after = self._answered_from_the_grave
        self.unanswered.clear()
        self._answered_up_to.clear()

    def balance(self) -> None:
        """Check that what was refused has changed nothing."""
        sent = Counter(
            channel for spot, channel in self._journal.sent.items() if spot not in self._foreign
        )
        for channel, count in sent.items():
            if count > self._may_be_sent[channel]:
                self._blame(f"{count} messages sent, {self._may_be_sent[channel]} asked for")
        if not self._journal.received.keys() <= self._may_be_received:
            self._blame("a message was received that nobody sent")

    # --- Answers ----------------------------------------------------------------------------------

    def _answered_from_the_grave(self, asked: Asked) -> None:
        self._blame(f"command {asked.number} is answered by a dead process")

    def _answered(self, asked: Asked) -> None:
        said = asked.value if asked.error is None else type(asked.error).__name__
        self._note("answer", asked.number, said)
        if self.unanswered.pop(asked.number, None) is None:
            self._blame(f"command {asked.number} has more than one answer")
            return
        self.answers[type(asked.command).__name__ if asked.error is None else str(said)] += 1
        if asked.error is None or isinstance(asked.error, PeerError):
            if asked.number < self._answered_up_to.get(asked.channel, 0):
                self._blame(f"command {asked.number} is answered after a later one")
            self._answered_up_to[asked.channel] = asked.number
        if asked.error is not None:
            self._failed(asked, asked.error)
            return
        match asked.command:
            case Establish():
                self._established(asked.peer, asked.value)
            case Encrypt(plaintext):
                self._encrypted(asked.peer, asked.value, plaintext)
            case Decrypt(payload):
                self._decrypted(asked.peer, payload, asked.value)
            case Restore():
                self._restored(asked.channel, asked.value)
            case Close():
                self._closed(asked.channel)

    def _established(self, peer: Peer, response: bytes) -> None:
        if (peer.connect_id, response) not in self._journal.responses:
            self._blame("a handshake is answered before it is durable")
        elif peer.session is None:
            peer.complete(response)
        elif peer.response != response and not peer.close_asked:
            self._blame("a handshake has two answers")

    def _encrypted(self, peer: Peer, payload: Payload, plaintext: bytes) -> None:
        if self._journal.sent.get(spot_of(payload)) != peer.connect_id:
            self._blame("a message is given out before it is durable")
        self.give_out(peer, payload, plaintext)

    def _decrypted(self, peer: Peer, payload: Payload, plaintext: bytes) -> None:
        spot = spot_of(payload)
        peer.decrypted[spot] += 1
        if self._journal.received.get(spot) != peer.connect_id:
            self._blame("a plaintext is given out before it is durable")
        if peer.plaintexts.get(spot) != plaintext:
            self._blame("a plaintext says what nobody wrote")
        if peer.decrypted[spot] > 1:
            self._blame("a message was decrypted twice")

    def _restored(self, channel: int, restored: Restored) -> None:
        place = Place(
            restored.sending_chain_length,
            restored.receiving_chain_length,
            restored.skipped_message_keys,
        )
        if not any(place in places for places in self._journal.places.get(channel, [])):
            self._blame("a channel is told to stand where it durably never stood")

    def _closed(self, channel: int) -> None:
        self._closes_answered[channel] += 1
        if self._closes_answered[channel] > self._journal.closings[channel]:
            self._blame("a channel is said to be closed before that is durable")

    # --- Refusals ---------------------------------------------------------------------------------

    def _failed(self, asked: Asked, error: BaseException) -> None:
        if not isinstance(error, ConnectError | ActorDeadError):
            self._blame(f"{error!r} is no answer")
        journal, channel = self._journal, asked.channel
        groundless = False
        match error:
            case MessageReplayedError():
                groundless = not self._was_received(asked)
            case ChannelNotFoundError():
                known = asked.established and not asked.peer.close_asked
                groundless = known and channel in journal.alive
            case WriteRejectedError():
                # A defect in a record takes down what stands behind it, too.
                had = channel in journal.disturbed | journal.damaged
                groundless = not had and not self._faults["defect"]
            case WriteUncertainError() | ReadFailedError():
                groundless = not (journal.faults.total() or self._faults["slow journal"])
            case ChannelDamagedError():
                groundless = channel not in journal.damaged
            case ActorCrashedError() | ActorDeadError():
                groundless = not self._faults["defect"]
        if groundless:
            self._blame(f"command {asked.number} is refused without grounds: {error!r}")
        if isinstance(asked.command, Encrypt) and not isinstance(error, WriteUncertainError):
            self._may_be_sent[channel] -= 1

    def _was_received(self, asked: Asked) -> bool:
        if not isinstance(asked.command, Decrypt):
            return False
        spot = spot_of(asked.command.payload)
        # A forged index may be one that no message ever had.
        genuine = spot in asked.peer.plaintexts
        return not genuine or self._journal.received.get(spot) == asked.channel
