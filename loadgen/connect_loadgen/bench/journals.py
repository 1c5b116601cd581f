"""Benchmarks of the journal on disk: records by the commit, snapshots, recovery."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.contract import Batch, Record, RecordKind, Rejection, Snapshot
from connect_actor.persistence.recovery import rebuild
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.persistence.strategies import STRATEGIES
from connect_actor.protocol.session import Session
from connect_loadgen.bench.cases import Benchmark, Operation, Prepare
from connect_loadgen.bench.sessions import make_ends, now

__all__ = ["BENCHMARKS"]

_CHANNELS = 1_000
_RECORD = bytes(100)
_STATE = bytes(2_400)


class _Committed(NamedTuple):
    """What a commit was given and what it answered, to look for in its journal."""

    journal: SqliteJournal
    batch: Batch
    rejections: list[Rejection]


def _is_stored(result: object) -> bool:
    return (
        isinstance(result, _Committed)
        and not result.rejections
        and all(
            result.journal.highest_sequence_number(record.channel) == record.sequence_number
            # A snapshot beside it takes its place.
            and (
                result.batch.snapshots
                or result.journal.recover(record.channel).records[-1] == record
            )
            for record in result.batch.records
        )
        and all(
            result.journal.recover(snapshot.channel).snapshot == snapshot
            for snapshot in result.batch.snapshots
        )
    )


@contextmanager
def _journal(strategy: str = "differential") -> Iterator[SqliteJournal]:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        journal = SqliteJournal(
            Path(directory, "journal.db"), keys=KeyRing.of(os.urandom(32)), strategy=strategy
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

        def operation() -> _Committed:
            records_now = []
            for channel in itertools.islice(channels, records):
                heights[channel] += 1
                records_now.append(Record(channel, heights[channel], RecordKind.CHANGE, _RECORD))
            batch = Batch(records_now)
            return _Committed(journal, batch, journal.commit(batch))

        yield operation


@contextmanager
def _save_snapshot(_: int) -> Iterator[Operation]:
    with _journal() as journal:
        numbers = itertools.count(1)

        def operation() -> _Committed:
            number = next(numbers)
            record = Record(1, number, RecordKind.CHANGE, _RECORD)
            batch = Batch([record], [Snapshot(1, number, now(), _STATE)])
            return _Committed(journal, batch, journal.commit(batch))

        yield operation


@contextmanager
def _recover(strategy_name: str, records: int, _: int) -> Iterator[Operation]:
    strategy = STRATEGIES[strategy_name]()
    session = make_ends().service
    with _journal(strategy_name) as journal:
        state = strategy.state(session)
        first = Record(1, 1, RecordKind.STATE, state)
        journal.commit(Batch([first], [Snapshot(1, 1, now(), state)]))
        for number in range(2, records + 2):
            change = session.encrypt(b"", now=now(), random=os.urandom)[1]
            kind, payload = strategy.record(session, change)
            journal.commit(Batch([Record(1, number, kind, payload)]))
        yield lambda: (rebuild(journal.recover(1)), session)


def _is_recovered(records: int, result: object) -> bool:
    match result:
        case (Session() as recovered, Session() as written):
            sending = recovered.ratchet.sending
            # One message was sent before the snapshot.
            return (
                recovered == written and sending is not None and sending.next_index == records + 1
            )
    return False


def _appends(records: int) -> Benchmark:
    prepare: Prepare = partial(_append, records)
    return Benchmark(
        f"journal append: {records} a commit",
        prepare,
        _is_stored,
        operations=records,
        is_baseline=records == 1,
    )


BENCHMARKS: tuple[Benchmark, ...] = (
    *(_appends(records) for records in (1, 10, 100, 1_000)),
    Benchmark(
        "journal append: 1 a commit with a snapshot",
        _save_snapshot,
        _is_stored,
    ),
    *(
        Benchmark(
            f"recovery of {records} records after a snapshot: {strategy}",
            partial(_recover, strategy, records),
            partial(_is_recovered, records),
            is_baseline=strategy == "full",
        )
        for records in (0, 10, 50)
        for strategy in STRATEGIES
    ),
)
