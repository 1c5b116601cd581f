"""The journal of a simulation, its faults, and the truth about what is durable in it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple, TypeVar

from connect_actor.persistence.contract import (
    Batch,
    CommitFailedError,
    CorruptRecordError,
    Record,
    RecordKind,
    Recovery,
    Rejection,
    Snapshot,
)
from connect_actor.persistence.memory import MemoryJournal
from connect_actor.persistence.recovery import rebuild
from connect_actor.persistence.strategies import STRATEGIES
from connect_actor.protocol.changes import (
    Change,
    InconsistentChangeError,
    Received,
    ReceivedSkipped,
    Sent,
    decode_change,
)
from connect_actor.protocol.session import Session

__all__ = [
    "NO_FAULT",
    "AllStrategies",
    "Fault",
    "Place",
    "Plan",
    "ProcessCrash",
    "SimulatedJournal",
    "Spot",
]

_Result = TypeVar("_Result")

Forms = Mapping[str, tuple[RecordKind, bytes]]


class Noted(bytes):
    """A stored payload that remembers what every strategy would have written in its place."""

    forms: Forms

    @classmethod
    def of(cls, forms: Forms, strategy: str) -> "Noted":
        noted = cls(forms[strategy][1])
        noted.forms = forms
        return noted


class AllStrategies:
    """Writes as one strategy does, and notes what the others would have written."""

    def __init__(self, name: str, defect: Callable[[str], None]) -> None:
        defect("strategy")
        self._name = name
        self._defect = defect
        self._all = {each: make() for each, make in STRATEGIES.items()}

    def record(self, session: Session, change: Change) -> tuple[RecordKind, bytes]:
        self._defect("record")
        forms = {name: each.record(session, change) for name, each in self._all.items()}
        return forms[self._name][0], Noted.of(forms, self._name)

    def state(self, session: Session) -> bytes:
        self._defect("state")
        forms = {name: (RecordKind.STATE, each.state(session)) for name, each in self._all.items()}
        return Noted.of(forms, self._name)


class Spot(NamedTuple):
    """One message's place: a chain's ratchet key, and the index on it."""

    ratchet_key: bytes
    number: int


class Place(NamedTuple):
    """Where a session stands, as ``Restored`` tells it."""

    sent: int
    received: int
    skipped: int

    @classmethod
    def of(cls, session: Session) -> "Place":
        ratchet = session.ratchet
        return cls(
            0 if ratchet.sending is None else ratchet.sending.next_index,
            0 if ratchet.receiving is None else ratchet.receiving.next_index,
            ratchet.skipped_keys,
        )


@dataclass
class History:
    """One channel's life, from its first record on, as far as it is durable."""

    session: Session
    """As the changes say, whatever the strategy wrote."""
    response: bytes
    records: list[tuple[int, Forms]]
    snapshot: tuple[int, Forms] | None = None
    places: set[Place] = field(default_factory=set)

    @classmethod
    def begin(cls, snapshot: Snapshot) -> "History":
        """Begin with the snapshot that comes with a channel's first record."""
        session = Session.decode(snapshot.payload)
        forms = _forms(snapshot.payload)
        return cls(
            session, session.handshake.response, [(1, forms)], (1, forms), {Place.of(session)}
        )

    def go_on(self, record: Record) -> tuple[str, Spot]:
        """Take a record in; return what it says has happened, "sent" or "received", and where."""
        forms = _forms(record.payload)
        happened = self._happen(decode_change(forms["differential"][1]))
        self.records.append((record.sequence_number, forms))
        self.places.add(Place.of(self.session))
        return happened

    def _happen(self, change: Change) -> tuple[str, Spot]:
        ratchet = self.session.ratchet
        skipped = {chain.number: chain.ratchet_key for chain in ratchet.skipped}
        self.session.apply(change)
        match change:
            case Sent(index) if ratchet.sending is not None:
                return "sent", Spot(ratchet.sending.ratchet_key, index)
            case Received(index) if ratchet.receiving is not None:
                return "received", Spot(ratchet.receiving.ratchet_key, index)
            case ReceivedSkipped(index, chain):
                return "received", Spot(skipped[chain], index)
        raise InconsistentChangeError(f"{change} on no chain")

    def disagreements(self) -> list[str]:
        """Recover by each strategy's form of this history, and say where that is another session.

        Both from the whole history and from the last snapshot on.
        """
        found = []
        for name in STRATEGIES:
            for snapshot in (None, self.snapshot) if self.snapshot else (None,):
                covered = 0 if snapshot is None else snapshot[0]
                recovery = Recovery(
                    None if snapshot is None else Snapshot(0, covered, 0, snapshot[1][name][1]),
                    [
                        Record(0, number, *forms[name])
                        for number, forms in self.records
                        if number > covered
                    ],
                    len(self.records),
                )
                if rebuild(recovery) != self.session:
                    found.append(f"{name} recovers another session, from record {covered} on")
        return found


def _forms(payload: bytes) -> Forms:
    if not isinstance(payload, Noted):
        raise TypeError("a payload that no strategy of the simulation has made")
    return payload.forms


class Fault(Enum):
    """What may happen at one call of the journal."""

    NONE = "none"
    FAIL_BEFORE = "fails, nothing done"
    FAIL_AFTER = "fails, but it is done"
    CRASH_BEFORE = "the process dies before"
    CRASH_AFTER = "the process dies behind"
    REJECT = "refuses a channel"
    DEFECT = "raises what it must not"


