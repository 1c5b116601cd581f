"""Several changes in one record come back as they went in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos.connect_actor.stored.v1 import session_pb2 as stored
from service.protocol.change_runs import MAX_CHANGES, ChangeRuns, decode_change_runs
from service.protocol.changes import (
    Acknowledged,
    Change,
    IdempotentSend,
    InconsistentChangeError,
    Received,
    ReceivedSkipped,
    Sent,
)

_ONCE = IdempotentSend(b"key", bytes(32), bytes(12), 1, 2)
_indexes = st.integers(0, 6)
_changes: st.SearchStrategy[Change] = st.one_of(
    st.builds(
        Sent, _indexes, st.sampled_from([b"", b"", bytes(32)]), st.sampled_from([None, _ONCE])
    ),
    st.builds(
        Received,
        _indexes,
        st.sampled_from([b"", b"", b"\x01" * 32]),
        st.just(0),
        st.sampled_from([b"", b"", bytes(16)]),
    ),
    st.builds(ReceivedSkipped, _indexes, st.integers(1, 3), st.just(b"")),
    st.builds(Acknowledged, st.integers(1, 3)),
)


def _runs_of(changes: list[Change]) -> ChangeRuns:
    runs = ChangeRuns(changes[0])
    for change in changes[1:]:
        runs.add(change)
    return runs


@given(st.lists(_changes, min_size=1, max_size=12))
def test_changes_come_back_in_order_whatever_they_are(changes: list[Change]) -> None:
    runs = _runs_of(changes)
    assert list(decode_change_runs(runs.encode())) == changes
    assert runs.single == (changes[0] if len(changes) == 1 else None)


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (Sent(5), Sent),
        (Received(5), Received),
        (Sent(0, bytes(32)), Sent),
        (Received(0, b"\1" * 32, 9), Received),
    ],
)
def test_messages_next_to_each_other_make_one_run(
    first: Change, kind: type[Sent | Received]
) -> None:
    assert isinstance(first, Sent | Received)
    changes: list[Change] = [first, *(kind(first.message_number + n) for n in range(1, 200))]
    encoded = _runs_of(changes).encode()
    assert len(stored.ChangeRuns.FromString(encoded).runs) == 1
    assert len(encoded) <= 60
    assert list(decode_change_runs(encoded)) == changes


def test_a_gap_a_turn_and_another_kind_begin_another_run() -> None:
    changes: list[Change] = [
        *(Sent(0), Sent(1), Sent(3)),
        *(Sent(4, bytes(32)), Sent(5)),
        *(Received(6), Received(7, digest=bytes(16)), Received(8)),
    ]
    encoded = _runs_of(changes).encode()
    assert [run.further for run in stored.ChangeRuns.FromString(encoded).runs] == [1, 0, 1, 0, 0, 0]
    assert list(decode_change_runs(encoded)) == changes


def test_a_record_has_an_end() -> None:
    runs = ChangeRuns(Sent(0))
    for number in range(1, MAX_CHANGES):
        assert not runs.full
        runs.add(Sent(number))
    assert runs.full
    assert sum(1 for _ in decode_change_runs(runs.encode())) == MAX_CHANGES


@pytest.mark.parametrize("kind", [stored.Change.ACKNOWLEDGED, stored.Change.KIND_UNSPECIFIED])
def test_what_can_t_be_a_run_is_refused(kind: stored.Change.Kind.ValueType) -> None:
    first = stored.Change(kind=kind, delivery_number=1)
    record = stored.ChangeRuns(runs=[stored.ChangeRun(first=first, further=1)])
    with pytest.raises(InconsistentChangeError):
        list(decode_change_runs(record.SerializeToString()))


def test_too_many_changes_are_refused_before_one_is_made() -> None:
    first = stored.Change(kind=stored.Change.SENT)
    runs = [stored.ChangeRun(first=first, further=MAX_CHANGES // 2) for _ in range(2)]
    with pytest.raises(InconsistentChangeError, match=f"holds {MAX_CHANGES + 2}"):
        next(decode_change_runs(stored.ChangeRuns(runs=runs).SerializeToString()))


@pytest.mark.parametrize("encoded", [b"", b"\xff\xff"])
def test_what_holds_no_changes_is_refused(encoded: bytes) -> None:
    with pytest.raises(InconsistentChangeError):
        list(decode_change_runs(encoded))
