"""How a running channel is written: numbers, snapshots, and results that wait for commits."""

from typing import TYPE_CHECKING, NamedTuple

from connect_actor.actors.actor import ANSWER_LATER
from connect_actor.actors.commands import CommitFailed
from connect_actor.errors import ConnectError, StorageError
from connect_actor.observe.tracing import id_of, note
from connect_actor.persistence.committer import Write
from connect_actor.persistence.contract import Record, RecordKind, Snapshot
from connect_actor.protocol.changes import Change, encode_change
from connect_actor.protocol.session import Session
from connect_actor.reply import Reply

if TYPE_CHECKING:
    from connect_actor.actors.connect import ConnectActor

__all__ = ["Refusal", "SessionWriter"]


class Refusal(NamedTuple):
    """A result that is an error."""

    error: ConnectError


class _Answer(Write):
    """What an operation has to write before its result may leave; nothing, for a barrier."""

    __slots__ = ("_result", "_sender", "_writer")

    def __init__(
        self,
        writer: "SessionWriter",
        sender: Reply | None,
        result: object,
        record: Record | None = None,
        snapshot: Snapshot | None = None,
        owner: bytes = b"",
    ) -> None:
        # As ``Write`` does; one is made for every message.
        self.channel = writer.connect_id
        self.record = record
        self.snapshot = snapshot
        self.owner = owner
        self._writer = writer
        self._sender = sender
        self._result = result

    def settle(self, error: StorageError | None) -> None:
        """Let the result go, now that it is durable; or take note that it never may."""
        writer, sender, result = self._writer, self._sender, self._result
        writer.settled(self.record, sender, error)
        if sender is None:
            return
        if error is not None:
            sender.refuse(error)
        elif type(result) is Refusal:
            sender.refuse(result.error)
        else:
            sender.answer(result)


class SessionWriter:
    """Writes one actor's session; what is on its way to the journal holds its results back."""

    __slots__ = (
        "_actor",
        "_changes_behind",
        "_environment",
        "_sequence_number",
        "_session",
        "_snapshot_number",
        "_strategy",
        "connect_id",
        "unsettled",
    )

    def __init__(
        self, actor: "ConnectActor", session: Session, sequence_number: int, snapshot_number: int
    ) -> None:
        """Begin behind a channel's last record.

        Args:
            actor: whose session it is.
            session: after that record.
            sequence_number: of that record; 0: there is none.
            snapshot_number: of the newest snapshot; 0: there is none.
        """
        self._actor = actor
        self._environment = actor.environment
        self.connect_id = actor.connect_id
        self._session = session
        self._strategy = actor.environment.strategy()
        self._sequence_number = sequence_number
        self._snapshot_number = snapshot_number
        self._changes_behind = sequence_number - snapshot_number  # the newest snapshot
        self.unsettled = 0
        """Results that wait for the committer."""

    @property
    def is_saved(self) -> bool:
        """Whether the newest snapshot has all that was written."""
        return self._snapshot_number == self._sequence_number

    def begin(self) -> None:
        """Persist a session that has just been made; its answer is the handshake's response."""
        self.append(
            RecordKind.ESTABLISHED, b"", self._session.handshake.response, self._actor.owner
        )
        # Channels that march in step are not to take their snapshots all at once.
        self._changes_behind = self.connect_id % self._environment.snapshot_interval

    def persist(self, change: Change, result: object) -> object:
        """Write a change that the session has made; its result waits for the commit.

        Returns:
            ``ANSWER_LATER``.
        """
        statistics = self._environment.statistics
        statistics.changes += 1
        kind, payload = self._strategy.record(self._session, change)
        # Such a record is the change and nothing else.
        is_change = kind is RecordKind.CHANGE
        statistics.change_bytes += len(payload if is_change else encode_change(change))
        self.append(kind, payload, result)
        return ANSWER_LATER

    def append(self, kind: RecordKind, payload: bytes, result: object, owner: bytes = b"") -> None:
        """Write a record, with a snapshot if one is due; the result waits for the commit."""
        environment = self._environment
        sender = self._actor.sender
        number = self._sequence_number = self._sequence_number + 1
        self._changes_behind += 1
        snapshot = None
        if kind is RecordKind.ESTABLISHED or (
            self._changes_behind >= environment.snapshot_interval and kind is not RecordKind.CLOSED
        ):
            snapshot = self.snapshot()
        self.unsettled += 1
        if environment.tracing:
            note("recorded", id_of(sender), **self._step(number))
        record = Record(self.connect_id, number, kind, payload)
        environment.committer.write(_Answer(self, sender, result, record, snapshot, owner))

    def snapshot(self) -> Snapshot:
        """Return the session as it is now."""
        self._snapshot_number = self._sequence_number
        self._changes_behind = 0
        now = self._environment.settled()
        if now >= self._session.expires_at:
            # Durable with this snapshot, and by a time that a wrong clock does not move.
            self._session.forget_deliveries()
        return Snapshot(
            self.connect_id,
            self._sequence_number,
            now,
            self._strategy.state(self._session),
        )

    def answer_when_durable(self, result: object) -> object:
        """Answer with what the session shows, once all of it is durable."""
        self.unsettled += 1
        self._environment.committer.write(_Answer(self, self._actor.sender, result))
        return ANSWER_LATER

    def _step(self, number: int) -> dict[str, int]:
        return {"connect_id": self.connect_id, "sequence_number": number}

    def settled(
        self, record: Record | None, sender: Reply | None, error: StorageError | None
    ) -> None:
        """Take note that a write is durable; or, before anyone else is told, that it is not."""
        self.unsettled -= 1
        if error is not None:
            self._actor.interrupt(CommitFailed(self))
        elif self._environment.tracing and record is not None:
            round_number = self._environment.committer.statistics.rounds
            step = self._step(record.sequence_number)
            note("durable", id_of(sender), **step, round=round_number)