class Plan(NamedTuple):
    """The fate of one round in the journal's thread."""

    fault: Fault = Fault.NONE
    at: int = 0
    """At which of the round's calls, from 0."""


NO_FAULT = Plan()


class ProcessCrash(BaseException):
    """The whole process is gone from here on."""


class SimulatedJournal(MemoryJournal):
    """A journal that survives its processes, fails as planned, and keeps the truth."""

    def __init__(self, blame: Callable[[str], None]) -> None:
        super().__init__()
        self.alive: dict[int, History] = {}
        self.responses: set[tuple[int, bytes]] = set()
        self.places: dict[int, list[set[Place]]] = {}
        self.sent: dict[Spot, int] = {}
        """By message sent, the channel."""
        self.received: dict[Spot, int] = {}
        self.closings: Counter[int] = Counter()
        self.disturbed: set[int] = set()
        """Channels that something else has written to, or that were refused on purpose."""
        self.damaged: set[int] = set()
        self.faults: Counter[str] = Counter()
        self._blame = blame
        self._plan = NO_FAULT
        self._calls = 0
        self._rejecting = False

    def expect(self, plan: Plan) -> None:
        """Let the next round go as planned."""
        self._plan = plan
        self._calls = 0

    # --- The journal, with its faults -----------------------------------------------------------

    def commit(self, batch: Batch) -> list[Rejection]:
        return self._call(lambda: self._commit(batch))

    def recover(self, channel: int) -> Recovery:
        return self._read(channel, super().recover)

    def highest_sequence_number(self, channel: int) -> int:
        return self._read(channel, super().highest_sequence_number)

    def forget(self, channel: int) -> None:
        forget = super().forget
        self._call(lambda: forget(channel))

    def upkeep(self) -> bool:
        return self._call(super().upkeep)

    def _read(self, channel: int, read: Callable[[int], _Result]) -> _Result:
        def undamaged() -> _Result:
            if channel in self.damaged:
                raise CorruptRecordError("damaged on purpose")
            return read(channel)

        return self._call(undamaged)

    def _call(self, work: Callable[[], _Result]) -> _Result:
        fault = self._plan.fault if self._calls == self._plan.at else Fault.NONE
        self._calls += 1
        if fault is not Fault.NONE:
            self.faults[fault.value] += 1
        match fault:
            case Fault.FAIL_BEFORE:
                raise CommitFailedError("on purpose, nothing was done")
            case Fault.DEFECT:
                raise ZeroDivisionError("on purpose")
            case Fault.CRASH_BEFORE:
                raise ProcessCrash
        self._rejecting = fault is Fault.REJECT
        result = work()
        self._rejecting = False
        match fault:
            case Fault.FAIL_AFTER:
                raise CommitFailedError("on purpose, all was done")
            case Fault.CRASH_AFTER:
                raise ProcessCrash
        return result

    # --- The truth --------------------------------------------------------------------------------

    def _commit(self, batch: Batch) -> list[Rejection]:
        entries: list[Record | Snapshot] = [*batch.records, *batch.snapshots]
        refused = {entry.channel for entry in entries if entry.channel in self.damaged}
        if self._rejecting and entries:
            refused.add(entries[0].channel)
            self.disturbed.add(entries[0].channel)
        rejections = [Rejection(entry, 0) for entry in entries if entry.channel in refused]
        rejections += super().commit(
            Batch(
                [record for record in batch.records if record.channel not in refused],
                [snapshot for snapshot in batch.snapshots if snapshot.channel not in refused],
                [owner for owner in batch.owners if owner[0] not in refused],
            )
        )
        left_out = {rejection.entry for rejection in rejections}
        for entry in left_out:
            if entry.channel not in self.disturbed | self.damaged:
                self._blame(f"{entry!r} does not follow, and nobody else has written")
        for record in batch.records:
            if record not in left_out:
                self._note(record, batch.snapshots)
        for snapshot in batch.snapshots:
            if snapshot not in left_out and snapshot.channel in self.alive:
                self.alive[snapshot.channel].snapshot = (
                    snapshot.sequence_number,
                    _forms(snapshot.payload),
                )
        return rejections

    def _note(self, record: Record, snapshots: Sequence[Snapshot]) -> None:
        channel = record.channel
        if record.kind is RecordKind.CLOSED:
            self.closings[channel] += 1
            del self.alive[channel]
        elif channel not in self.alive:
            (first,) = (
                snapshot
                for snapshot in snapshots
                if (snapshot.channel, snapshot.sequence_number) == (channel, 1)
            )
            history = self.alive[channel] = History.begin(first)
            self.responses.add((channel, history.response))
            self.places.setdefault(channel, []).append(history.places)
        else:
            try:
                happened = self.alive[channel].go_on(record)
            except InconsistentChangeError as error:
                self._blame(f"{record!r} was computed from what is not durable: {error}")
                return
            what, spot = happened
            known = self.sent if what == "sent" else self.received
            if spot in known:
                self._blame(f"{record!r}: index {spot.number} was {what} before")
            known[spot] = channel

    def verify(self) -> None:
        """Hold what the journal would recover against the truth, channel by channel."""
        self.expect(NO_FAULT)
        for channel, history in self.alive.items():
            if channel in self.damaged:
                continue
            if rebuild(super().recover(channel)) != history.session:
                self._blame(f"channel {channel} does not come back as it was acknowledged")

    def compare_strategies(self) -> None:
        """Recover every history in each strategy's form."""
        for channel, history in self.alive.items():
            for disagreement in history.disagreements():
                self._blame(f"channel {channel}: {disagreement}")
