"""``python -m benchmarks.journal``: our SQLite journal beside ``eventsourcing`` and a plain file.

The same records (100 bytes, of a thousand channels in turn) at 1, 10, 100 and 1,000 a commit, one
history after the other in one file, durable when the commit returns:

- *ours*: ``SqliteJournal``, as in production; *ours, unsealed*: the same without encryption;
- *eventsourcing*: the recorder that its applications use on SQLite. Both run in WAL mode with
  ``synchronous=FULL``: ours because it says so, the library's because that is SQLite's default,
  which this benchmark checks;
- *plain file*: preallocated, written in place, ``fdatasync``: what the disk allows.

*Steady state* is ours with what the service adds: every 50 records of a channel a snapshot of 2,500
bytes and the deletion of what it replaces. A step of upkeep in every 16 commits is part of all of
ours, as SQLite's automatic checkpoints are of the library's.

The contenders alternate commit by commit, so that the disk's moods meet all alike; each round
begins with fresh files. Takes some 40 s.
"""

import itertools
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

from eventsourcing.persistence import StoredEvent
from eventsourcing.sqlite import SQLiteApplicationRecorder, SQLiteDatastore
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.rounds import better_by, require, rounds_from_arguments, spread
from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.contract import Batch, Record, RecordKind, Snapshot
from connect_actor.persistence.sealing import Sealer
from connect_actor.persistence.sqlite.journal import SqliteJournal

# Ids as the service's: 63 random bits.
CHANNELS = random.Random(1).sample(range(1, 2**63), 1_000)
RECORD_BYTES = 100
# Records a commit, and how many commits of them are measured.
COMMITS = {1: 300, 10: 300, 100: 500, 1_000: 40}
STEADY_BATCH = 100
STEADY_COMMITS = 1_000
SNAPSHOT_INTERVAL = 50
SNAPSHOT_BYTES = 2_500
COMMITS_BETWEEN_UPKEEP = 16
_FULL = 2  # what PRAGMA synchronous answers

Commit = Callable[[Sequence[Record]], None]
"""Returns when the records are durable."""


# --- The contenders -------------------------------------------------------------------------------


@contextmanager
def _ours(directory: Path) -> Iterator[Commit]:
    with closing(_open(directory)) as journal:
        yield _commit_of(journal)


def _open(directory: Path) -> SqliteJournal:
    return SqliteJournal(
        directory / "journal.db", keys=KeyRing.of(os.urandom(32)), strategy="differential"
    )


def _commit_of(journal: SqliteJournal) -> Commit:
    commits = itertools.count(1)

    def commit(records: Sequence[Record]) -> None:
        require(not journal.commit(Batch(records)))
        if next(commits) % COMMITS_BETWEEN_UPKEEP == 0:
            journal.upkeep()

    return commit


class _NoSealer(Sealer):
    def seal(self, payload: bytes, context: bytes) -> bytes:
        del context
        return payload


@contextmanager
def _unsealed(directory: Path) -> Iterator[Commit]:
    with closing(_open(directory)) as journal:
        # The journal has no such option, and must not: only here is it of use.
        journal._usable().sealer = _NoSealer()  # noqa: SLF001
        yield _commit_of(journal)


@contextmanager
def _eventsourcing(directory: Path) -> Iterator[Commit]:
    datastore = SQLiteDatastore(str(directory / "events.db"))
    recorder = SQLiteApplicationRecorder(datastore)
    recorder.create_table()
    with datastore.transaction(commit=False) as cursor:
        for pragma, expected in (("synchronous", _FULL), ("journal_mode", "wal")):
            cursor.execute(f"PRAGMA {pragma}")
            require(cursor.fetchone()[0] == expected)
    names = {channel: uuid4() for channel in CHANNELS}

    def commit(records: Sequence[Record]) -> None:
        events = [
            StoredEvent(names[record.channel], record.sequence_number, "change", record.payload)
            for record in records
        ]
        recorder.insert_events(events)

    yield commit
    datastore.close()


@contextmanager
def _plain_file(directory: Path) -> Iterator[Commit]:
    file = os.open(directory / "plain", os.O_RDWR | os.O_CREAT)
    os.pwrite(file, bytes(RECORD_BYTES * _history_length()), 0)
    os.fsync(file)
    position = 0

    def commit(records: Sequence[Record]) -> None:
        nonlocal position
        position += os.pwrite(file, b"".join([record.payload for record in records]), position)
        os.fdatasync(file)

    yield commit
    os.close(file)


_OURS = "ours"
CONTENDERS: Final[Mapping[str, Callable[[Path], AbstractContextManager[Commit]]]] = {
    _OURS: _ours,
    "ours, unsealed": _unsealed,
    "eventsourcing": _eventsourcing,
    "plain file": _plain_file,
}


# --- The jobs -------------------------------------------------------------------------------------


def _history_length() -> int:
    return sum(batch * commits for batch, commits in COMMITS.items())


def _history() -> Iterator[Record]:
    """Yield the records of all channels in turn."""
    for number in itertools.count(1):
        for channel in CHANNELS:
            yield Record(channel, number, RecordKind.CHANGE, os.urandom(RECORD_BYTES))


def _take(history: Iterator[Record], count: int, commits: int) -> list[list[Record]]:
    return [list(itertools.islice(history, count)) for _ in range(commits)]


