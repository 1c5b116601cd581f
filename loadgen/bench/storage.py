"""Benchmarks of stored forms: identity keys, chains, sessions, changes, records, recovery."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from google.protobuf.message import Message

from loadgen.bench.cases import Benchmark, Operation, Prepare
from loadgen.bench.sessions import make_ends, now
from protos.connect_actor.stored.v1 import session_pb2 as stored
from service.persistence.contract import Record, RecordKind, Recovery, Snapshot
from service.persistence.recovery import rebuild
from service.persistence.strategies import STRATEGIES
from service.protocol.changes import decode_change, encode_change
from service.protocol.session import Session

__all__ = ["BENCHMARKS"]

_SKIPPED = (0, 10, 50, 1_000)
# Held keys stay only while the peer's chain is the same.
_NEVER = 1_000_000


@contextmanager
def _encode_part(take: Callable[[Session], bytes], skipped: int, _: int) -> Iterator[Operation]:
    session = make_ends(skipped_keys=skipped, dh_ratchet_every=_NEVER).service
    yield partial(take, session)


@contextmanager
def _parse(message: type[Message], take: Callable[[Session], bytes], _: int) -> Iterator[Operation]:
    encoded = take(make_ends().service)
    yield partial(message.FromString, encoded)


@contextmanager
def _decode(skipped: int, _: int) -> Iterator[Operation]:
    encoded = make_ends(skipped_keys=skipped, dh_ratchet_every=_NEVER).service.encode()
    yield partial(Session.decode, encoded)


@contextmanager
def _encode_change(_: int) -> Iterator[Operation]:
    change = make_ends().service.encrypt(b"", now=now(), random=os.urandom)[1]
    yield partial(encode_change, change)


@contextmanager
def _apply_changes(calls: int) -> Iterator[Operation]:
    ends = make_ends(dh_ratchet_every=_NEVER)
    behind = Session.decode(ends.service.encode())
    changes = [
        encode_change(ends.service.encrypt(b"", now=now(), random=os.urandom)[1])
        for _ in range(calls)
    ]
    waiting = iter(changes)

    def operation() -> int:
        behind.apply(decode_change(next(waiting)))
        return 0 if behind.ratchet.sending is None else behind.ratchet.sending.next_index

    yield operation


@contextmanager
def _record(strategy_name: str, skipped: int, prekeys: int, _: int) -> Iterator[Operation]:
    strategy = STRATEGIES[strategy_name]()
    session = make_ends(
        skipped_keys=skipped, one_time_prekeys=prekeys, dh_ratchet_every=_NEVER
    ).service
    change = session.encrypt(b"", now=now(), random=os.urandom)[1]
    strategy.record(session, change)  # what is made once for a channel is made now
    yield lambda: strategy.record(session, change)[1]


@contextmanager
def _recover(strategy_name: str, records: int, _: int) -> Iterator[Operation]:
    strategy = STRATEGIES[strategy_name]()
    session = make_ends().service
    snapshot = Snapshot(1, 1, now(), strategy.state(session))
    written = []
    for number in range(2, records + 2):
        change = session.encrypt(b"", now=now(), random=os.urandom)[1]
        kind, payload = strategy.record(session, change)
        written.append(Record(1, number, RecordKind(kind), payload))
    recovery = Recovery(snapshot, written, records + 1)
    yield partial(rebuild, recovery)


def _made_bytes(result: object) -> bool:
    return isinstance(result, bytes) and len(result) > 0


def _made_session(result: object) -> bool:
    return isinstance(result, Session)


def _records() -> Iterator[Benchmark]:
    for skipped, prekeys in ((0, 10), (100, 10), (1_000, 10), (0, 100)):
        for strategy in STRATEGIES:
            prepare: Prepare = partial(_record, strategy, skipped, prekeys)
            yield Benchmark(
                f"record, {skipped:,} skipped keys, {prekeys} prekeys: {strategy}",
                prepare,
                _made_bytes,
                is_baseline=strategy == "full",
            )


def _recoveries() -> Iterator[Benchmark]:
    for records in (0, 10, 50):
        for strategy in STRATEGIES:
            yield Benchmark(
                f"recovery of {records} records: {strategy}",
                partial(_recover, strategy, records),
                _made_session,
                is_baseline=strategy == "full",
            )


BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        "to stored form: identity keys and handshake",
        partial(_encode_part, Session.encode_static, 0),
        _made_bytes,
    ),
    *(
        Benchmark(
            f"to stored form: ratchet, {skipped:,} skipped keys",
            partial(_encode_part, Session.encode_ratchet, skipped),
            _made_bytes,
        )
        for skipped in _SKIPPED
    ),
    *(
        Benchmark(
            f"to stored form: whole session, {skipped:,} skipped keys",
            partial(_encode_part, Session.encode, skipped),
            _made_bytes,
            is_baseline=skipped == 0,
        )
        for skipped in (0, 1_000)
    ),
    Benchmark(
        "from stored form: identity keys and handshake, parsed",
        partial(_parse, stored.SessionState, Session.encode_static),
        lambda made: isinstance(made, stored.SessionState) and made.HasField("channel_keys"),
    ),
    *(
        Benchmark(
            f"from stored form: whole session, {skipped:,} skipped keys",
            partial(_decode, skipped),
            _made_session,
            is_baseline=skipped == 0,
        )
        for skipped in _SKIPPED
    ),
    Benchmark("change: encode", _encode_change, _made_bytes, is_baseline=True),
    Benchmark("change: decode and apply", _apply_changes, lambda index: index == 2),
    *_records(),
    *_recoveries(),
)
