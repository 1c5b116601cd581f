"""Benchmarks of the journal on disk: records by the commit, and snapshots."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from loadgen.bench.cases import Benchmark, Operation, Prepare
from loadgen.bench.sessions import now
from service.persistence.contract import Batch, Record, RecordKind, Snapshot
from service.persistence.sqlite import SqliteJournal

__all__ = ["BENCHMARKS"]

_CHANNELS = 1_000
_RECORD = bytes(100)
_STATE = bytes(2_400)


@contextmanager
def _journal() -> Iterator[SqliteJournal]:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        journal = SqliteJournal(
            Path(directory, "journal.db"), master_key=os.urandom(32), strategy="differential"
        )
        try:
            yield journal
        finally:
            journal.close()


@contextmanager
def _append(records: int, _: int) -> Iterator[Operation]:
    with _journal() as journal:
        heights = dict.fromkeys(range(1, _CHANNELS + 1), 0)
        channels = itertools.cycle(heights)

        def operation() -> list[object]:
            batch = []
            for channel in itertools.islice(channels, records):
                heights[channel] += 1
                batch.append(Record(channel, heights[channel], RecordKind.CHANGE, _RECORD))
            return [*journal.commit(Batch(batch))]

        yield operation


@contextmanager
def _save_snapshot(_: int) -> Iterator[Operation]:
    with _journal() as journal:
        numbers = itertools.count(1)

        def operation() -> list[object]:
            number = next(numbers)
            record = Record(1, number, RecordKind.CHANGE, _RECORD)
            return [*journal.commit(Batch([record], [Snapshot(1, number, now(), _STATE)]))]

        yield operation


def _appends(records: int) -> Benchmark:
    prepare: Prepare = partial(_append, records)
    return Benchmark(
        f"journal append: {records:,} a commit",
        prepare,
        lambda rejections: rejections == [],
        operations=records,
        is_baseline=records == 1,
    )


BENCHMARKS: tuple[Benchmark, ...] = (
    *(_appends(records) for records in (1, 10, 100, 1_000)),
    Benchmark(
        "journal append: 1 a commit, with a snapshot",
        _save_snapshot,
        lambda rejections: rejections == [],
    ),
)
