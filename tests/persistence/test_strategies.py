"""The property that carries the project: all strategies recover the identical session.

A random history (both directions, losses, reordering, rotations, snapshots at random places) is
written by each strategy into a journal of its own; then, for a crash after *every* record, what
each journal recovers is compared with the live session of that moment.
"""

import contextlib
import copy
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_actor.errors import IdempotencyKeyReusedError, PeerError
from connect_actor.persistence.contract import (
    Batch,
    CorruptRecordError,
    Record,
    RecordKind,
    Recovery,
    Snapshot,
)
from connect_actor.persistence.memory import MemoryJournal
from connect_actor.persistence.recovery import rebuild
from connect_actor.persistence.strategies import STRATEGIES, Strategy
from connect_actor.protocol.changes import Change, Sent, encode_change
from connect_actor.protocol.handshake import ChannelLimits
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.session import Session
from tests.support.channels import NOW, Ends, make_ends

CHANNEL = 7

Move = tuple[Callable[["History", int], None], int]


class History:
    """What the service's end goes through: the session after each change, and the changes."""

    def __init__(self, ends: Ends) -> None:
        self.ends = ends
        self.sessions = [copy.deepcopy(ends.service)]
        self.changes: list[Change] = []
        self.snapshot_after: set[int] = set()
        self._to_service: list[Payload] = []
        self._arrived: list[Payload] = []
        self._to_peer: list[Payload] = []

    def service(self, _: int) -> None:
        payload, change = self.ends.service.encrypt(b"down", now=NOW, random=self.ends.random)
        self._to_peer.append(payload)
        self._note(change)

    def service_once(self, choice: int) -> None:
        """Encrypt under one of a few idempotency keys, anew or again."""
        session = self.ends.service
        if session.deliveries is None:
            return
        key, plaintext = b"%d" % (choice % 5), b"down %d" % (choice % 7)
        change = None
        try:
            again = session.encrypted_before(plaintext, now=NOW, idempotency_key=key)
        except IdempotencyKeyReusedError:
            pass
        else:
            if again is None:
                payload, change = session.encrypt(
                    plaintext, now=NOW, random=self.ends.random, idempotency_key=key
                )
                self._to_peer.append(payload)
        self._note(change)

    def peer(self, _: int) -> None:
        self._to_service.append(self.ends.up())

    def to_service(self, choice: int) -> None:
        if not self._to_service:
            return
        payload = self._to_service.pop(choice % len(self._to_service))
        try:
            plaintext, change = self.ends.service.decrypt(payload, now=NOW)
        except PeerError:
            # So late that its key has been given up.
            self._note(None)
            return
        assert plaintext == b"up"
        self._arrived.append(payload)
        self._note(change)

    def to_service_again(self, choice: int) -> None:
        if self._arrived:
            payload = self._arrived[-1 - choice % len(self._arrived)]
            again = self.ends.service.decrypted_before(payload, now=NOW)
            assert again is None or again.result == b"up"
            self._note(None)

    def to_peer(self, choice: int) -> None:
        if self._to_peer:
            payload = self._to_peer.pop(choice % len(self._to_peer))
            with contextlib.suppress(PeerError):
                assert self.ends.at_peer(payload).startswith(b"down")

    def lose(self, choice: int) -> None:
        if self._to_service:
            self._to_service.pop(choice % len(self._to_service))

    def acknowledge(self, choice: int) -> None:
        if newest := self.ends.service.last_delivery_number:
            self._note(self.ends.service.acknowledge(1 + choice % newest, now=NOW))

    def snapshot(self, _: int) -> None:
        self.snapshot_after.add(len(self.changes))

    def _note(self, change: Change | None) -> None:
        if change is None:
            assert self.ends.service == self.sessions[-1]
        else:
            self.changes.append(change)
            self.sessions.append(copy.deepcopy(self.ends.service))


# What happens next: the service sends, the peer sends, a message in flight arrives or is lost, or,
# where deliveries are kept, something is asked for again or acknowledged.
steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                History.service,
                History.service_once,
                History.peer,
                History.to_service,
                History.to_service_again,
                History.to_peer,
                History.lose,
                History.acknowledge,
                History.snapshot,
            ]
        ),
        st.integers(0, 1_000),
    ),
    max_size=60,
)


def live_through(ends: Ends, moves: list[Move]) -> History:
    history = History(ends)
    for move, choice in moves:
        move(history, choice)
    return history


def records_of(history: History, strategy: Strategy) -> list[Record]:
    records = [Record(CHANNEL, 1, RecordKind.STATE, strategy.state(history.sessions[0]))]
    for number, change in enumerate(history.changes, 2):
        kind, payload = strategy.record(history.sessions[number - 1], change)
        records.append(Record(CHANNEL, number, kind, payload))
    return records


@pytest.mark.parametrize("window", [0, 1, 5])
@pytest.mark.parametrize("every", [1, 2, 10])
@given(moves=steps, seed=st.integers(0, 1_000))
@settings(max_examples=40)
def test_every_strategy_recovers_the_live_session_after_a_crash_at_any_record(
    every: int, window: int, moves: list[Move], seed: int
) -> None:
    limits = ChannelLimits(dh_ratchet_every=every, max_skipped_keys=8, redelivery_window=window)
    ends = make_ends(seed, limits)
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
@settings(max_examples=25)
def test_a_recovered_session_goes_on_talking_with_its_peer(moves: list[Move], seed: int) -> None:
    ends = make_ends(seed, ChannelLimits(redelivery_window=5))
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
