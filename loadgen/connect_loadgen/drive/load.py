"""One load on the channels of one service: warm up, measure, and say what happened.

Between the phases nothing is in flight, so costs are divided by exactly the messages that made
them. The rate counts what was answered within the measured time; latencies and costs count all
that was sent in it.
"""

import asyncio
import gc
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from connect_loadgen.drive.channels import ChannelEnd
from connect_loadgen.drive.figures import LoadFigures, OperationLatency
from connect_loadgen.drive.lifecycle import Lifecycle
from connect_loadgen.drive.pacing import SECOND, Line, closed_loop, drain, open_loop
from connect_loadgen.drive.peer import Peers
from connect_loadgen.drive.recording import Recorder
from connect_loadgen.drive.self_check import SelfCheck
from connect_loadgen.drive.transport import Transport
from connect_loadgen.drive.turns import take_turns
from connect_loadgen.drive.workload import Workload
from connect_loadgen.program.ending import ending
from connect_loadgen.service.cost import Cost, Reading, cost_between
from connect_loadgen.service.endpoint import Endpoint
from connect_loadgen.settings.arrivals import Arrivals, Schedule
from connect_loadgen.settings.draws import Draws
from connect_loadgen.settings.load import LoadSettings
from connect_loadgen.settings.stops import Tally, parse_stops, reason_to_stop
from connect_loadgen.settings.types import LONGEST_THOUGHT

__all__ = ["Load", "Loading", "Progress", "put_load"]

_PROGRESS_EVERY = 0.25

# How often the conditions for stopping early are looked at.
_CHECKED_EVERY = 0.25


class Progress(Protocol):
    """Where a user sees that something happens."""

    def step(self, text: str) -> None:
        """Say what begins now."""

    def tick(self, share: float, text: str) -> None:
        """Say how much of the step is done, 0 to 1, and how it goes."""


class Loading(Protocol):
    """A load, by whichever means: to be warmed up, measured, and asked for its figures."""

    @property
    def messages(self) -> int:
        """Messages of the measured time, right ones."""

    async def warm_up(self) -> None:
        """Put load on the service that is not measured; then nothing is in flight."""

    async def measure(self) -> None:
        """Put load on the service and measure it; then nothing is in flight.

        It can be done again: each time on the same channels, with figures of its own.
        """

    def stop(self, reason: str) -> None:
        """End the measuring now; nothing if it is over. What was measured stays."""

    def figures(self, service_cpu_share: float | None) -> LoadFigures:
        """Return what was measured."""

    def ends(self) -> list[ChannelEnd]:
        """Return the peers' ends of all channels, as the measured load left them."""


