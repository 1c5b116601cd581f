"""A journal that hangs, is slow and fails: every request has one answer, within its deadline.

Time is virtual, so deadlines are compared exactly; only the journal's thread is real, and is waited
for where it has something to do.
"""

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from connect_actor.errors import StorageError, WriteRejectedError, WriteUncertainError
from connect_actor.persistence.committer import CallbackWrite, Committer
from connect_actor.persistence.contract import Record, RecordKind, Snapshot
from tests.faults.conftest import SEED, THOROUGH
from tests.support.journals import ScriptedJournal
from tests.support.process import PATIENCE
from tests.support.virtual_time import VirtualClock, run_virtually

TIMEOUT = 30.0


@dataclass
class Asked:
    """One request, and what became of it."""

    channel: int
    at: float
    is_write: bool
    answers: list[tuple[float, StorageError | None]] = field(default_factory=list)

    @property
    def error(self) -> StorageError | None:
        ((_, error),) = self.answers
        return error


class Counter:
    """Asks a committer, each time for another channel, and notes the answers."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.journal = ScriptedJournal()
        self.committer = Committer(self.journal, self.loop, max_waiting=1_000, timeout=TIMEOUT)
        self.asked: list[Asked] = []

    def ask(self, kind: str) -> Asked:
        asked = Asked(len(self.asked) + 1, self.loop.time(), kind in ("write", "snapshot"))
        self.asked.append(asked)

        def answer(error: StorageError | None) -> None:
            asked.answers.append((self.loop.time(), error))

        channel = asked.channel
        record = Record(channel, 1, RecordKind.STATE, b"state") if asked.is_write else None
        if kind == "recover":
            self.committer.recover(channel, lambda _, error: answer(error))
        elif kind == "look up":
            self.committer.look_up(channel, b"", lambda _, error: answer(error))
        else:
            snapshot = Snapshot(channel, 1, 1, b"whole") if kind == "snapshot" else None
            self.committer.write(CallbackWrite(channel, answer, record, snapshot))
        return asked

    def hang(self) -> None:
        self.journal.entered.clear()
        self.journal.gate.clear()

    async def run(self) -> None:
        """Let the journal's thread do what it can; virtual time stands still."""
        for _ in range(3):
            await asyncio.sleep(0)
            if self.journal.gate.is_set():
                self.committer._thread.submit(int).result(10)
            await asyncio.sleep(0)

    async def reach(self) -> None:
        """Let a commit begin that the journal does not answer."""
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert self.journal.entered.wait(PATIENCE)

    async def release(self) -> None:
        self.journal.gate.set()
        await self.run()

    def check(self) -> None:
        """Check that each request has its one answer, in time, and that the answers are true."""
        stored = {record.channel for record in self.journal.all_records}
        for asked in self.asked:
            ((at, error),) = asked.answers
            assert at - asked.at <= TIMEOUT
            if asked.is_write and error is None:
                assert asked.channel in stored
            elif isinstance(error, WriteRejectedError):
                assert asked.channel not in stored

    async def close(self) -> None:
        closing = asyncio.ensure_future(self.committer.close())
        while not closing.done():  # noqa: ASYNC110 - by turns, since time must stand still
            await asyncio.sleep(0)


KINDS = ("write", "snapshot", "barrier", "recover", "look up")


async def _hang(_: VirtualClock) -> None:
    counter = Counter()
    counter.hang()
    begun = counter.loop.time()
    first = counter.ask("write")
    await counter.reach()
    for second in range(1, 30):
        await asyncio.sleep(1)
        counter.ask(KINDS[second % len(KINDS)])
    assert [asked.answers for asked in counter.asked] == [[]] * 30
    await asyncio.sleep(2)
    for asked in counter.asked:
        ((at, error),) = asked.answers
        assert at == begun + TIMEOUT
        assert error is not None
    assert counter.committer.waiting == 0

    # Nothing is accepted, so nothing piles up, however long it takes.
    for kind in KINDS * 20:
        with pytest.raises(WriteUncertainError):
            counter.committer.require_room()
        asked = counter.ask(kind)
        assert asked.answers == []  # never from within the call
        await asyncio.sleep(0)
        assert [at for at, _ in asked.answers] == [asked.at]
        assert asked.error is not None
        await asyncio.sleep(60)
    assert counter.committer.waiting == 0

    await counter.release()
    counter.committer.require_room()
    after = [counter.ask(kind) for kind in KINDS]
    await counter.run()
    assert [asked.error for asked in after] == [None] * len(KINDS)
    assert len(first.answers) == 1
    # The commit that hung, and the one after it: what was refused meanwhile never got there.
    assert [len(batch.records) for batch in counter.journal.batches] == [1, 2]
    assert counter.committer.statistics.timed_out_rounds == 1


def test_a_hanging_journal_is_answered_for_at_the_deadline_and_takes_nothing_more() -> None:
    run_virtually(_hang)


async def _close(_: VirtualClock) -> None:
    counter = Counter()
    counter.hang()
    counter.ask("write")
    await counter.reach()
    counter.ask("write")
    await asyncio.sleep(TIMEOUT + 1)
    counter.journal.gate.set()
    counter.committer._thread.submit(int).result(10)
    await counter.close()
    assert [len(asked.answers) for asked in counter.asked] == [1, 1]
    assert counter.journal.closed_after == 1


def test_a_journal_that_hung_is_closed_once_it_is_back() -> None:
    run_virtually(_close)


def _schedule(seed: int) -> tuple[int, int]:
    """Run one random schedule; return how much was asked and how many rounds timed out."""

    async def run(_clock: VirtualClock) -> tuple[int, int]:
        source = random.Random(seed)
        counter = Counter()
        journal = counter.journal
        for _turn in range(40):
            for kind in source.choices(KINDS, k=source.randrange(4)):
                counter.ask(kind)
            trouble = source.randrange(10)
            if trouble == 0 and journal.gate.is_set():
                await counter.run()
                counter.hang()
                counter.ask("write")
                await counter.reach()
            elif trouble < 4:
                script = (journal.fail_before, journal.fail_after, journal.reject)[trouble - 1]
                script.append(True)
            if journal.gate.is_set():
                await counter.run()
            else:
                await asyncio.sleep(source.choice((0, 1, 10, 29, 45)))
                if source.random() < 0.3:
                    await counter.release()
        journal.fail_before, journal.fail_after, journal.reject = [], [], []
        await counter.release()
        await counter.run()
        counter.check()
        await counter.close()
        return len(counter.asked), counter.committer.statistics.timed_out_rounds

    return run_virtually(run)


@pytest.mark.timeout(3_600 if THOROUGH else 600)
def test_whatever_happens_every_request_has_one_answer_within_its_deadline() -> None:
    runs = [_schedule(seed) for seed in range(SEED, SEED + (1_000 if THOROUGH else 60))]
    asked, timed_out = (sum(figures) for figures in zip(*runs, strict=True))
    print(f"{len(runs)} schedules, {asked} requests, {timed_out} rounds timed out")  # noqa: T201
    assert timed_out > len(runs) // 2