class Pace(NamedTuple):
    """How fast records became durable."""

    rate: float
    """Thousands a second."""
    cpu: float
    """Microseconds of the process's CPU for each."""


def _measure() -> dict[str, dict[int, Pace]]:
    """Return each contender's pace, by its name and how many records share a commit."""
    paces: dict[str, dict[int, Pace]] = {name: {} for name in CONTENDERS}
    history = _history()
    with ExitStack() as stack:
        commits = {
            name: stack.enter_context(contender(stack.enter_context(_fresh_directory())))
            for name, contender in CONTENDERS.items()
        }
        for size, count in COMMITS.items():
            stopwatches = {name: _Stopwatch() for name in CONTENDERS}
            for records in _take(history, size, count):
                for name in random.sample(list(CONTENDERS), len(CONTENDERS)):
                    stopwatches[name].measure(commits[name], records)
            for name, stopwatch in stopwatches.items():
                paces[name][size] = stopwatch.pace(size * count)
    return paces


class _Stopwatch:
    def __init__(self) -> None:
        self.seconds = self._cpu = 0.0

    def measure(self, commit: Commit, records: Sequence[Record]) -> None:
        begun, cpu_begun = time.perf_counter(), time.process_time()
        commit(records)
        self.seconds += time.perf_counter() - begun
        self._cpu += time.process_time() - cpu_begun

    def pace(self, records: int) -> Pace:
        return Pace(records / self.seconds / 1e3, self._cpu / records * 1e6)


@contextmanager
def _fresh_directory() -> Iterator[Path]:
    # Not in /tmp, which may be memory: there nothing is durable, and all is fast.
    results = Path("results")
    results.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=results) as directory:
        yield Path(directory)


class SteadyState(NamedTuple):
    """Ours with snapshots and what follows them, beside ours without."""

    bare: Pace
    full: Pace
    clean_up: float
    """Share of the latter's time that deletion and upkeep took, in per cent."""


def _measure_steady_state() -> SteadyState:
    bare, full, clean_up = _Stopwatch(), _Stopwatch(), _Stopwatch()
    with (
        _fresh_directory() as directory,
        _ours(directory) as commit_bare,
        _fresh_directory() as other_directory,
        closing(_open(other_directory)) as journal,
    ):

        def commit_full(records: Sequence[Record]) -> None:
            snapshots = [
                Snapshot(record.channel, record.sequence_number, 0, bytes(SNAPSHOT_BYTES))
                for record in records
                # The channels' snapshots are not due all at once.
                if (record.sequence_number + record.channel) % SNAPSHOT_INTERVAL == 0
            ]
            require(not journal.commit(Batch(records, snapshots)))
            clean_up.measure(lambda _: _clean_up(journal), records)

        for records in _take(_history(), STEADY_BATCH, STEADY_COMMITS):
            bare.measure(commit_bare, records)
            full.measure(commit_full, records)
        require(journal.statistics().records_deleted > 0)
    count = STEADY_BATCH * STEADY_COMMITS
    return SteadyState(bare.pace(count), full.pace(count), 100 * clean_up.seconds / full.seconds)


def _clean_up(journal: SqliteJournal) -> None:
    """Do what the committer does after some of the commits."""
    if journal.statistics().commits % COMMITS_BETWEEN_UPKEEP == 0:
        journal.upkeep()


class Figures(NamedTuple):
    """One round."""

    paces: Mapping[str, Mapping[int, Pace]]
    """By contender and records a commit."""
    steady: SteadyState


def _table(rounds: Sequence[Figures]) -> Table:
    table = Table(title=f"{len(rounds)} rounds: median (lowest to highest)", box=box.SIMPLE_HEAD)
    table.add_column("records a commit")
    table.add_column("thousand a second", justify="right")
    table.add_column("CPU for each", justify="right")
    table.add_column("ours is faster by", justify="right")
    for count in COMMITS:
        table.add_section()
        table.add_row(f"{count:,}", style="bold")
        ours = [figures.paces[_OURS][count].rate for figures in rounds]
        for name in CONTENDERS:
            paces = [figures.paces[name][count] for figures in rounds]
            faster = better_by([pace.rate for pace in paces], ours, more_is_better=True)
            table.add_row(f"  {name}", *_pace_cells(paces), "" if name == _OURS else faster)
    table.add_section()
    table.add_row(f"{STEADY_BATCH:,}, in steady state", style="bold")
    bare, full, clean_up = zip(*(figures.steady for figures in rounds), strict=True)
    faster = better_by(
        [pace.rate for pace in bare], [pace.rate for pace in full], more_is_better=True
    )
    table.add_row("  ours, bare", *_pace_cells(bare), faster)
    table.add_row("  ours", *_pace_cells(full), "")
    table.add_row("  of its time, clean-up", spread(clean_up, "%"))
    return table


def _pace_cells(paces: Sequence[Pace]) -> tuple[str, str]:
    return spread([pace.rate for pace in paces], ""), spread([pace.cpu for pace in paces], "µs")


def main() -> None:
    """Run the rounds and print the table."""
    count = rounds_from_arguments(__doc__)
    console = Console()
    with Progress(console=console, transient=True) as progress:
        rounds = [
            Figures(_measure(), _measure_steady_state())
            for _ in progress.track(range(count), description="rounds")
        ]
    console.print(_table(rounds))


if __name__ == "__main__":
    main()
