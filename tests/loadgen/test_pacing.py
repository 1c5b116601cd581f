"""When operations are sent, on a clock that only the test moves."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from itertools import pairwise

import pytest

from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.pacing import MAX_LATENESS, NO_ANSWER, Line
from connect_loadgen.drive.pacing import closed_loop as run_closed_loop
from connect_loadgen.drive.pacing import drain as run_drain
from connect_loadgen.drive.pacing import open_loop as run_open_loop
from connect_loadgen.drive.peer import Peers, Pending
from connect_loadgen.drive.recording import Recorder
from connect_loadgen.drive.transport import TransportError
from connect_loadgen.drive.workload import Kind
from connect_loadgen.settings.arrivals import Arrivals, Schedule
from tests.support.loads import EchoEnd, PacedService, echo, plan_of
from tests.support.virtual_time import SECOND, VirtualClock, run_virtually

# What the loop's waking up by whole milliseconds may add.
TICK = SECOND // 1000


def schedule_of(rate: float, begins_at: int, seconds: float = 60) -> Schedule:
    times = Arrivals.parse(str(rate)).times(seconds, random.Random(1), 0.0)
    return Schedule(times, begins_at)


class SpyingLine(Line):
    """A line that remembers what it sent."""

    def __init__(self, service: PacedService, clock: VirtualClock, seconds: float) -> None:
        peers = Peers([EchoEnd()], plan_of(Kind.ENCRYPT, Kind.DECRYPT))
        recorder = Recorder(clock(), clock() + int(seconds * SECOND))
        super().__init__(peers, service, recorder, clock)
        self.service = service
        self.submitted: list[Pending] = []
        service.listen(self)

    def submit(self, operations: list[Pending]) -> None:
        super().submit(operations)
        self.submitted += operations

    @property
    def begins_at(self) -> int:
        return self.recorder.begins_at

    def latencies_ms(self) -> list[int]:
        """Return the latencies of all kinds, in whole milliseconds, sorted."""
        found: list[int] = []
        for histogram in self.recorder.latency.values():
            histogram.summary()
            for item in histogram._histogram.get_recorded_iterator():
                found += [round(item.value_iterated_to / 1000)] * item.count_at_value_iterated_to
        return sorted(found)


Script = Callable[[SpyingLine], Coroutine[None, None, None]]


def loaded(service: PacedService, seconds: float, script: Script) -> SpyingLine:
    """Run a script of loops on a line and return the line."""

    async def work(clock: VirtualClock) -> SpyingLine:
        line = SpyingLine(service, clock, seconds)
        await script(line)
        return line

    return run_virtually(work)


def open_loop(
    service: PacedService,
    *,
    rate: float,
    seconds: float = 1.0,
    max_in_flight: int = 10_000,
    beside: Script | None = None,
) -> SpyingLine:
    """Run one open loop to its end, and a script beside it."""

    async def script(line: SpyingLine) -> None:
        meanwhile = asyncio.create_task(beside(line)) if beside is not None else None
        schedule = schedule_of(rate, line.begins_at)
        await run_open_loop(line, schedule=schedule, max_in_flight=max_in_flight)
        await run_drain(line, patience=30)
        if meanwhile is not None:
            await meanwhile

    return loaded(service, seconds, script)


# --- Open loop ------------------------------------------------------------------------------------


def test_intended_times_are_exact_and_all_there() -> None:
    line = open_loop(PacedService(), rate=300, seconds=2)
    intended = [pending.intended_at - line.begins_at for pending in line.submitted]
    assert intended == [number * SECOND // 300 for number in range(600)]
    assert line.recorder.sent == line.recorder.finished == 600


def test_intended_times_do_not_drift_in_a_day() -> None:
    schedule = schedule_of(3, 0, seconds=86_400)
    last = 0
    while schedule.next_at < 86_400 * SECOND:
        last = next(schedule.due(schedule.next_at))
    assert abs(last - (86_400 * SECOND - SECOND / 3)) <= 1


def test_nothing_is_sent_before_its_time() -> None:
    line = open_loop(PacedService(), rate=700)
    assert all(0 <= p.sent_at - p.intended_at <= 2 * TICK for p in line.submitted)


def test_sends_do_not_wait_for_answers() -> None:
    line = open_loop(PacedService(seconds=10), rate=100)
    assert line.service.most_unanswered == 100
    assert line.recorder.sent == 100


def test_a_stall_shows_in_the_latency_of_every_operation_it_delays() -> None:
    async def stall(line: SpyingLine) -> None:
        await asyncio.sleep(0.2)
        line.service.stall_until(asyncio.get_running_loop().time() + 0.5)

    line = open_loop(PacedService(seconds=0.001), rate=1000, seconds=1, beside=stall)
    latencies = line.latencies_ms()
    assert len(latencies) == 1000
    # 500 operations were due in half a second of silence: the n-th waited for the rest of it.
    delayed = [latency for latency in latencies if latency > 5]
    assert len(delayed) == pytest.approx(495, abs=5)
    assert max(delayed) == pytest.approx(500, abs=5)
    assert sum(delayed) / len(delayed) == pytest.approx(250, abs=5)


def test_latency_counts_from_when_an_operation_was_due_not_from_its_sending() -> None:
    async def pause(line: SpyingLine) -> None:
        await asyncio.sleep(0.3)
        # The generator itself is held up, by less than what makes it skip.
        clock = line.now
        assert isinstance(clock, VirtualClock)
        clock.pass_by(0.04)

    line = open_loop(PacedService(seconds=0.001), rate=1000, seconds=1, beside=pause)
    assert line.recorder.skipped_late == 0
    late = [latency for latency in line.latencies_ms() if latency > 5]
    assert len(late) == pytest.approx(36, abs=2)
    assert max(late) == pytest.approx(41, abs=2)
    lag, service_time = line.recorder.send_lag.summary(), line.recorder.service_time[Kind.ENCRYPT]
    assert lag is not None
    assert lag.max_us == pytest.approx(40_000, abs=1_500)
    # All but the answer that waited for the generator came as fast as ever.
    from_sending = service_time.summary()
    assert from_sending is not None
    assert from_sending.p99_us == pytest.approx(1_000, abs=100)


def test_what_the_generator_misses_by_much_is_skipped_counted_and_not_made_up_for() -> None:
    async def freeze(line: SpyingLine) -> None:
        await asyncio.sleep(0.3)
        clock = line.now
        assert isinstance(clock, VirtualClock)
        clock.pass_by(0.25)

    line = open_loop(PacedService(), rate=1000, seconds=1, beside=freeze)
    # Of 250 missed, those of the last 50 ms are sent.
    assert line.recorder.skipped_late == pytest.approx(200, abs=2)
    assert line.recorder.sent + line.recorder.skipped_late == 1000
    assert max(p.sent_at - p.intended_at for p in line.submitted) <= MAX_LATENESS


def test_at_the_cap_sends_are_skipped_counted_and_not_made_up_for() -> None:
    async def stall(line: SpyingLine) -> None:
        line.service.stall_until(asyncio.get_running_loop().time() + 0.5)

    line = open_loop(PacedService(), rate=100, seconds=1, max_in_flight=10, beside=stall)
    assert line.service.most_unanswered == 10
    assert line.recorder.skipped_at_cap == pytest.approx(40, abs=1)
    assert line.recorder.sent + line.recorder.skipped_at_cap == 100
    # After the stall it goes on at the rate: no two sends share a moment.
    moments = [pending.sent_at for pending in line.submitted]
    assert len(set(moments)) == len(moments)


def test_operations_due_together_go_out_in_full_batches() -> None:
    line = open_loop(PacedService(batch=16), rate=40_000, seconds=0.1)
    sizes = [len(batch) for batch in line.service.batches]
    assert sum(sizes) == 4000
    assert max(sizes) == 16


@pytest.mark.parametrize("rate", [0.5, 10])
def test_an_open_loop_lasts_as_long_as_its_phase(rate: float) -> None:
    line = open_loop(PacedService(), rate=rate, seconds=3)
    assert 3 * SECOND <= line.now() - line.begins_at <= 3.1 * SECOND


def test_follow_ups_are_sent_as_soon_as_they_can_be() -> None:
    async def script(line: SpyingLine) -> None:
        line.peers = Peers([EchoEnd()], plan_of(Kind.ROUND_TRIP))
        schedule = schedule_of(10, line.begins_at)
        await run_open_loop(line, schedule=schedule, max_in_flight=100)
        await run_drain(line, patience=1)

    line = loaded(PacedService(seconds=0.004), 1, script)
    latency = line.recorder.latency[Kind.ROUND_TRIP].summary()
    assert latency is not None
    assert latency.count == 10
    assert latency.max_us == pytest.approx(8_000, abs=2_000)
    assert line.recorder.messages == 20


# --- Closed loop ----------------------------------------------------------------------------------


def closed_loop(service: PacedService, *, concurrency: int, seconds: float = 1.0) -> SpyingLine:
    async def script(line: SpyingLine) -> None:
        await run_closed_loop(line, concurrency=concurrency)
        await run_drain(line, patience=30)

    return loaded(service, seconds, script)


def test_a_closed_loop_keeps_exactly_so_many_in_flight() -> None:
    line = closed_loop(PacedService(seconds=0.01), concurrency=7)
    assert line.service.most_unanswered == 7
    # 7 in flight, 10 ms each, for one second.
    assert line.recorder.sent == 700
    assert line.recorder.finished == 700


def test_a_closed_loop_sends_full_batches_and_never_exceeds_its_concurrency() -> None:
    line = closed_loop(PacedService(batch=4, seconds=0.01), concurrency=10)
    assert {len(batch) for batch in line.service.batches} == {4}
    assert line.service.most_unanswered == 8


def test_follow_ups_count_in_the_concurrency_of_a_closed_loop() -> None:
    async def script(line: SpyingLine) -> None:
        line.peers = Peers([EchoEnd()], plan_of(Kind.ROUND_TRIP))
        await run_closed_loop(line, concurrency=5)
        await run_drain(line, patience=1)

    line = loaded(PacedService(seconds=0.01), 1, script)
    assert line.service.most_unanswered == 5
    assert line.recorder.messages == 2 * line.recorder.finished
    assert line.recorder.sent == line.recorder.finished


def test_a_closed_loop_asks_a_stalled_service_less() -> None:
    async def script(line: SpyingLine) -> None:
        line.service.stall_until(asyncio.get_running_loop().time() + 0.5)
        await run_closed_loop(line, concurrency=2)

    line = loaded(PacedService(seconds=0.01), 1, script)
    assert line.recorder.sent == pytest.approx(100, abs=4)


# --- Draining, and failures -----------------------------------------------------------------------


def test_after_draining_nothing_is_in_flight_and_held_messages_are_sent() -> None:
    line = closed_loop(PacedService(seconds=0.3), concurrency=3)
    assert line.peers.unanswered == line.service.unanswered == 0
    assert line.recorder.finished == line.recorder.sent
    # What comes after the end counts in the totals, not in the rate.
    assert line.recorder.finished_in_time == 9
    assert line.recorder.finished == 12


def test_draining_gives_up_after_its_patience_and_counts_what_it_gave_up() -> None:
    swallowed: list[wire.Operation] = []

    def answer(operation: wire.Operation) -> wire.OperationResult | None:
        if operation.operation_id % 10 == 0:
            swallowed.append(operation)
            return None
        return echo(operation)

    line = open_loop(PacedService(answer=answer), rate=100)
    assert len(swallowed) == 10
    assert line.recorder.errors == {NO_ANSWER: 10}
    assert line.recorder.finished == 100
    assert line.peers.unanswered == 0


def test_an_answer_that_comes_after_all_is_no_wrong_answer_of_the_next_phase() -> None:
    async def script(line: SpyingLine) -> None:
        line.submit([line.peers.begin()])
        await run_drain(line, patience=1)
        line.recorders.append(Recorder(line.now(), line.now() + SECOND))
        await asyncio.sleep(2)

    line = loaded(PacedService(seconds=2), 0.1, script)
    assert line.recorders[0].errors == {NO_ANSWER: 1}
    assert line.service.unanswered == 0
    assert (line.recorder.wrong, line.recorder.finished) == (0, 0)


def test_an_answer_that_nobody_asked_for_is_wrong() -> None:
    def answer(operation: wire.Operation) -> wire.OperationResult:
        return wire.OperationResult(operation_id=operation.operation_id + 1_000_000)

    line = open_loop(PacedService(answer=answer), rate=10)
    assert line.recorder.wrong == 10
    assert line.recorder.errors == {NO_ANSWER: 10}


def test_a_cheating_service_is_caught_every_time() -> None:
    def answer(operation: wire.Operation) -> wire.OperationResult:
        result = echo(operation)
        if operation.operation_id % 4 == 0:
            result.decrypt.plaintext = b"not what was sent"
        return result

    line = open_loop(PacedService(answer=answer), rate=100)
    assert line.recorder.wrong == 25
    assert line.recorder.messages == 75


@pytest.mark.parametrize("loop", ["open", "closed", "drain"])
def test_a_broken_transport_ends_every_loop_at_once(loop: str) -> None:
    async def script(line: SpyingLine) -> None:
        asyncio.get_running_loop().call_later(0.2, line.service.fail, TransportError("it broke"))
        if loop == "open":
            schedule = schedule_of(100, line.begins_at)
            await run_open_loop(line, schedule=schedule, max_in_flight=9)
        elif loop == "closed":
            await run_closed_loop(line, concurrency=2)
        else:
            line.submit([line.peers.begin()])
            await run_drain(line, patience=30)

    with pytest.raises(TransportError, match="it broke"):
        loaded(PacedService(seconds=100), 60, script)


# --- Thinking, and stopping early -----------------------------------------------------------------


def thinking(seconds: float, *, concurrency: int, batch: int = 1) -> SpyingLine:
    async def script(line: SpyingLine) -> None:
        await run_closed_loop(line, concurrency=concurrency, think=lambda: seconds)
        await run_drain(line, patience=1)

    return loaded(PacedService(seconds=0.01, batch=batch), 1.1, script)


def test_a_user_that_thinks_sends_after_answer_and_thought() -> None:
    line = thinking(0.1, concurrency=1)
    gaps = [b.sent_at - a.sent_at for a, b in pairwise(line.submitted)]
    assert gaps == pytest.approx([0.11 * SECOND] * 9, abs=2 * TICK)


def test_users_that_think_do_not_wait_for_a_frame_to_fill() -> None:
    line = thinking(0.1, concurrency=3, batch=64)
    assert line.recorder.sent == 30
    assert line.service.most_unanswered == 3


@pytest.mark.parametrize("loop", ["open", "closed"])
def test_a_loop_that_is_stopped_ends_then_and_says_why(loop: str) -> None:
    async def script(line: SpyingLine) -> None:
        asyncio.get_running_loop().call_later(0.5, line.stop, "enough")
        if loop == "open":
            schedule = schedule_of(100, line.begins_at)
            await run_open_loop(line, schedule=schedule, max_in_flight=9)
        else:
            await run_closed_loop(line, concurrency=1)
        await run_drain(line, patience=1)

    line = loaded(PacedService(seconds=0.01), 60, script)
    assert line.stopped == "enough"
    assert line.recorder.ends_at - line.begins_at == pytest.approx(SECOND / 2, abs=2 * TICK)
    assert line.recorder.sent == line.recorder.finished == pytest.approx(50, abs=1)
    assert line.now() - line.begins_at < SECOND