class Load:
    """One load: to be warmed up, measured, and asked for its figures, in this order."""

    def __init__(
        self,
        transport: Transport,
        ends: list[ChannelEnd],
        settings: LoadSettings,
        endpoint: Endpoint,
        progress: Progress,
        *,
        part: tuple[int, int] = (0, 1),
        judge: Callable[[Tally], str | None] | None = None,
    ) -> None:
        """Prepare; nothing is sent yet.

        Args:
            transport: the way to the service; its listener is replaced.
            ends: the peers' ends of the channels; churn replaces them in place.
            settings: the load.
            endpoint: of the service, for what goes over other connections.
            progress: told how it goes.
            part: of how many equal parts of the rate this load is which, from 0.
            judge: says from time to time why to stop, if the settings have conditions for it;
                they are applied to this load alone if it is not given.
        """
        now = time.perf_counter_ns
        self._settings = settings
        self._ends = ends
        self._endpoint = endpoint
        self._progress = progress
        self._chance = random.Random(settings.seed)  # noqa: S311 - a load to be repeated
        self._warm_up = self._measured = Recorder(now(), now())
        self._reordered_before = 0
        self._check: SelfCheck | None = None
        index, parts = part
        self._offset = index / parts
        rate = settings.rate
        self._arrivals = None if rate is None else Arrivals.parse(rate).divided(parts)
        conditions = parse_stops(settings.stop_if)
        self._conditions = conditions
        self._judge = judge or (lambda tally: reason_to_stop(conditions, tally))
        peers = Peers(ends, Workload.of(settings).operations())
        self.line = Line(peers, transport, self._warm_up, now)
        transport.listen(self.line)

    @property
    def messages(self) -> int:
        """Messages of the measured time, right ones."""
        return self._measured.messages

    def ends(self) -> list[ChannelEnd]:
        """Return the peers' ends of all channels, as they are now."""
        return self._ends

    async def warm_up(self) -> None:
        """Put load on the service that is not measured.

        Raises:
            TransportError: the transport failed.
        """
        settings = self._settings
        if settings.warm_up_seconds:
            self._progress.step(f"warm-up, {settings.warm_up_seconds:g} s")
            arrivals = None if self._arrivals is None else self._arrivals.at_its_beginning()
            self._warm_up = await self._run_phase(settings.warm_up_seconds, arrivals)

    async def measure(self) -> None:
        """Put load on the service for the measured time, or until a condition stops it.

        Raises:
            TransportError: the transport failed.
        """
        settings = self._settings
        self.line.stopped = None
        self._reordered_before = self.line.peers.reordered
        self._progress.step(f"measuring, {settings.duration_seconds:g} s")
        gc.collect()
        gc.freeze()
        try:
            async with SelfCheck() as self._check:
                self._measured = await self._run_phase(
                    settings.duration_seconds, self._arrivals, is_measured=True
                )
        finally:
            gc.unfreeze()

    def stop(self, reason: str) -> None:
        """End the measuring now; nothing if it is over. What was measured stays."""
        self.line.stop(reason)

    def figures(self, service_cpu_share: float | None) -> LoadFigures:
        """Return what was measured.

        Args:
            service_cpu_share: CPU seconds per second of the service meanwhile, if known.
        """
        if self._check is None:
            raise RuntimeError("nothing was measured yet")
        recorder, warm_up = self._measured, self._warm_up
        seconds = (recorder.ends_at - recorder.begins_at) / SECOND
        is_open = self._arrivals is not None
        lifecycle = {name: found.summary() for name, found in recorder.lifecycle.items()}
        return LoadFigures(
            model="open loop" if is_open else "closed loop",
            duration_seconds=seconds,
            intended_rate=None if self._arrivals is None else self._arrivals.mean_rate,
            operations_per_second=recorder.finished_in_time / seconds,
            messages_per_second=recorder.messages_in_time / seconds,
            operations_sent=recorder.sent,
            operations_finished=recorder.finished,
            messages=recorder.messages,
            reordered_messages=self.line.peers.reordered - self._reordered_before,
            # What went wrong while warming up went wrong all the same.
            verification_failures=warm_up.wrong + recorder.wrong,
            errors=dict(Counter(warm_up.errors) + recorder.errors),
            skipped_at_cap=recorder.skipped_at_cap,
            skipped_by_late_generator=recorder.skipped_late,
            latency=_latencies(recorder, is_open=is_open),
            lifecycle={name: found for name, found in lifecycle.items() if found is not None},
            replacements_skipped=recorder.replacements_skipped,
            stopped=self.line.stopped,
            generator=self._check.verdict(recorder, service_cpu_share),
        )

    async def _run_phase(
        self, seconds: float, arrivals: Arrivals | None, *, is_measured: bool = False
    ) -> Recorder:
        line, settings = self.line, self._settings
        begins_at = line.now()
        conditions = self._conditions if is_measured else ()
        recorder = Recorder(begins_at, begins_at + int(seconds * SECOND), conditions)
        line.recorders.append(recorder)
        beside = [asyncio.create_task(_report(line, self._progress))]
        if conditions:
            beside.append(asyncio.create_task(_stop_when_due(line, self._judge)))
        try:
            async with asyncio.TaskGroup() as tasks:
                if is_measured and (settings.churn_rate or settings.storms):
                    lifecycle = Lifecycle(line, self._ends, settings, self._endpoint)
                    tasks.create_task(lifecycle.run())
                if arrivals is None:
                    await self._closed_loop(seconds)
                elif settings.alternate_seconds is None:
                    await self._open_loop(arrivals, seconds)
                else:
                    loops = (partial(self._open_loop, arrivals), self._closed_loop)
                    await take_turns(line, settings.alternate_seconds, loops)
                await drain(line, patience=settings.timeout_seconds)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            for task in beside:
                task.cancel()
        return recorder

    async def _open_loop(self, arrivals: Arrivals, seconds: float) -> None:
        times = arrivals.times(seconds, self._chance, self._offset)
        await open_loop(
            self.line,
            schedule=Schedule(times, self.line.now()),
            max_in_flight=self._settings.max_in_flight,
        )

    async def _closed_loop(self, _: float) -> None:
        await closed_loop(self.line, concurrency=self._settings.concurrency, think=self._think())

    def _think(self) -> Callable[[], float] | None:
        """Return what draws the time that a user thinks, if users do."""
        thoughts = Draws.parse(self._settings.think_seconds, LONGEST_THOUGHT)
        if not thoughts.highest:
            return None
        return lambda: thoughts.take(self._chance, 1)[0]


async def put_load(
    load: Loading,
    read: Callable[[], Awaitable[Reading]] | None,
    *,
    keeps_what_it_has: bool = False,
) -> tuple[LoadFigures, Cost | None]:
    """Warm up, measure, and return what the load did and what it cost.

    Args:
        load: not begun yet.
        read: reads the service's counters; without it there is no cost.
        keeps_what_it_has: whether an early end of the command, once the measuring has begun, only
            makes it shorter.

    Raises:
        TransportError: the transport failed.
        MetricsError: the counters can't be read.
    """
    await load.warm_up()
    before = None if read is None else await read()
    if keeps_what_it_has:
        ending().rather(load.stop)
    await load.measure()
    after = None if read is None else await read()
    cost = None
    if before is not None and after is not None:
        cost = cost_between(before, after, load.messages)
    return load.figures(None if cost is None else cost.cpu_share), cost


async def _stop_when_due(line: Line, judge: Callable[[Tally], str | None]) -> None:
    recorder = line.recorder
    while True:
        await asyncio.sleep(_CHECKED_EVERY)
        if (reason := judge(recorder.tally())) is not None:
            line.stop(reason)
            return


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
