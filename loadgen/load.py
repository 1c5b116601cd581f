"""One load on the channels of one service: warm up, measure, and say what happened.

Between the phases nothing is in flight, so costs are divided by exactly the messages that made
them. The rate counts what was answered within the measured time; latencies and costs count all
that was sent in it.
"""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from loadgen.pacing import SECOND, Line, UniformSchedule, closed_loop, drain, open_loop
from loadgen.peer import PeerEnd, Peers
from loadgen.recording import Recorder
from loadgen.results import Cost, LoadFigures, OperationLatency
from loadgen.self_check import SelfCheck
from loadgen.service_cost import Reading, cost_between
from loadgen.settings import LoadSettings
from loadgen.transport import Transport
from loadgen.workload import Workload

__all__ = ["Progress", "put_load"]

_PROGRESS_EVERY = 0.25


class Progress(Protocol):
    """Where a user sees that something happens."""

    def step(self, text: str) -> None:
        """Say what begins now."""

    def tick(self, share: float, text: str) -> None:
        """Say how much of the step is done, 0 to 1, and how it goes."""


async def put_load(
    transport: Transport,
    ends: Sequence[PeerEnd],
    settings: LoadSettings,
    *,
    read: Callable[[], Awaitable[Reading]] | None,
    progress: Progress,
    watch: Callable[[Line], None] | None = None,
) -> tuple[LoadFigures, Cost | None]:
    """Warm up, measure, and return what the load did and what it cost.

    Args:
        transport: the way to the service; its listener is replaced.
        ends: the peers' ends of the channels.
        settings: the load.
        read: reads the service's counters; without it there is no cost.
        progress: told how it goes.
        watch: given the line that the load goes over, before it does.

    Raises:
        TransportError: the transport failed.
        MetricsError: the counters can't be read.
    """
    now = time.perf_counter_ns
    peers = Peers(ends, Workload.of(settings).operations())
    warm_up = Recorder(now(), now())
    line = Line(peers, transport, warm_up, now)
    transport.listen(line)
    if watch is not None:
        watch(line)
    gc.collect()
    gc.freeze()
    try:
        if settings.warm_up_seconds:
            progress.step(f"warm-up, {settings.warm_up_seconds:g} s")
            warm_up = await _run_phase(line, settings, settings.warm_up_seconds, progress)
        before = None if read is None else await read()
        reordered = peers.reordered
        progress.step(f"measuring, {settings.duration_seconds:g} s")
        async with SelfCheck() as check:
            recorder = await _run_phase(line, settings, settings.duration_seconds, progress)
        after = None if read is None else await read()
    finally:
        gc.unfreeze()
    cost = None
    if before is not None and after is not None:
        cost = cost_between(before, after, recorder.messages)
    generator = check.verdict(recorder, None if cost is None else cost.cpu_share)
    is_open = settings.rate is not None
    figures = LoadFigures(
        model="open loop" if is_open else "closed loop",
        duration_seconds=settings.duration_seconds,
        intended_rate=settings.rate,
        operations_per_second=recorder.finished_in_time / settings.duration_seconds,
        messages_per_second=recorder.messages_in_time / settings.duration_seconds,
        operations_sent=recorder.sent,
        operations_finished=recorder.finished,
        messages=recorder.messages,
        reordered_messages=peers.reordered - reordered,
        # What went wrong while warming up went wrong all the same.
        verification_failures=warm_up.wrong + recorder.wrong,
        errors=dict(Counter(warm_up.errors) + recorder.errors),
        skipped_at_cap=recorder.skipped_at_cap,
        skipped_by_late_generator=recorder.skipped_late,
        latency=_latencies(recorder, is_open=is_open),
        generator=generator,
    )
    return figures, cost


async def _run_phase(
    line: Line, settings: LoadSettings, seconds: float, progress: Progress
) -> Recorder:
    begins_at = line.now()
    recorder = Recorder(begins_at, begins_at + int(seconds * SECOND))
    line.recorders.append(recorder)
    reporter = asyncio.create_task(_report(line, progress))
    try:
        if settings.rate is None:
            await closed_loop(line, concurrency=settings.concurrency)
        else:
            await open_loop(
                line,
                schedule=UniformSchedule(settings.rate, begins_at),
                max_in_flight=settings.max_in_flight,
            )
        await drain(line, patience=settings.timeout_seconds)
    finally:
        reporter.cancel()
    return recorder


async def _report(line: Line, progress: Progress) -> None:
    recorder = line.recorder
    then, messages = recorder.begins_at, 0
    while True:
        await asyncio.sleep(_PROGRESS_EVERY)
        now = line.now()
        rate = (recorder.messages - messages) * SECOND / (now - then)
        then, messages = now, recorder.messages
        progress.tick(
            min((now - recorder.begins_at) / (recorder.ends_at - recorder.begins_at), 1.0),
            f"{rate:,.0f} messages/s, {line.peers.unanswered:,} in flight,"
            f" {recorder.errors.total():,} errors, {recorder.wrong:,} wrong",
        )


def _latencies(recorder: Recorder, *, is_open: bool) -> dict[str, OperationLatency]:
    latencies = {}
    for kind, histogram in recorder.service_time.items():
        service_time = histogram.summary()
        if service_time is not None:
            latencies[kind.value] = OperationLatency(
                from_intended_send=recorder.latency[kind].summary() if is_open else None,
                service_time=service_time,
            )
    return latencies
