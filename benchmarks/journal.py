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
ours, as SQLite's automatic checkpoints are of the library's. Its ratio is to ours without.

In each round the contenders run in another order, on fresh files. Takes some 60 s.
"""

import itertools
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
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
from service.persistence.contract import Batch, Record, RecordKind, Snapshot, SnapshotCriteria
from service.persistence.sealing import Sealer
from service.persistence.sqlite import SqliteJournal

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
        directory / "journal.db", master_key=os.urandom(32), strategy="differential"
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
        journal._sealer = _NoSealer(bytes(32))  # noqa: SLF001
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


def _measure(contender: Callable[[Path], AbstractContextManager[Commit]]) -> dict[int, Pace]:
    """Return the pace by how many records share a commit."""
    paces = {}
    history = _history()
    with _fresh_directory() as directory, contender(directory) as commit:
        for count, commits in COMMITS.items():
            batches = _take(history, count, commits)
            begun, cpu_begun = time.perf_counter(), time.process_time()
            for batch in batches:
                commit(batch)
            seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu_begun
            records = count * commits
            paces[count] = Pace(records / seconds / 1e3, cpu / records * 1e6)
    return paces


@contextmanager
def _fresh_directory() -> Iterator[Path]:
    # Not in /tmp, which may be memory: there nothing is durable, and all is fast.
    results = Path("results")
    results.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=results) as directory:
        yield Path(directory)


def _measure_steady_state() -> tuple[float, float]:
    """Return thousands of records a second in steady state, and the clean-up's share of it."""
    batches = _take(_history(), STEADY_BATCH, STEADY_COMMITS)
    clean_up = 0.0
    with _fresh_directory() as directory, closing(_open(directory)) as journal:
        begun = time.perf_counter()
        for number, records in enumerate(batches, 1):
            snapshots = [
                Snapshot(record.channel, record.sequence_number, 0, bytes(SNAPSHOT_BYTES))
                for record in records
                if (record.sequence_number + record.channel) % SNAPSHOT_INTERVAL == 0
            ]
            require(not journal.commit(Batch(records, snapshots)))
            clean_up_begun = time.perf_counter()
            for snapshot in snapshots:
                journal.delete_records(snapshot.channel, snapshot.sequence_number)
                journal.delete_snapshots(
                    snapshot.channel,
                    SnapshotCriteria(max_sequence_number=snapshot.sequence_number - 1),
                )
            if number % COMMITS_BETWEEN_UPKEEP == 0:
                journal.upkeep()
            clean_up += time.perf_counter() - clean_up_begun
        seconds = time.perf_counter() - begun
        require(journal.statistics().records_deleted > 0)
    return len(batches) * STEADY_BATCH / seconds / 1e3, clean_up / seconds


@dataclass(frozen=True, slots=True)
class Figures:
    """One round."""

    paces: Mapping[str, Mapping[int, Pace]]
    """By contender and records a commit."""
    steady_rate: float
    """Thousands of records a second."""
    steady_clean_up: float
    """Share of the time, from 0 to 1."""


def _round() -> Figures:
    order = random.sample(list(CONTENDERS), len(CONTENDERS))
    paces = {name: _measure(CONTENDERS[name]) for name in order}
    return Figures(paces, *_measure_steady_state())


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
            rates = [pace.rate for pace in paces]
            table.add_row(
                f"  {name}",
                spread(rates, ""),
                spread([pace.cpu for pace in paces], "µs"),
                "" if name == _OURS else better_by(rates, ours, more_is_better=True),
            )
    table.add_section()
    table.add_row(f"{STEADY_BATCH:,}, steady state", style="bold")
    steady = [figures.steady_rate for figures in rounds]
    without = [figures.paces[_OURS][STEADY_BATCH].rate for figures in rounds]
    clean_up = [figures.steady_clean_up * 100 for figures in rounds]
    faster = better_by(without, steady, more_is_better=True)
    table.add_row("  ours", spread(steady, ""), "", faster)
    table.add_row("  of its time, clean-up", spread(clean_up, "%"))
    return table


def main() -> None:
    """Run the rounds and print the table."""
    count = rounds_from_arguments(__doc__)
    console = Console()
    with Progress(console=console, transient=True) as progress:
        rounds = [_round() for _ in progress.track(range(count), description="rounds")]
    console.print(_table(rounds))


if __name__ == "__main__":
    main()
