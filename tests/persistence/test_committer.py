"""The committer: what it guarantees of writes, of reads, and of the journal's upkeep."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

import pytest

from connect_actor.errors import (
    OverloadedError,
    ReadFailedError,
    StorageError,
    WriteRejectedError,
    WriteUncertainError,
)
from connect_actor.persistence.committer import CallbackWrite, Committer, Standing
from connect_actor.persistence.contract import (
    Batch,
    JournalError,
    JournalHangsError,
    Record,
    RecordKind,
    Recovery,
    Rejection,
    Snapshot,
)
from connect_actor.persistence.gathering import Gathering
from tests.support.house import until
from tests.support.journals import ScriptedJournal
from tests.support.process import PATIENCE
from tests.support.virtual_time import NoThread, VirtualClock, run_virtually

ONE, TWO = 11, 22


@dataclass
class Desk:
    """Asks a committer for things, and keeps the answers in the order in which they came."""

    journal: ScriptedJournal = field(default_factory=ScriptedJournal)
    timeout: float = 30.0
    max_waiting: int = 100
    gathering: Gathering | None = None
    thread: Executor | None = None
    settled: list[tuple[str, type[StorageError] | None]] = field(default_factory=list)
    recoveries: list[Recovery | StorageError | None] = field(default_factory=list)
    committer: Committer = field(init=False)

    def __post_init__(self) -> None:
        self.committer = Committer(
            self.journal,
            asyncio.get_running_loop(),
            max_waiting=self.max_waiting,
            timeout=self.timeout,
            gathering=self.gathering,
            thread=self.thread,
            renew_every=1e6,  # rounds are counted
        )

    def write(self, channel: int, number: int, snapshot: Snapshot | None = None) -> None:
        record = Record(channel, number, RecordKind.STATE, b"state")
        name = f"{channel}/{number}"
        self.committer.write(CallbackWrite(channel, self._note(name), record, snapshot))

    def barrier(self, channel: int) -> None:
        self.committer.write(CallbackWrite(channel, self._note("barrier")))

    def _note(self, name: str) -> "_Note":
        return _Note(self, name)

    def recover(self, channel: int) -> None:
        self.committer.recover(
            channel, lambda recovery, error: self.recoveries.append(error or recovery)
        )

    async def hold(self) -> None:
        """Have the next commit wait in the journal, and be there."""
        self.journal.gate.clear()
        self.journal.entered.clear()

    async def held(self) -> None:
        await until(self.journal.entered.is_set)

    async def settles(self, count: int) -> None:
        await until(lambda: len(self.settled) >= count)


@dataclass
class _Note:
    desk: Desk
    name: str

    def __call__(self, error: StorageError | None) -> None:
        self.desk.settled.append((self.name, None if error is None else type(error)))


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    yield desk
    desk.journal.gate.set()
    await desk.committer.close()


def sizes(journal: ScriptedJournal) -> list[int]:
    return [len(batch.records) for batch in journal.batches]


async def test_writes_asked_for_in_one_pass_of_the_loop_share_a_commit(desk: Desk) -> None:
    for number in (1, 2, 3):
        desk.write(ONE, number)
    desk.write(TWO, 1)
    await desk.settles(4)
    assert sizes(desk.journal) == [4]
    assert desk.settled == [("11/1", None), ("11/2", None), ("11/3", None), ("22/1", None)]


async def test_an_end_beside_a_snapshot_of_its_channel_rejects_nothing(desk: Desk) -> None:
    desk.write(ONE, 1, Snapshot(ONE, 1, 0, b"state"))
    desk.committer.write(
        CallbackWrite(ONE, desk._note("end"), Record(ONE, 2, RecordKind.CLOSED, b""))
    )
    desk.write(TWO, 1, Snapshot(TWO, 1, 0, b"state"))
    await desk.settles(3)
    assert sizes(desk.journal) == [3]
    assert desk.settled == [("11/1", None), ("end", None), ("22/1", None)]
    assert desk.journal.recover(ONE).snapshot is None


async def test_what_arrives_during_a_commit_shares_the_next_one(desk: Desk) -> None:
    await desk.hold()
    desk.write(ONE, 1)
    await desk.held()
    for number in (2, 3, 4):
        desk.write(ONE, number)
        await asyncio.sleep(0)
    assert desk.committer.waiting == 3
    desk.journal.gate.set()
    await desk.settles(4)
    assert sizes(desk.journal) == [1, 3]


async def test_nothing_is_settled_before_its_commit_is_back(desk: Desk) -> None:
    await desk.hold()
    desk.write(ONE, 1)
    await desk.held()
    assert desk.settled == []
    desk.journal.gate.set()
    await desk.settles(1)


async def test_a_write_is_never_settled_from_within_the_call_that_asks_for_it(desk: Desk) -> None:
    desk.write(ONE, 1)
    assert desk.settled == []
    await desk.settles(1)


async def test_a_barrier_is_settled_behind_all_before_it_and_costs_no_commit(desk: Desk) -> None:
    desk.write(ONE, 1)
    desk.barrier(ONE)
    await desk.settles(2)
    desk.barrier(ONE)
    await desk.settles(3)
    assert desk.settled == [("11/1", None), ("barrier", None), ("barrier", None)]
    assert len(desk.journal.batches) == 1


async def test_a_read_sees_every_write_asked_for_before_it(desk: Desk) -> None:
    desk.write(ONE, 1)
    desk.write(ONE, 2)
    desk.recover(ONE)
    await until(lambda: bool(desk.recoveries))
    (recovery,) = desk.recoveries
    assert isinstance(recovery, Recovery)
    assert recovery.highest_sequence_number == 2


async def test_a_read_during_a_commit_sees_the_writes_that_wait_for_the_next(desk: Desk) -> None:
    await desk.hold()
    desk.write(ONE, 1)
    await desk.held()
    desk.write(ONE, 2)
    desk.recover(ONE)
    desk.journal.gate.set()
    await until(lambda: bool(desk.recoveries))
    (recovery,) = desk.recoveries
    assert isinstance(recovery, Recovery)
    assert recovery.highest_sequence_number == 2


async def test_looking_a_channel_up_says_whether_the_journal_knows_it(desk: Desk) -> None:
    answers: list[tuple[Standing, StorageError | None]] = []
    desk.write(ONE, 1)
    desk.committer.look_up(ONE, b"", lambda known, error: answers.append((known, error)))
    desk.committer.look_up(TWO, b"", lambda known, error: answers.append((known, error)))
    await until(lambda: len(answers) == 2)
    assert answers == [(Standing.OWN, None), (Standing.UNKNOWN, None)]
    assert desk.journal.recoveries == []


async def test_reads_beyond_a_rounds_share_wait_for_the_next_round(desk: Desk) -> None:
    rounds: list[int] = []
    for channel in range(1, 66):
        desk.committer.recover(channel, lambda *_: rounds.append(desk.committer.statistics.rounds))
    await until(lambda: len(rounds) == 65)
    assert rounds == [1] * 64 + [2]
    assert desk.journal.recoveries == list(range(1, 66))


@pytest.mark.parametrize("written", [False, True])
async def test_after_a_failed_commit_nothing_queued_behind_it_is_tried(
    desk: Desk,
    written: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    (desk.journal.fail_after if written else desk.journal.fail_before).append(True)
    await desk.hold()
    desk.write(ONE, 1)
    await desk.held()
    desk.write(ONE, 2)
    desk.write(TWO, 1)
    desk.journal.gate.set()
    await desk.settles(3)
    assert desk.settled == [(name, WriteUncertainError) for name in ("11/1", "11/2", "22/1")]
    assert sizes(desk.journal) == ([1] if written else [])
    assert desk.committer.statistics.failed_commits == 1


async def test_a_write_asked_for_at_the_failure_of_another_is_tried(desk: Desk) -> None:
    desk.journal.fail_before = [True]
    record = Record(ONE, 1, RecordKind.STATE, b"state")
    desk.committer.write(CallbackWrite(ONE, lambda _: desk.write(TWO, 1), record))
    await desk.settles(1)
    assert desk.settled == [("22/1", None)]


async def test_what_stands_behind_a_rejected_write_of_its_channel_is_refused(desk: Desk) -> None:
    await desk.hold()
    desk.write(ONE, 2)
    desk.write(TWO, 1)
    desk.barrier(ONE)
    await desk.held()
    desk.write(ONE, 1)
    desk.write(TWO, 2)
    desk.journal.gate.set()
    await desk.settles(5)
    refused = [name for name, error in desk.settled if error is WriteRejectedError]
    assert refused == ["11/2", "barrier", "11/1"]
    assert [name for name, error in desk.settled if error is None] == ["22/1", "22/2"]
    assert desk.journal.highest_sequence_number(ONE) == 0
    assert desk.committer.statistics.rejected_records == 1


async def test_a_listener_that_fails_leaves_nobody_else_untold(desk: Desk) -> None:
    def fail(_: StorageError | None) -> None:
        raise ValueError("on purpose")

    desk.committer.write(CallbackWrite(TWO, fail, Record(TWO, 1, RecordKind.STATE, b"")))
    desk.write(ONE, 1)
    await desk.settles(1)
    assert desk.settled == [("11/1", None)]


async def test_a_defect_of_the_journal_is_an_error_to_whoever_waits(desk: Desk) -> None:
    def fail(_: int) -> None:
        raise ValueError("on purpose")

    desk.journal.on_recover = fail
    desk.write(ONE, 1)
    desk.recover(ONE)
    await until(lambda: bool(desk.recoveries))
    assert desk.settled == [("11/1", WriteUncertainError)]
    assert isinstance(desk.recoveries[0], ReadFailedError)
    desk.journal.on_recover = lambda _: None
    desk.write(TWO, 1)
    await desk.settles(2)
    assert desk.settled[-1] == ("22/1", None)


async def test_a_snapshot_replaces_what_it_covers_once_it_is_durable(desk: Desk) -> None:
    for number in (1, 2, 3):
        desk.write(ONE, number, Snapshot(ONE, number, 0, b"whole") if number < 3 else None)
        await desk.settles(number)
    recovery = desk.journal.recover(ONE)
    assert [record.sequence_number for record in desk.journal.recover(ONE).records] == [3]
    assert recovery.snapshot == Snapshot(ONE, 2, 0, b"whole")
    assert desk.journal.statistics().snapshots_deleted == 1


async def test_a_snapshot_that_was_left_out_replaces_nothing(desk: Desk) -> None:
    desk.write(ONE, 1)
    await desk.settles(1)
    desk.write(ONE, 3, Snapshot(ONE, 3, 0, b"whole"))
    await desk.settles(2)
    assert [record.sequence_number for record in desk.journal.recover(ONE).records] == [1]


async def test_a_full_queue_refuses_until_a_round_has_taken_it() -> None:
    desk = Desk(max_waiting=2)
    await desk.hold()
    desk.write(ONE, 1)
    await desk.held()
    for number in (2, 3):
        desk.committer.require_room()
        desk.write(ONE, number)
    with pytest.raises(OverloadedError):
        desk.committer.require_room()
    desk.journal.gate.set()
    await desk.settles(3)
    desk.committer.require_room()
    await desk.committer.close()


# --- Upkeep ---------------------------------------------------------------------------------------


async def test_an_idle_journal_gets_its_upkeep_until_there_is_no_more_to_do(desk: Desk) -> None:
    desk.journal.upkeep_steps = 5
    desk.write(ONE, 1)
    await desk.settles(1)
    await until(lambda: len(desk.journal.upkeeps) == 5)
    rounds = desk.committer.statistics.rounds
    desk.barrier(ONE)
    await desk.settles(2)
    assert desk.journal.upkeep_steps == 0
    assert rounds <= 6


async def test_a_journal_that_was_only_read_needs_no_upkeep() -> None:
    desk = Desk()
    desk.recover(ONE)
    await until(lambda: bool(desk.recoveries))
    await desk.committer.close()
    assert desk.journal.upkeeps == []


async def test_under_constant_load_every_sixteenth_round_has_its_step_of_upkeep(
    desk: Desk,
) -> None:
    numbers = iter(range(2, 42))

    def go_on(_: StorageError | None) -> None:
        # Asked for at the settling of the one before: no round ever finds the queue empty.
        number = next(numbers, None)
        if number is None:
            desk.settled.append(("end", None))
        else:
            record = Record(ONE, number, RecordKind.STATE, b"")
            desk.committer.write(CallbackWrite(ONE, go_on, record))

    desk.committer.write(CallbackWrite(ONE, go_on, Record(ONE, 1, RecordKind.STATE, b"")))
    await desk.settles(1)
    assert len(desk.journal.batches) == 41
    assert desk.journal.upkeeps[:2] == [16, 32]


async def test_a_failed_step_of_upkeep_harms_no_write(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = []

    def fail() -> bool:
        failures.append(1)
        raise JournalError("on purpose")

    monkeypatch.setattr(desk.journal, "upkeep", fail)
    desk.write(ONE, 1)
    await until(lambda: bool(failures))
    desk.write(ONE, 2)
    await desk.settles(2)
    assert [error for _, error in desk.settled] == [None, None]


async def test_forgetting_goes_with_a_later_round_and_asks_for_none(desk: Desk) -> None:
    desk.committer.forget(ONE)
    await asyncio.sleep(0)
    rounds: list[int] = []
    desk.committer.write(
        CallbackWrite(TWO, lambda _: rounds.append(desk.committer.statistics.rounds))
    )
    await until(lambda: bool(rounds))
    assert desk.journal.forgotten == [ONE]
    assert rounds == [1]


# --- A journal that does not answer ---------------------------------------------------------------


async def hanging() -> Desk:
    """Return a desk whose journal has been given up on in the middle of a commit."""
    desk = Desk(timeout=0.05)
    await desk.hold()
    desk.write(ONE, 1)
    await desk.held()
    desk.write(ONE, 2)
    desk.recover(TWO)
    await desk.settles(2)
    return desk


async def test_a_round_that_is_not_back_in_time_is_given_up_and_all_are_told() -> None:
    desk = await hanging()
    assert desk.settled == [("11/1", WriteUncertainError), ("11/2", WriteUncertainError)]
    assert isinstance(desk.recoveries[0], ReadFailedError)
    assert desk.committer.statistics.timed_out_rounds == 1
    desk.journal.gate.set()
    await desk.committer.close()


async def test_nothing_is_accepted_until_a_hanging_journal_answers() -> None:
    desk = await hanging()
    with pytest.raises(WriteUncertainError):
        desk.committer.require_room()
    desk.write(TWO, 1)
    desk.recover(TWO)
    await desk.settles(3)
    assert desk.settled[2:] == [("22/1", WriteUncertainError)]
    await until(lambda: len(desk.recoveries) == 2)
    assert isinstance(desk.recoveries[1], ReadFailedError)
    desk.journal.gate.set()
    await until(lambda: desk.committer.statistics.rounds >= 1)
    desk.committer.require_room()
    desk.write(TWO, 1)
    await desk.settles(4)
    assert desk.settled[3:] == [("22/1", None)]
    await desk.committer.close()


async def test_a_round_that_comes_back_late_settles_nothing_twice_and_is_fenced() -> None:
    desk = await hanging()
    desk.journal.gate.set()
    await until(lambda: desk.committer.statistics.rounds >= 1)
    # The late commit did write 1. Who believes that nothing of it is stored is refused.
    desk.write(ONE, 1)
    await desk.settles(3)
    assert [error for _, error in desk.settled] == [
        WriteUncertainError,
        WriteUncertainError,
        WriteRejectedError,
    ]
    assert desk.journal.highest_sequence_number(ONE) == 1
    await desk.committer.close()


def test_a_read_that_waited_for_its_round_too_long_is_refused_and_may_be_asked_again() -> None:
    async def work(clock: VirtualClock) -> Desk:
        desk = Desk(timeout=10.0, thread=NoThread())
        # A round serves 64 of them, in 6.4 s.
        desk.journal.on_recover = lambda _: clock.pass_by(0.1)
        for channel in range(1, 130):
            desk.recover(channel)
        desk.committer.recover(130, lambda _, __: desk.recover(131))
        await asyncio.sleep(60)
        return desk

    desk = run_virtually(work)
    assert desk.journal.recoveries == [*range(1, 129), 131]
    refused = [answer for answer in desk.recoveries if not isinstance(answer, Recovery)]
    assert [type(answer) for answer in refused] == [ReadFailedError]
    assert desk.committer.statistics.timed_out_rounds == 0
    assert desk.committer.statistics.rounds == 3


# --- Waiting for more ---------------------------------------------------------------------------


class Loop:
    """What the passes of a loop bring, and how long they take."""

    def __init__(self) -> None:
        self.now = 0.0
        self.commits: list[tuple[float, int]] = []
        """When, and of how many records."""

    def run(self, passes: Sequence[tuple[float, int]]) -> None:
        """Have each pass take so long, and then ask for so many writes."""
        written = sum(count for _, count in passes)

        async def work(_: VirtualClock) -> None:
            desk = Desk(gathering=Gathering(0.01, lambda: self.now), thread=NoThread())
            commit = desk.journal.commit

            def noted(batch: Batch) -> list[Rejection]:
                self.commits.append((self.now, len(batch.records)))
                return commit(batch)

            desk.journal.commit = noted  # type: ignore[method-assign] # a spy
            channels = itertools.count(100)
            for seconds, count in passes:
                self.now += seconds
                for channel in itertools.islice(channels, count):
                    desk.write(channel, 1)
                await asyncio.sleep(0)
            await desk.settles(written)

        run_virtually(work)


IDLE, BUSY = 0.000_005, 0.000_5


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_a_busy_loops_writes_share_a_commit(loop: Loop) -> None:
    loop.run([(BUSY, 1), (BUSY, 0), (IDLE, 0), (IDLE, 0), (BUSY, 2), (BUSY, 1), *[(IDLE, 0)] * 9])
    assert [count for _, count in loop.commits] == [4]


def test_a_commit_waits_no_longer_than_its_delay(loop: Loop) -> None:
    loop.run([(BUSY, 1)] * 30)
    (first, together), *_ = loop.commits
    assert first == pytest.approx(0.01 + BUSY)
    assert together == 21


def test_a_commit_of_many_does_not_wait(loop: Loop) -> None:
    loop.run([(BUSY, 31), (BUSY, 1), (BUSY, 1), *[(IDLE, 0)] * 9])
    assert [count for _, count in loop.commits] == [32, 1]


def test_who_calls_alone_waits_for_three_passes_only(loop: Loop) -> None:
    loop.run([(IDLE, 1), *[(IDLE, 0)] * 9, (IDLE, 1), *[(IDLE, 0)] * 9])
    assert [count for _, count in loop.commits] == [1, 1]
    assert loop.commits[0][0] <= 5 * IDLE


# --- Closing --------------------------------------------------------------------------------------


async def test_closing_waits_for_what_was_asked_for_then_releases_the_journal() -> None:
    desk = Desk()
    await desk.hold()
    desk.write(ONE, 1)
    await desk.held()
    desk.write(ONE, 2)
    closing = asyncio.ensure_future(desk.committer.close())
    await asyncio.sleep(0)
    assert not closing.done()
    desk.journal.gate.set()
    await asyncio.wait_for(closing, PATIENCE)
    assert [error for _, error in desk.settled] == [None, None]
    assert desk.journal.closed_after == 2


async def test_a_journal_that_hangs_is_not_waited_for_at_the_end() -> None:
    desk = Desk(timeout=0.05)
    desk.journal.gate.clear()
    desk.write(ONE, 1)
    await desk.settles(1)
    with pytest.raises(JournalHangsError, match="was not closed"):
        await desk.committer.close()
    desk.journal.gate.set()
