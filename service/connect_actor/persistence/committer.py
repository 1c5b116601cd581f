"""Group commit: the one way to the journal, from the event loop to a thread of its own and back.

Work goes in *rounds*. While one round is with the journal's thread, what arrives collects for the
next: all writes of a round share one transaction, then its reads are served. So there is never
more than one transaction under way, each carries as much as the load offers, and a read sees every
write that was asked for before it. A round with few writes and no reads may wait for more
(``persistence.gathering``).

Guarantees, whatever the journal does:

1. A write is settled exactly once, in the order in which writes were asked for: with None after
   its commit is durable, or with an error.
2. After a failed commit nothing that was queued behind it is tried, since it was computed from
   state that may not be durable: it fails too. So does what stands behind a rejected write of the
   same channel.
3. A round that is not back within its time limit is given up: its requests are answered with an
   error, and none is accepted until the journal answers again. A read that has waited for as long
   before its round begins is not tried: so every request is answered within twice the limit.

Everything but ``_Round.run`` happens on the event loop's thread.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum, auto
from time import perf_counter

from connect_actor.errors import (
    ChannelDamagedError,
    OverloadedError,
    ReadFailedError,
    StorageError,
    WriteRejectedError,
    WriteUncertainError,
)
from connect_actor.observe.counting import SIZES, Distribution
from connect_actor.persistence.contract import (
    Batch,
    CorruptRecordError,
    Journal,
    JournalError,
    JournalFencedError,
    JournalHangsError,
    Record,
    Recovery,
    Snapshot,
)
from connect_actor.persistence.gathering import Gathering

__all__ = [
    "CallbackWrite",
    "Committer",
    "CommitterStatistics",
    "Standing",
    "Write",
]

_log = logging.getLogger(__name__)

# Channels loaded between two commits: at about 0.1 ms each they hold a commit up by a few
# milliseconds at the most.
_READS_A_ROUND = 64
# Under constant load the journal still gets its upkeep: one bounded step in this many rounds.
_ROUNDS_BETWEEN_UPKEEP = 16
# Time limits of a round that closing waits for the journal to be done.
_CLOSING_ROUNDS = 4


class Standing(Enum):
    """What a channel is to whoever asks for it."""

    UNKNOWN = auto()
    """There is none; or it belongs to nobody, which to a principal is the same."""
    OWN = auto()
    FOREIGN = auto()
    """It is another's: nothing of it may show."""


class Write(ABC):
    """What is to be made durable together."""

    __slots__ = ("channel", "owner", "record", "snapshot")

    def __init__(
        self,
        channel: int,
        record: Record | None = None,
        snapshot: Snapshot | None = None,
        owner: bytes = b"",
    ) -> None:
        """Without a record and a snapshot, a barrier: settled when all before it are.

        ``owner`` goes with a channel's first record, if it has one.
        """
        self.channel = channel
        self.record = record
        self.snapshot = snapshot
        self.owner = owner

    @abstractmethod
    def settle(self, error: StorageError | None) -> None:
        """Take note that all of it is durable, or why not; called once, on the loop's thread."""


class CallbackWrite(Write):
    """A write that calls a function once it is settled."""

    __slots__ = ("_on_settled",)

    def __init__(
        self,
        channel: int,
        on_settled: Callable[[StorageError | None], None],
        record: Record | None = None,
        snapshot: Snapshot | None = None,
    ) -> None:
        """As ``Write``; ``on_settled`` gets what ``settle`` gets."""
        super().__init__(channel, record, snapshot)
        self._on_settled = on_settled

    def settle(self, error: StorageError | None) -> None:
        """See ``Write``."""
        self._on_settled(error)


