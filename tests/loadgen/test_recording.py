"""Counts and distributions: nothing is lost, and nothing is averaged that must not be."""

import pytest

from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.figures import Latency
from connect_loadgen.drive.peer import Finished, Outcome, Peer, Pending
from connect_loadgen.drive.recording import HIGHEST_MICROSECONDS, Histogram, Recorder
from connect_loadgen.drive.workload import Kind
from tests.support.loads import EchoEnd

MICROSECOND = 1_000
SECOND = 1_000_000_000


def summary_of(histogram: Histogram) -> Latency:
    summary = histogram.summary()
    assert summary is not None
    return summary


def filled(*microseconds: int) -> Histogram:
    histogram = Histogram()
    for value in microseconds:
        histogram.record(value * MICROSECOND)
    return histogram


# --- Histograms -----------------------------------------------------------------------------------


def test_percentiles_are_those_of_the_values_to_three_digits() -> None:
    summary = summary_of(filled(*range(1, 10_001)))
    assert summary.count == 10_000
    assert summary.mean_us == pytest.approx(5_000, rel=0.001)
    assert summary.p50_us == pytest.approx(5_000, rel=0.001)
    assert summary.p90_us == pytest.approx(9_000, rel=0.001)
    assert summary.p99_us == pytest.approx(9_900, rel=0.001)
    assert summary.p99_9_us == pytest.approx(9_990, rel=0.001)
    assert summary.p99_99_us == pytest.approx(9_999, rel=0.001)
    assert summary.max_us == pytest.approx(10_000, rel=0.001)


def test_merging_gives_the_percentiles_of_all_values_not_means_of_percentiles() -> None:
    # 99 fast ones there, 901 slow ones here: the mean of the medians would be 5,050.
    fast, slow = filled(*[100] * 99), filled(*[10_000] * 901)
    merged = summary_of(Histogram.merge([summary_of(fast).hdr, summary_of(slow).hdr]))
    assert merged == summary_of(filled(*[100] * 99, *[10_000] * 901))
    assert merged.count == 1_000
    assert merged.p50_us == pytest.approx(10_000, rel=0.001)


def test_merging_nothing_gives_nothing() -> None:
    assert Histogram.merge([]).summary() is None


def test_no_value_is_lost_between_buffer_and_histogram(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connect_loadgen.drive.recording._BUFFERED_VALUES", 8)
    histogram = filled(*range(1, 101), *range(1, 101))
    assert len(histogram._buffer) < 8
    assert summary_of(histogram).count == 200
    histogram.record(5 * MICROSECOND)
    assert summary_of(histogram).count == 201


@pytest.mark.parametrize(
    ("nanoseconds", "microseconds"),
    [(-5_000, 1), (0, 1), (999, 1), (1_999, 1), (2_000, 2), (90 * SECOND, 90_000_000)],
)
def test_a_duration_counts_in_whole_microseconds_but_at_least_one(
    nanoseconds: int, microseconds: int
) -> None:
    histogram = Histogram()
    histogram.record(nanoseconds)
    assert summary_of(histogram).max_us == pytest.approx(microseconds, rel=0.001)


def test_what_is_longer_than_an_hour_counts_as_an_hour() -> None:
    assert summary_of(filled(HIGHEST_MICROSECONDS * 5)).max_us == pytest.approx(
        HIGHEST_MICROSECONDS, rel=0.001
    )


# --- Recorders ------------------------------------------------------------------------------------


def finished(
    kind: Kind = Kind.ENCRYPT, outcome: Outcome = Outcome.RIGHT, status: str = "OK"
) -> Finished:
    pending = Pending(kind, Peer(EchoEnd()), b"", wire.Operation(), messages=1)
    pending.intended_at, pending.sent_at = 1 * SECOND, 3 * SECOND
    return Finished(pending, outcome, status)


def test_latency_counts_from_the_intended_and_service_time_from_the_actual_sending() -> None:
    recorder = Recorder(0, 10 * SECOND)
    recorder.record_finished(finished(), 7 * SECOND)
    assert summary_of(recorder.latency[Kind.ENCRYPT]).max_us == pytest.approx(6e6, rel=0.001)
    assert summary_of(recorder.service_time[Kind.ENCRYPT]).max_us == pytest.approx(4e6, rel=0.001)
    assert recorder.latency[Kind.DECRYPT].summary() is None


def test_what_is_answered_after_the_end_counts_in_the_totals_but_not_in_time() -> None:
    recorder = Recorder(0, 10 * SECOND)
    recorder.record_finished(finished(), 10 * SECOND)
    recorder.record_finished(finished(), 10 * SECOND + 1)
    assert (recorder.finished, recorder.finished_in_time) == (2, 1)
    assert (recorder.messages, recorder.messages_in_time) == (2, 1)
    assert summary_of(recorder.latency[Kind.ENCRYPT]).count == 2


def test_wrong_answers_and_errors_are_counted_and_have_no_latency() -> None:
    recorder = Recorder(0, 10 * SECOND)
    recorder.record_finished(finished(outcome=Outcome.WRONG), SECOND)
    recorder.record_finished(finished(outcome=Outcome.ERROR, status="UNAVAILABLE"), SECOND)
    recorder.record_finished(finished(outcome=Outcome.ERROR, status="UNAVAILABLE"), SECOND)
    assert recorder.finished == 3
    assert recorder.wrong == 1
    assert recorder.errors == {"UNAVAILABLE": 2}
    assert recorder.latency[Kind.ENCRYPT].summary() is None
