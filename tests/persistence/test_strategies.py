"""The property that carries the project: all strategies recover the identical session.

A random history (both directions, losses, reordering, rotations, snapshots at random places) is
written by each strategy into a journal of its own; then, for a crash after *every* record, what
each journal recovers is compared with the live session of that moment.
"""

import contextlib
import copy
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import PeerError
from service.persistence.contract import (
    Batch,
    CorruptRecordError,
    Record,
    RecordKind,
    Recovery,
    Snapshot,
)
from service.persistence.memory import MemoryJournal
from service.persistence.recovery import rebuild
from service.persistence.strategies import STRATEGIES, Strategy
from service.protocol.changes import Change, Sent, encode_change
from service.protocol.handshake import ChannelLimits
from service.protocol.payload import Payload
from service.protocol.session import Session
from tests.support.channels import NOW, Ends, make_ends

CHANNEL = 7

# What happens next: the service sends, the peer sends, or a message in flight arrives or is lost.
steps = st.lists(
    st.tuples(
        st.sampled_from(["service", "peer", "to_service", "to_peer", "lose", "snapshot"]),
        st.integers(0, 1_000),
    ),
    max_size=60,
)


@dataclass
class History:
    """What the service's end went through: the session after each change, and the changes."""

    sessions: list[Session]
    changes: list[Change]
    snapshot_after: set[int]


def live_through(ends: Ends, moves: list[tuple[str, int]]) -> History:
    history = History([copy.deepcopy(ends.service)], [], set())
    to_service: list[Payload] = []
    to_peer: list[Payload] = []

    def note(change: Change) -> None:
        history.changes.append(change)
        history.sessions.append(copy.deepcopy(ends.service))

    for move, choice in moves:
        if move == "service":
            payload, change = ends.service.encrypt(b"down", now=NOW, random=ends.random)
            to_peer.append(payload)
            note(change)
        elif move == "peer":
            to_service.append(ends.peer.encrypt(b"up", now=NOW, random=ends.random)[0])
        elif move == "to_service" and to_service:
            payload = to_service.pop(choice % len(to_service))
            try:
                plaintext, received = ends.service.decrypt(payload, now=NOW)
            except PeerError:
                # So late that its key has been given up.
                assert ends.service == history.sessions[-1]
                continue
            assert plaintext == b"up"
            note(received)
        elif move == "to_peer" and to_peer:
            with contextlib.suppress(PeerError):
                assert ends.at_peer(to_peer.pop(choice % len(to_peer))) == b"down"
        elif move == "lose" and to_service:
            to_service.pop(choice % len(to_service))
        elif move == "snapshot":
            history.snapshot_after.add(len(history.changes))
    return history


def records_of(history: History, strategy: Strategy) -> list[Record]:
    records = [Record(CHANNEL, 1, RecordKind.STATE, strategy.state(history.sessions[0]))]
    for number, change in enumerate(history.changes, 2):
        kind, payload = strategy.record(history.sessions[number - 1], change)
        records.append(Record(CHANNEL, number, kind, payload))
    return records


@pytest.mark.parametrize("every", [1, 2, 10])
@given(moves=steps, seed=st.integers(0, 1_000))
@settings(max_examples=40, deadline=None)
def test_every_strategy_recovers_the_live_session_after_a_crash_at_any_record(
    every: int, moves: list[tuple[str, int]], seed: int
) -> None:
    ends = make_ends(seed, ChannelLimits(dh_ratchet_every=every, max_skipped_keys=8))
    history = live_through(ends, moves)
    for make in STRATEGIES.values():
        strategy = make()
        snapshot = None
        records = records_of(history, strategy)
        for crash_after, live in enumerate(history.sessions):
            after_snapshot = 0 if snapshot is None else snapshot.sequence_number
            recovered = rebuild(
                Recovery(snapshot, records[after_snapshot : crash_after + 1], crash_after + 1)
            )
            assert recovered == live
            assert recovered is not None
            assert recovered.encode() == live.encode()
            if crash_after in history.snapshot_after:
                snapshot = Snapshot(CHANNEL, crash_after + 1, NOW, strategy.state(live))


