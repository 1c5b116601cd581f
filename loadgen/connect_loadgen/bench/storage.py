"""Benchmarks of stored forms: identity keys, chains, whole sessions, changes, records."""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from connect_actor.persistence.strategies import STRATEGIES
from connect_actor.protocol.changes import Sent, decode_change, encode_change
from connect_actor.protocol.session import Session
from connect_actor.stored.v1 import session_pb2 as stored
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.bench.cases import Benchmark, Operation, Prepare
from connect_loadgen.bench.sessions import make_ends, now

__all__ = ["BENCHMARKS"]

_SKIPPED = (0, 10, 50, 1_000)
# Held keys stay only while the peer's chain is the same.
_NEVER = 1_000_000


@contextmanager
def _encode_part(take: Callable[[Session], bytes], skipped: int, _: int) -> Iterator[Operation]:
    session = make_ends(skipped_keys=skipped, dh_ratchet_every=_NEVER).service
    yield partial(take, session)


@contextmanager
def _parse(take: Callable[[Session], bytes], skipped: int, _: int) -> Iterator[Operation]:
    encoded = take(make_ends(skipped_keys=skipped, dh_ratchet_every=_NEVER).service)
    yield partial(stored.SessionState.FromString, encoded)


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


def _held(state: stored.SessionState) -> int:
    return sum(len(chain.keys) for chain in state.ratchet.skipped)


def _is_ratchet(skipped: int, made: object) -> bool:
    if isinstance(made, bytes):
        made = stored.SessionState.FromString(made)
    return (
        isinstance(made, stored.SessionState)
        and len(made.ratchet.root_key) == 32
        and _held(made) == skipped
    )


def _is_static(made: object) -> bool:
    if isinstance(made, bytes):
        made = stored.SessionState.FromString(made)
    # Of the ten prekeys the handshake has used one.
    return isinstance(made, stored.SessionState) and len(made.channel_keys.one_time_prekeys) == 9


def _is_session(skipped: int, made: object) -> bool:
    if isinstance(made, bytes):
        made = Session.decode(made)
    return isinstance(made, Session) and made.ratchet.skipped_keys == skipped


def _is_record_of_state(skipped: int, prekeys: int, made: object) -> bool:
    if not isinstance(made, bytes):
        return False
    session = Session.decode(made)
    bundle = wire.EstablishRequest.FromString(session.handshake.request).bundle
    return session.ratchet.skipped_keys == skipped and len(bundle.one_time_prekeys) == prekeys


def _is_change(made: object) -> bool:
    return isinstance(made, bytes) and isinstance(decode_change(made), Sent)


def _records() -> Iterator[Benchmark]:
    for prekeys, skipped in itertools.product((10, 100), (0, 100, 1_000)):
        for strategy in STRATEGIES:
            prepare: Prepare = partial(_record, strategy, skipped, prekeys)
            yield Benchmark(
                f"record of {skipped} skipped keys and {prekeys} prekeys: {strategy}",
                prepare,
                _is_change
                if strategy == "differential"
                else partial(_is_record_of_state, skipped, prekeys),
                is_baseline=strategy == "full",
            )


def _chains(group: str, prepare: Callable[[int], Prepare]) -> Iterator[Benchmark]:
    for skipped in _SKIPPED:
        yield Benchmark(
            f"{group}: {skipped} skipped keys",
            prepare(skipped),
            partial(_is_ratchet, skipped),
            is_baseline=skipped == 0,
        )


def _sessions(group: str, prepare: Callable[[int], Prepare]) -> Iterator[Benchmark]:
    for skipped in _SKIPPED:
        yield Benchmark(
            f"{group}: {skipped} skipped keys",
            prepare(skipped),
            partial(_is_session, skipped),
            is_baseline=skipped == 0,
        )


BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        "identity keys and handshake: to stored form",
        partial(_encode_part, Session.encode_static, 0),
        _is_static,
        is_baseline=True,
    ),
    Benchmark(
        "identity keys and handshake: parsed from it",
        partial(_parse, Session.encode_static, 0),
        _is_static,
    ),
    *_chains(
        "ratchet to stored form", lambda held: partial(_encode_part, Session.encode_ratchet, held)
    ),
    *_chains("ratchet parsed from it", lambda held: partial(_parse, Session.encode_ratchet, held)),
    *_sessions("session to stored form", lambda held: partial(_encode_part, Session.encode, held)),
    *_sessions("session from stored form", lambda held: partial(_decode, held)),
    Benchmark("change: encode", _encode_change, _is_change, is_baseline=True),
    Benchmark("change: decode and apply", _apply_changes, lambda index: index == 2),
    *_records(),
)
