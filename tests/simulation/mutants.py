"""The service with a rule broken on purpose, one rule each: a simulation that finds none is blind.

Each is a context within which the service's classes misbehave.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

from connect_actor.actors.actor import ANSWER_LATER
from connect_actor.actors.commands import CommitFailed
from connect_actor.actors.connect import ConnectActor
from connect_actor.actors.mailbox import Envelope, Mailbox
from connect_actor.actors.permits import Permit, RecoveryPermits
from connect_actor.actors.phases import recovering
from connect_actor.actors.phases.recovering import Recovering
from connect_actor.actors.phases.reports import CannotLoad, NothingStored
from connect_actor.actors.phases.running import Running
from connect_actor.actors.phases.stash import Stash
from connect_actor.actors.phases.writing import SessionWriter, _Answer
from connect_actor.actors.router import Router, _Waiting
from connect_actor.errors import ConnectError, OverloadedError, StorageError, WriteRejectedError
from connect_actor.persistence import committer as committing
from connect_actor.persistence import strategies
from connect_actor.persistence.committer import Committer
from connect_actor.persistence.contract import (
    Batch,
    RecordKind,
    Recovery,
    Rejection,
    Snapshot,
)
from connect_actor.persistence.memory import MemoryJournal
from connect_actor.persistence.recovery import rebuild
from connect_actor.protocol.changes import Change, Sent, encode_change
from connect_actor.protocol.session import Session
from connect_actor.reply import Reply

__all__ = ["MUTANTS", "Mutant"]

Mutant = Callable[[], AbstractContextManager[None]]

MUTANTS: dict[str, Mutant] = {}


def _mutant(breaks: Callable[[], Iterator[None]]) -> Callable[[], Iterator[None]]:
    MUTANTS[breaks.__name__] = contextmanager(breaks)
    return breaks


def _replacing(owner: object, **changes: Any) -> Any:  # noqa: ANN401 - a patcher
    return patch.multiple(owner, **changes)


# --- Durability -----------------------------------------------------------------------------------


@_mutant
def answers_before_the_commit() -> Iterator[None]:
    append = SessionWriter.append

    def hasty(self: SessionWriter, kind: RecordKind, payload: bytes, result: object) -> None:
        sender = self._actor.sender
        self._actor.sender = None
        append(self, kind, payload, result)
        if sender is not None:
            sender.answer(result)

    with _replacing(SessionWriter, append=hasty):
        yield


@_mutant
def goes_on_after_a_failed_commit() -> Iterator[None]:
    with _replacing(Running, _discard=lambda _: None):
        yield


@_mutant
def discards_only_when_its_turn_comes() -> Iterator[None]:
    def interrupt(self: ConnectActor, failure: CommitFailed) -> None:
        self.signal(failure)

    with _replacing(ConnectActor, interrupt=interrupt):
        yield


@_mutant
def says_that_an_unknown_write_has_succeeded() -> Iterator[None]:
    settle = _Answer.settle

    def hopeful(self: _Answer, error: StorageError | None) -> None:
        if error is not None:
            self._writer._actor.interrupt(CommitFailed(self._writer))
        settle(self, None)

    with _replacing(_Answer, settle=hopeful):
        yield


@_mutant
def refuses_without_waiting_for_what_the_refusal_rests_on() -> Iterator[None]:
    with _replacing(Running, receive=Running._receive):
        yield


@_mutant
def tells_where_a_channel_stands_before_that_is_durable() -> Iterator[None]:
    with _replacing(SessionWriter, answer_when_durable=lambda _, result: result):
        yield


@_mutant
def says_closed_before_the_end_is_durable() -> Iterator[None]:
    close = Running._close

    def hasty(self: Running, deadline: float | None) -> object:
        sender, self._actor.sender = self._actor.sender, None
        close(self, deadline)
        if sender is not None:
            sender.answer(None)
        return ANSWER_LATER

    with _replacing(Running, _close=hasty):
        yield


@_mutant
def tries_what_was_queued_behind_a_failed_commit() -> Iterator[None]:
    answer = Committer._answer

    def stubborn(self: Committer, under_way: committing._Round) -> None:
        queued, self._writes = self._writes, []
        answer(self, under_way)
        self._writes[:0] = queued

    with _replacing(Committer, _answer=stubborn):
        yield


@_mutant
def takes_a_rejected_write_for_a_written_one() -> Iterator[None]:
    def blind(self: Committer, under_way: committing._Round) -> None:
        del self
        for write in under_way.writes:
            write.settle(None)

    with _replacing(Committer, _answer_partly=blind):
        yield


@_mutant
def answers_what_stands_behind_a_rejected_write() -> Iterator[None]:
    def shortsighted(self: Committer, under_way: committing._Round) -> None:
        del self
        for write in under_way.writes:
            rejected = write.record in under_way.rejected or write.snapshot in under_way.rejected
            write.settle(WriteRejectedError("rejected") if rejected else None)

    with _replacing(Committer, _answer_partly=shortsighted):
        yield


@_mutant
def deletes_a_record_more_than_the_snapshot_replaces() -> Iterator[None]:
    save = MemoryJournal._save

    def greedy(self: MemoryJournal, snapshot: Snapshot) -> None:
        save(self, snapshot)
        self._channels[snapshot.channel].records.pop(snapshot.sequence_number + 1, None)

    with _replacing(MemoryJournal, _save=greedy):
        yield


@_mutant
def deletes_the_snapshot_that_it_has_just_made() -> Iterator[None]:
    save = MemoryJournal._save

    def greedy(self: MemoryJournal, snapshot: Snapshot) -> None:
        save(self, snapshot)
        self._channels[snapshot.channel].snapshot = None

    with _replacing(MemoryJournal, _save=greedy):
        yield


@_mutant
def refuses_durable_records_of_a_round_that_ends_their_channel() -> Iterator[None]:
    """As committer and journal together did when the simulation was first run."""
    honest = MemoryJournal.commit

    def commit(journal: MemoryJournal, batch: Batch) -> list[Rejection]:
        ended = {record.channel for record in batch.records if record.kind is RecordKind.CLOSED}
        useless = [snapshot for snapshot in batch.snapshots if snapshot.channel in ended]
        return honest(journal, batch) + [Rejection(snapshot, 0) for snapshot in useless]

    with _replacing(MemoryJournal, commit=commit):
        yield


# --- Recovery -------------------------------------------------------------------------------------


@_mutant
def recovers_without_the_last_record() -> Iterator[None]:
    def without_the_last(recovery: Recovery) -> Session | None:
        records = recovery.records
        if len(records) > 1:
            records = records[:-1]
        return rebuild(Recovery(recovery.snapshot, records, recovery.highest_sequence_number))

    with _replacing(recovering, rebuild=without_the_last):
        yield


@_mutant
def forgets_new_ratchet_keys_in_its_changes() -> Iterator[None]:
    def record(
        self: strategies.Differential, session: Session, change: Change
    ) -> tuple[RecordKind, bytes]:
        del self, session
        if isinstance(change, Sent):
            change = change._replace(ratchet_private_key=b"")
        return RecordKind.CHANGE, encode_change(change)

    with _replacing(strategies.Differential, record=record):
        yield


@_mutant
def caches_what_changes() -> Iterator[None]:
    def state(self: strategies.Cached, session: Session) -> bytes:
        if self._static is None:
            self._static = session.encode()
        return self._static

    with _replacing(strategies.Cached, state=state):
        yield


@_mutant
def serves_while_it_recovers() -> Iterator[None]:
    """A channel that could not be read is taken for one that is not there."""

    def give_up(self: Recovering, error: StorageError) -> None:
        del error
        self._permit.give_back()
        self._actor.report(NothingStored(0))
        self._stash.replay(self._actor)

    with _replacing(Recovering, _give_up=give_up):
        yield


# --- Answers --------------------------------------------------------------------------------------


@_mutant
def answers_a_round_again_that_was_given_up() -> Iterator[None]:
    give_up = Committer._give_up

    def twice(self: Committer, under_way: committing._Round) -> None:
        give_up(self, under_way)
        self._hangs = False

    with _replacing(Committer, _give_up=twice):
        yield


@_mutant
def forgets_who_waits_for_a_hanging_journal() -> Iterator[None]:
    def give_up(self: Committer, under_way: committing._Round) -> None:
        self._hangs = True
        error = self._hanging()
        for write in under_way.writes:
            write.settle(error)

    with _replacing(Committer, _give_up=give_up):
        yield


@_mutant
def forgets_who_waits_for_a_passivating_actor() -> Iterator[None]:
    stopped = Router.stopped

    def careless(self: Router, actor: ConnectActor) -> None:
        channel = self._channels.get(actor.connect_id)
        if isinstance(channel, _Waiting):
            channel.commands.clear()
        stopped(self, actor)

    with _replacing(Router, stopped=careless):
        yield


@_mutant
def replays_the_stash_in_reverse() -> Iterator[None]:
    def replay(self: Stash, actor: ConnectActor) -> None:
        while self._waiting:
            command, sender = self._waiting.pop()
            actor.handle(command, sender)

    with _replacing(Stash, replay=replay):
        yield


@_mutant
def serves_at_once_though_others_wait() -> Iterator[None]:
    def serve(self: Mailbox, message: object, reply: Reply) -> None:
        if self._owner is None:
            self.put_asked(message, reply)
        else:
            self._owner.take(message, reply)

    with _replacing(Mailbox, serve=serve):
        yield


@_mutant
def serves_behind_a_postponed_message_at_once() -> Iterator[None]:
    def postpone(self: ConnectActor, message: object) -> object:
        inbox = self.actor_inbox
        if inbox.scheduled:
            return None
        self.dispatcher.loop.call_soon(inbox.put, Envelope(message, self.sender))
        return ANSWER_LATER

    with _replacing(ConnectActor, postpone=postpone):
        yield


@_mutant
def lets_a_defect_in_a_signal_go_unnoticed() -> Iterator[None]:
    """The actor as it was when the simulation was first run."""
    receive = ConnectActor.on_receive

    def on_receive(self: ConnectActor, message: Any) -> Any:  # noqa: ANN401 - Pykka's signature
        before = self.environment.statistics.crashed
        answer = receive(self, message)
        if self.sender is None and self.environment.statistics.crashed > before:
            raise ConnectError
        return answer

    with _replacing(ConnectActor, on_receive=on_receive):
        yield


# --- Permits --------------------------------------------------------------------------------------


@_mutant
def gives_a_permit_back_twice() -> Iterator[None]:
    take_back = RecoveryPermits.take_back

    def twice(self: RecoveryPermits, permit: Permit) -> None:
        take_back(self, permit)
        if self._held:
            self._held.pop()
            if self._waiting:
                self._grant(self._waiting.popitem(last=False)[0])

    with _replacing(RecoveryPermits, take_back=twice):
        yield


@_mutant
def keeps_the_permit_of_a_recovery_that_fails() -> Iterator[None]:
    def give_up(self: Recovering, error: StorageError) -> None:
        self._stash.refuse(error)
        self._actor.report(CannotLoad(error))

    with _replacing(Recovering, _give_up=give_up):
        yield


@_mutant
def keeps_the_permit_of_an_actor_that_dies_loading() -> Iterator[None]:
    with _replacing(Recovering, leave=lambda _: None):
        yield


@_mutant
def keeps_a_permit_for_who_waited_in_vain() -> Iterator[None]:
    refuse = Permit.refuse

    def grant_as_well(self: Permit, error: OverloadedError) -> None:
        self._permits._held.add(self)
        refuse(self, error)

    with _replacing(Permit, refuse=grant_as_well):
        yield


@_mutant
def loads_without_a_permit() -> Iterator[None]:
    with _replacing(RecoveryPermits, acquire=_without_counting):
        yield


def _without_counting(
    self: RecoveryPermits,
    granted: Callable[[], None],
    refused: Callable[[OverloadedError], None],
) -> Permit:
    granted()
    return Permit(self, 0.0, granted, refused)