class _Read:
    """A channel to recover, or to look up for an owner (``asker``)."""

    __slots__ = ("answer", "asked_at", "asker", "channel", "error", "on_answer")

    def __init__(
        self,
        channel: int,
        on_answer: "Callable[[Recovery | None, StorageError | None], None]",
        *,
        asked_at: float,
        asker: bytes | None = None,
    ) -> None:
        self.channel = channel
        self.on_answer = on_answer
        self.asked_at = asked_at
        self.asker = asker
        self.answer: Recovery | None = None
        self.error: StorageError | None = None

    def answered(self, error: StorageError | None = None) -> None:
        """Tell whoever asked, ``error`` or else what ``run`` has found."""
        error = error or self.error
        try:
            self.on_answer(None if error else self.answer, error)
        except Exception:  # noqa: BLE001 - whatever it may raise
            _log.exception("whoever asked for a read failed at its answer")

    def run(self, journal: Journal) -> None:
        try:
            if self.asker is None:
                self.answer = journal.recover(self.channel)
                return
            owner = journal.owner(self.channel)
            # For a principal the owner alone decides: one read, whether there is no such channel
            # or it is another's.
            highest = 0 if self.asker or owner else journal.highest_sequence_number(self.channel)
            self.answer = Recovery(None, (), highest, owner)
        except CorruptRecordError as error:
            self.error = ChannelDamagedError(
                f"what the journal holds of this channel is damaged: {error}"
            )
        except JournalError as error:
            self.error = ReadFailedError(
                f"the journal can't be read ({error}): try again after a pause"
            )


class _Task:
    """Something rare to be done with the journal, between two commits."""

    def __init__(self, action: Callable[[Journal], None], done: asyncio.Future[None]) -> None:
        self._action = action
        self._done = done
        self._error: JournalError | None = None

    def run(self, journal: Journal) -> None:
        try:
            self._action(journal)
        except JournalError as error:
            self._error = error

    def answered(self) -> None:
        """Tell whoever asked and still waits."""
        if self._done.done():
            return
        if self._error is None:
            self._done.set_result(None)
        else:
            self._done.set_exception(self._error)


@dataclass(slots=True)
class CommitterStatistics:
    """Counts since the start, for whoever publishes them."""

    rounds: int = 0
    commits: int = 0
    commit_duration: Distribution = field(default_factory=Distribution)
    """Seconds that each of those commits took in the journal."""
    commit_records: Distribution = field(default_factory=lambda: Distribution(SIZES))
    """Records asked for in each of those commits, refused ones included."""
    failed_commits: int = 0
    rejected_records: int = 0
    timed_out_rounds: int = 0


@dataclass(slots=True)
class _Round:
    """One trip to the journal's thread."""

    writes: list[Write]
    reads: list[_Read]
    forget: list[int]
    upkeep: bool
    tasks: list["_Task"]
    renew: bool
    failure: StorageError | None = None
    fenced: bool = False
    rejected: frozenset[Record | Snapshot] = frozenset()
    commit_seconds: float = 0.0
    records: int = 0
    more_upkeep: bool = False

    def run(self, journal: Journal) -> None:
        """Carry the round out. On the journal's thread; raises nothing that a journal raises."""
        try:
            if self.renew:
                journal.renew()
            if self.writes:
                self._commit(journal)
            for channel in self.forget:
                journal.forget(channel)
        except JournalFencedError as error:
            self.fenced = True
            self.failure = WriteRejectedError(f"{error}: try again on the one that has it")
        except JournalError as error:
            self.failure = WriteUncertainError(
                f"the journal did not confirm the write ({error}): its outcome is unknown;"
                " try again"
            )
        for read in self.reads:
            read.run(journal)
        for task in self.tasks:
            task.run(journal)
        if self.upkeep and not self.fenced:
            try:
                self.more_upkeep = journal.upkeep()
            except JournalError:
                _log.exception("journal upkeep failed; it is tried again later")

    def _commit(self, journal: Journal) -> None:
        # Of barriers alone the batch is empty: no commit, but it makes sure of the journal.
        records = [write.record for write in self.writes if write.record is not None]
        snapshots = [write.snapshot for write in self.writes if write.snapshot is not None]
        owners = [(write.channel, write.owner) for write in self.writes if write.owner]
        begun = perf_counter()
        rejections = journal.commit(Batch(records, snapshots, owners))
        if records or snapshots:
            self.commit_seconds = perf_counter() - begun
            self.records = len(records)
        self.rejected = frozenset(rejection.entry for rejection in rejections)


