"""Records of several changes, as journals of earlier releases hold them, are still read."""

import pytest

from connect_actor.protocol.changes import (
    MAX_CHANGES,
    Change,
    InconsistentChangeError,
    Received,
    Sent,
    decode_changes,
    encode_change,
)
from connect_actor.stored.v1 import session_pb2 as stored


def encode(*runs: tuple[Change, int]) -> bytes:
    message = stored.ChangeRuns()
    for first, further in runs:
        message.runs.add(first=stored.Change.FromString(encode_change(first)), further=further)
    return message.SerializeToString()


def test_runs_are_told_apart_and_come_in_order() -> None:
    key, digest = b"\1" * 32, bytes(16)
    encoded = encode((Sent(0), 1), (Sent(3, key), 0), (Received(6), 0), (Received(7, key, 9), 2))
    assert list(decode_changes(encoded)) == [
        *(Sent(0), Sent(1), Sent(3, key), Received(6)),
        *(Received(7, key, 9), Received(8), Received(9)),
    ]
    assert list(decode_changes(encode((Received(8, digest=digest), 0)))) == [
        Received(8, digest=digest)
    ]


def test_a_record_holds_a_bounded_number_of_changes() -> None:
    assert sum(1 for _ in decode_changes(encode((Sent(0), MAX_CHANGES - 1)))) == MAX_CHANGES
    half = (Sent(0), MAX_CHANGES // 2)
    with pytest.raises(InconsistentChangeError, match=f"holds {MAX_CHANGES + 2}"):
        next(decode_changes(encode(half, half)))


@pytest.mark.parametrize("kind", [stored.Change.ACKNOWLEDGED, stored.Change.KIND_UNSPECIFIED])
def test_what_can_t_be_a_run_is_refused(kind: stored.Change.Kind.ValueType) -> None:
    first = stored.Change(kind=kind, delivery_number=1)
    record = stored.ChangeRuns(runs=[stored.ChangeRun(first=first, further=1)])
    with pytest.raises(InconsistentChangeError):
        list(decode_changes(record.SerializeToString()))


@pytest.mark.parametrize("encoded", [b"", b"\xff\xff"])
def test_what_holds_no_changes_is_refused(encoded: bytes) -> None:
    with pytest.raises(InconsistentChangeError):
        list(decode_changes(encoded))