@given(moves=steps, seed=st.integers(0, 1_000))
@settings(max_examples=25, deadline=None)
def test_a_recovered_session_goes_on_talking_with_its_peer(
    moves: list[tuple[str, int]], seed: int
) -> None:
    ends = make_ends(seed)
    history = live_through(ends, moves)
    for make in STRATEGIES.values():
        records = records_of(history, make())
        recovered = rebuild(Recovery(None, records, len(records)))
        assert recovered is not None
        peer = copy.deepcopy(ends.peer)
        for _ in range(12):
            payload, _ = recovered.encrypt(b"after the crash", now=NOW, random=ends.random)
            assert peer.decrypt(payload, now=NOW)[0] == b"after the crash"
            payload, _ = peer.encrypt(b"and back", now=NOW, random=ends.random)
            assert recovered.decrypt(payload, now=NOW)[0] == b"and back"


def test_a_journal_begun_by_one_strategy_is_continued_by_the_others() -> None:
    ends = make_ends()
    journal = MemoryJournal()
    journal.commit(Batch([Record(CHANNEL, 1, RecordKind.STATE, ends.service.encode())]))
    number = 1
    for name in ("full", "differential", "cached", "differential", "full", "differential"):
        strategy = STRATEGIES[name]()
        for _ in range(15):
            payload, change = ends.service.encrypt(b"x", now=NOW, random=ends.random)
            ends.peer.decrypt(payload, now=NOW)
            number += 1
            kind, stored = strategy.record(ends.service, change)
            journal.commit(Batch([Record(CHANNEL, number, kind, stored)]))
        assert rebuild(journal.recover(CHANNEL)) == ends.service


def test_a_channel_without_records_recovers_as_nothing() -> None:
    assert rebuild(Recovery(None, (), 0)) is None


def test_a_change_without_a_state_before_it_is_refused() -> None:
    record = Record(CHANNEL, 1, RecordKind.CHANGE, encode_change(Sent(0)))
    with pytest.raises(CorruptRecordError, match="no change of a state before it"):
        rebuild(Recovery(None, (record,), 1))


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (RecordKind.CHANGE, b"\xff\xff"),
        (RecordKind.CHANGE, b""),
        (RecordKind.CHANGE, encode_change(Sent(99))),
        (RecordKind.STATE, b"\xff\xff"),
        (RecordKind.STATE, b""),
    ],
    ids=["garbled", "empty", "of another moment", "garbled state", "empty state"],
)
def test_a_record_that_does_not_add_up_is_refused(kind: RecordKind, payload: bytes) -> None:
    state = Record(CHANNEL, 1, RecordKind.STATE, make_ends().service.encode())
    with pytest.raises(CorruptRecordError):
        rebuild(Recovery(None, (state, Record(CHANNEL, 2, kind, payload)), 2))


def sizes(strategy: Strategy, messages: int) -> tuple[list[int], list[int]]:
    """Return record sizes without and with a rotation, in a conversation both ways."""
    ends = make_ends()
    plain: list[int] = []
    turned: list[int] = []
    for _ in range(messages):
        payload, sent = ends.service.encrypt(b"x" * 64, now=NOW, random=ends.random)
        size = len(strategy.record(ends.service, sent)[1])
        (turned if sent.ratchet_private_key else plain).append(size)
        ends.peer.decrypt(payload, now=NOW)
        payload, _ = ends.peer.encrypt(b"x" * 64, now=NOW, random=ends.random)
        before = ends.service.ratchet.receiving_turns
        _, received = ends.service.decrypt(payload, now=NOW)
        size = len(strategy.record(ends.service, received)[1])
        (turned if ends.service.ratchet.receiving_turns > before else plain).append(size)
    return plain, turned


@pytest.mark.parametrize("name", ["full", "cached"])
def test_a_full_state_is_as_large_as_the_audited_servers(name: str) -> None:
    plain, turned = sizes(STRATEGIES[name](), 300)
    assert turned
    assert min(plain + turned) >= 2_200
    assert max(plain + turned) <= 3_200


def test_a_differential_record_is_tiny() -> None:
    plain, turned = sizes(STRATEGIES["differential"](), 300)
    assert turned
    assert max(plain) <= 16
    assert max(turned) <= 64


def test_cached_serialises_the_constant_parts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = make_ends()
    calls = 0
    original = Session.encode_static

    def counted(session: Session) -> bytes:
        nonlocal calls
        calls += 1
        return original(session)

    monkeypatch.setattr(Session, "encode_static", counted)
    strategy = STRATEGIES["cached"]()
    for _ in range(10):
        _, change = ends.service.encrypt(b"x", now=NOW, random=ends.random)
        strategy.record(ends.service, change)
    assert calls == 1