class Committer:
    """Owns a journal: nothing else may touch it."""

    def __init__(
        self,
        journal: Journal,
        loop: asyncio.AbstractEventLoop,
        *,
        max_waiting: int,
        timeout: float,
        renew_every: float = 3.0,
        gathering: Gathering | None = None,
        on_fenced: Callable[[], None] = lambda: None,
        thread: Executor | None = None,
    ) -> None:
        """Take the journal over.

        Args:
            journal: to be used from now on by this committer's thread alone.
            loop: the event loop on which writes are asked for and settled.
            max_waiting: writes that may wait for the next round.
            timeout: seconds within which a round must be back.
            renew_every: seconds between two signs of life; well within the journal's lease.
            gathering: whether a round with few writes waits for more; without, it does not.
            on_fenced: called once, if another writer has taken the journal over.
            thread: runs the journal's work, one piece at a time; by default a thread of its own.
        """
        self.statistics = CommitterStatistics()
        self._journal = journal
        self._loop = loop
        self._max_waiting = max_waiting
        self._timeout = timeout
        self._thread = thread or ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._writes: list[Write] = []
        self._reads: list[_Read] = []
        self._forget: list[int] = []
        self._tasks: list[_Task] = []
        self._renew_every = renew_every
        self._gathering = gathering or Gathering()
        self._needs_renewal = self._closing = False
        self._on_fenced: Callable[[], None] | None = on_fenced
        self._renewal = loop.call_later(renew_every, self._renew)
        self._round: _Round | None = None
        self._hangs = False  # the round under way has been given up
        self.settling = False
        """Whether writes of a round are being settled: some of what failed may not be told yet."""
        self._timer: asyncio.TimerHandle | None = None
        self._scheduled = False
        self._needs_upkeep = False
        self._since_upkeep = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        """Writes that wait for the next round."""
        return len(self._writes)

    # --- Requests ---------------------------------------------------------------------------------

    def require_room(self) -> None:
        """Check that another write would be accepted; to be called before work is done for it.

        Raises:
            OverloadedError: too many are waiting.
            WriteUncertainError: the journal does not answer.
        """
        if len(self._writes) >= self._max_waiting:
            raise OverloadedError(
                f"{self._max_waiting} writes are waiting for the journal: try again after a pause"
            )
        if self._hangs:
            raise self._hanging()

    def write(self, write: Write) -> None:
        """Ask for a write; it is settled later, never from within this call."""
        if self._hangs:
            self._loop.call_soon(_settle, (write,), self._hanging())
            return
        self._writes.append(write)
        if not self._scheduled and self._round is None:
            self._schedule()

    def recover(
        self, channel: int, on_answer: Callable[[Recovery | None, StorageError | None], None]
    ) -> None:
        """Ask for all that brings a channel back; exactly one of the answer's parts is given."""
        self._read(_Read(channel, on_answer, asked_at=self._loop.time()))

    def look_up(
        self,
        channel: int,
        owner: bytes,
        on_answer: Callable[[Standing, StorageError | None], None],
    ) -> None:
        """Ask what a channel is to an owner; in case of an error it is unknown."""

        def answered(recovery: Recovery | None, error: StorageError | None) -> None:
            if recovery is None or not (recovery.owner or recovery.highest_sequence_number):
                on_answer(Standing.UNKNOWN, error)
            elif recovery.owner == owner:
                on_answer(Standing.OWN, None)
            else:
                on_answer(Standing.FOREIGN, None)

        self._read(_Read(channel, answered, asked_at=self._loop.time(), asker=owner))

    def owned(self, owner: bytes) -> int:
        """Return how many channels an owner has, by what is durable."""
        return self._journal.owned(owner)

    def forget(self, channel: int) -> None:
        """Let the journal free its memory of a channel, in some later round."""
        self._forget.append(channel)

    async def perform(self, action: Callable[[Journal], None]) -> None:
        """Do something with the journal, on its thread and between two commits.

        Raises:
            JournalError: what the action raised.
        """
        done: asyncio.Future[None] = self._loop.create_future()
        self._tasks.append(_Task(action, done))
        self._schedule()
        await done

    def _read(self, read: _Read) -> None:
        if self._hangs:
            self._loop.call_soon(read.answered, self._unreadable())
            return
        self._reads.append(read)
        self._schedule()

    def _hanging(self) -> WriteUncertainError:
        return WriteUncertainError(
            f"the journal has not answered for {self._timeout:g} s: the outcome of writes is"
            " unknown; try again later"
        )

    def _unreadable(self) -> ReadFailedError:
        return ReadFailedError(
            f"the journal has not answered for {self._timeout:g} s: try again later"
        )

    def _renew(self) -> None:
        """Give a sign of life, and the journal its upkeep, however little there is to do."""
        self._needs_renewal = self._needs_upkeep = True
        self._renewal = self._loop.call_later(self._renew_every, self._renew)
        self._schedule()

    # --- Rounds -----------------------------------------------------------------------------------

    def _schedule(self) -> None:
        # Not at once: what the other actors' turns ask for in this pass of the loop joins in.
        if self._round is None and not self._scheduled:
            self._scheduled = True
            self._idle.clear()
            self._gathering.begin()
            self._loop.call_soon(self._gather)

    def _gather(self) -> None:
        """Begin the round, or let the loop do first what it has in hand, which may bring more."""
        urgent = self._reads or self._closing
        if not urgent and self._gathering.goes_on(len(self._writes)):
            self._loop.call_soon(self._gather)
        else:
            self._start_round()

    def _start_round(self) -> None:
        self._refuse_late_reads()
        # From here on only: whoever was refused may have asked again, which is part of this round.
        self._scheduled = False
        reads, self._reads = self._reads[:_READS_A_ROUND], self._reads[_READS_A_ROUND:]
        writes, self._writes = self._writes, []
        forget, self._forget = self._forget, []
        tasks, self._tasks = self._tasks, []
        renew, self._needs_renewal = self._needs_renewal, False
        self._since_upkeep += 1
        idle = not writes and not reads
        upkeep = self._needs_upkeep and (idle or self._since_upkeep >= _ROUNDS_BETWEEN_UPKEEP)
        if upkeep:
            self._since_upkeep = 0
        under_way = _Round(writes, reads, forget, upkeep, tasks, renew)
        self._round = under_way
        self._timer = self._loop.call_later(self._timeout, self._give_up, under_way)
        self._thread.submit(self._run, under_way)

    def _refuse_late_reads(self) -> None:
        """Only so many are served in a round, so that in a storm they may have to wait for many."""
        latest = self._loop.time() - self._timeout
        count = bisect_right(self._reads, latest, key=lambda read: read.asked_at)
        late, self._reads = self._reads[:count], self._reads[count:]
        for read in late:
            read.answered(self._unreadable())

    def _run(self, under_way: _Round) -> None:
        try:
            under_way.run(self._journal)
        except Exception:  # noqa: BLE001 - a defect of the journal must not leave anyone waiting
            _log.exception("the journal failed unexpectedly")
            under_way.failure = WriteUncertainError(
                "the journal failed unexpectedly: the write's outcome is unknown; try again"
            )
        finally:
            self._loop.call_soon_threadsafe(self._finish, under_way)

    def _finish(self, under_way: _Round) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._round = None
        gave_up, self._hangs = self._hangs, False
        self.statistics.rounds += 1
        if under_way.commit_seconds > 0.0:
            self.statistics.commits += 1
            self.statistics.commit_duration.add(under_way.commit_seconds)
            self.statistics.commit_records.add(under_way.records)
        self._needs_upkeep = (
            bool(under_way.writes)
            or under_way.more_upkeep
            or (self._needs_upkeep and not under_way.upkeep)
        )
        for task in under_way.tasks:
            task.answered()
        if gave_up:
            _log.warning("the journal answers again")
        else:
            self.settling = True
            self._answer(under_way)
            self.settling = False
        if under_way.fenced and self._on_fenced is not None:
            on_fenced, self._on_fenced = self._on_fenced, None
            on_fenced()
        more = self._writes or self._reads or self._tasks
        if more or (self._needs_upkeep and not self._closing):
            self._schedule()
        else:
            self._idle.set()

    def _answer(self, under_way: _Round) -> None:
        if under_way.failure is not None:
            self.statistics.failed_commits += 1
            queued = self._drop_queued()
            _settle(under_way.writes, under_way.failure)
            _settle(queued, under_way.failure)
        elif under_way.rejected:
            self._answer_partly(under_way)
        else:
            _settle(under_way.writes, None)
        for read in under_way.reads:
            if read.error is None and read.answer is None:
                read.error = ReadFailedError("the journal failed before it was read: try again")
            read.answered()

    def _drop_queued(self) -> list[Write]:
        queued, self._writes = self._writes, []
        return queued

    def _answer_partly(self, under_way: _Round) -> None:
        """Refuse what was rejected, and all that stands behind it on the same channel."""
        self.statistics.rejected_records += len(under_way.rejected)
        queued, self._writes = self._writes, []
        error = WriteRejectedError(
            "the record was refused, another writer may have been at work: try again"
        )
        lost: set[int] = set()
        for write in under_way.writes:
            if write.record in under_way.rejected or write.snapshot in under_way.rejected:
                lost.add(write.channel)
            _settle((write,), error if write.channel in lost else None)
        self._writes[:0] = [write for write in queued if write.channel not in lost]
        _settle((write for write in queued if write.channel in lost), error)

    def _give_up(self, under_way: _Round) -> None:
        """Answer everyone for a journal that doesn't; what it may still do is fenced by numbers."""
        self._hangs = self.settling = True
        self.statistics.timed_out_rounds += 1
        error = self._hanging()
        _log.error("the journal does not answer; giving up on one round")
        queued = self._drop_queued()
        unread, self._reads = self._reads, []
        _settle(under_way.writes, error)
        _settle(queued, error)
        for read in (*under_way.reads, *unread):
            read.answered(self._unreadable())
        self.settling = False

    async def close(self) -> None:
        """Finish what was asked for, then release the journal.

        Raises:
            JournalHangsError: the journal does not answer; its thread can't be ended.
        """
        self._closing = True
        self._renewal.cancel()
        try:
            # Long enough for a round under way, and for one with all that waits behind it.
            async with asyncio.timeout(_CLOSING_ROUNDS * self._timeout):
                await self._idle.wait()
            closing = self._loop.run_in_executor(self._thread, self._journal.close)
            await asyncio.wait_for(asyncio.shield(closing), self._timeout)
        except TimeoutError:
            raise JournalHangsError(
                "the journal does not answer and was not closed: what was acknowledged is durable"
            ) from None
        self._thread.shutdown()


def _settle(writes: Iterable[Write], error: StorageError | None) -> None:
    """Settle writes in order; one that fails at it is no reason to leave the others untold."""
    for write in writes:
        try:
            write.settle(error)
        except Exception:  # noqa: BLE001 - whatever it may raise
            _log.exception("whoever asked for a write failed at its settling")
