"""Conditions that end a load early."""

import pytest

from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.peer import Finished, Outcome, Peer, Pending
from connect_loadgen.drive.recording import Recorder
from connect_loadgen.drive.workload import Kind
from connect_loadgen.settings.stops import Tally, parse_stops, reason_to_stop
from connect_loadgen.settings.storms import Storm, parse_storms
from tests.support.loads import EchoEnd

MILLISECOND = 1_000_000


def reason(text: str, *milliseconds: int, wrong: int = 0, errors: int = 0) -> str | None:
    """Return why a load stops that has had operations that took so long, or failed."""
    conditions = parse_stops(text)
    recorder = Recorder(0, 10**12, conditions)
    outcomes = [Outcome.RIGHT] * len(milliseconds) + [Outcome.WRONG] * wrong
    outcomes += [Outcome.ERROR] * errors
    for outcome, taken in zip(outcomes, [*milliseconds, *[0] * (wrong + errors)], strict=True):
        pending = Pending(Kind.DECRYPT, Peer(EchoEnd()), b"", wire.Operation())
        recorder.record_finished(Finished(pending, outcome, "UNAVAILABLE"), taken * MILLISECOND)
    return reason_to_stop(conditions, recorder.tally())


def test_a_share_of_failures_above_the_bound_stops() -> None:
    assert reason("errors>0.01", *[1] * 198, wrong=1, errors=1) is None
    found = reason("errors>0.01", *[1] * 197, wrong=1, errors=2)
    assert found == "1.50% of the operations failed, more than 1.00%"


def test_a_percentile_above_the_bound_stops() -> None:
    assert reason("p99>50", *[1] * 198, 51, 51) is None
    assert reason("p99>50", *[1] * 197, 50, 50, 50) is None
    assert reason("p99>50", *[1] * 197, 51, 51, 51) == "p99 was above 50 ms"
    assert reason("p50>20", *[1] * 49, *[21] * 51) == "p50 was above 20 ms"
    assert reason("p99.9>20", *[1] * 998, 21, 21) == "p99.9 was above 20 ms"


def test_any_of_several_conditions_stops() -> None:
    assert reason("errors>0.5,p99>50,p50>9", *[10] * 100) == "p50 was above 9 ms"


def test_too_few_operations_stop_nothing() -> None:
    assert reason("errors>0", errors=99) is None
    assert reason("errors>0", errors=100) is not None


def test_no_condition_is_never_met() -> None:
    assert reason("", errors=1000) is None


def test_tallies_of_several_generators_are_added() -> None:
    assert Tally(100, 1, (2, 0)) + Tally(50, 3, (4, 5)) == Tally(150, 4, (6, 5))


@pytest.mark.parametrize(
    "text", ["errors", "errors>", "errors>x", "p99<3", "p0>1", "p100>1", "p99>1,,", "errors>-1"]
)
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected conditions as in"):
        parse_stops(text)


# --- Storms ---------------------------------------------------------------------------------------


def test_storms_come_in_the_order_of_time() -> None:
    assert parse_storms("") == ()
    assert parse_storms("reconnect@8.5, restore@2") == (
        Storm("restore", 2.0),
        Storm("reconnect", 8.5),
    )


@pytest.mark.parametrize(
    "text", ["hail@3", "restore", "restore@", "restore@-1", "restore@inf", ","]
)
def test_what_is_no_storm_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected storms as in"):
        parse_storms(text)
