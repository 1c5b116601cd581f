"""``loadgen overload``: finds the sustainable rate, goes to three times of it, and back.

All of it over streams, then over unary calls.
"""

import asyncio
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from connect_loadgen.drive.lines import Lines, open_lines, p50_of, p99_of
from connect_loadgen.drive.load import Progress
from connect_loadgen.drive.pacing import SECOND
from connect_loadgen.drive.pressure import Answers, Pressure, PressureProcess, start_pressure
from connect_loadgen.drive.self_check import TOLERATED_LATENESS, SelfCheck, verdict_on
from connect_loadgen.drive.timeline import Window
from connect_loadgen.experiment.environment import describe_environment
from connect_loadgen.overload.judgement import judge, normal_p99, seconds_to_normal
from connect_loadgen.overload.results import (
    ConnectionsFound,
    Course,
    OverloadResult,
    Phase,
    RefusalCost,
)
from connect_loadgen.overload.settings import OverloadSettings
from connect_loadgen.probes.connections import require_descriptors, try_connections
from connect_loadgen.probes.refusal import measure_refusals, options_of
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.program.scratch import scratch_directory
from connect_loadgen.report.promises import withhold_verdicts
from connect_loadgen.service.process import ServiceProcess
from connect_loadgen.service.sampling import ProcessSample, Sampler, sample_process
from connect_loadgen.settings.draws import Draws
from connect_loadgen.settings.types import MAX_PAYLOAD_BYTES

__all__ = ["execute_overload", "sustainable_rate", "with_pressure"]

_NORMAL_SHARE = 0.7
_SAMPLED_EVERY = 0.25
# The first windows of a phase still show what was in flight before.
_SETTLING_WINDOWS = 2


async def execute_overload(settings: OverloadSettings, progress: Progress) -> OverloadResult:
    """Put the load on services of its own, one for each transport, and judge what they did.

    Raises:
        Ended: the command ended before one transport was done.
        ConfigurationError: more connections are asked for than this user may open.
        ServiceError: the service did not start, or died.
        TransportError: it could not be reached, or has ended a stream.
        MetricsError: its metrics can't be read.
    """
    require_descriptors(settings.idle_connections)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    courses: list[Course] = []
    try:
        for transport in settings.transports:
            progress.step(f"overload over {transport}")
            one = settings.over(transport)
            if courses:
                one = one.model_copy(update={"idle_connections": 0})
            courses.append(await ending().part(_course(one, progress)))
    except Ended:
        if not courses:
            raise
    return OverloadResult(
        started_at=started_at,
        settings=settings.model_dump(mode="json"),
        environment=describe_environment(Path(tempfile.gettempdir())),
        cut_short=ending().reason,
        courses=courses,
    )


async def _course(settings: OverloadSettings, progress: Progress) -> Course:
    with scratch_directory() as data_dir:
        progress.step("starting the service")
        options = options_of(settings, data_dir)
        async with ServiceProcess(options, settings.timeout_seconds) as service:
            found = await service.while_alive(_Run(service, settings, progress).run())
            await service.stop()
    refusal = await measure_refusals(settings, found.accepted_cpu_us, progress)
    return found.course(refusal)


async def sustainable_rate(lines: Lines, settings: OverloadSettings, progress: Progress) -> float:
    """Return how many operations a second the service does if it is always given some."""
    patience = settings.timeout_seconds
    progress.step(f"warm-up, {settings.warm_up_seconds:g} s")
    await lines.closed(max(settings.warm_up_seconds, 0.5), settings.concurrency, patience)
    progress.step(f"finding the sustainable rate, {settings.duration_seconds:g} s")
    outcome = await lines.closed(settings.duration_seconds, settings.concurrency, patience)
    return max(outcome.per_second, 1.0)


class _Run:
    """One run on one service, and what it has shown so far."""

    def __init__(
        self, service: ServiceProcess, settings: OverloadSettings, progress: Progress
    ) -> None:
        self._service = service
        self._settings = settings
        self._progress = progress
        self._samples: list[ProcessSample] = []
        self._connections: ConnectionsFound | None = None

    async def run(self) -> "_Run":
        settings, service = self._settings, self._service
        factors = (_NORMAL_SHARE, 1.0, settings.overload_factor, _NORMAL_SHARE)
        # What is beyond the sustainable rate comes from a process of its own.
        own = [min(factor, 1.0) for factor in factors]
        async with open_lines(service.endpoint, settings, settings.connections) as lines:
            self._sustainable = await sustainable_rate(lines, settings, self._progress)
            self._rates = [self._sustainable * factor for factor in factors]
            own_rate = ",".join(str(self._sustainable * factor) for factor in own)
            self._progress.step(
                f"{len(factors)} phases of {settings.duration_seconds:g} s, about"
                f" {self._sustainable:,.0f} operations/s"
            )
            async with (
                start_pressure(_pressure(settings, service.listen)) as pressure,
                SelfCheck() as self._check,
                Sampler(_SAMPLED_EVERY, self._sample),
            ):
                self._outcome = lines.begin(
                    settings.duration_seconds * len(factors), settings.window_seconds
                )
                _, answers = await asyncio.gather(
                    lines.open(self._outcome, own_rate, settings),
                    self._press(pressure, self._sustainable * (settings.overload_factor - 1)),
                )
            self._held_back = answers.held_back
            first = round(2 * settings.duration_seconds / settings.window_seconds)
            self._windows = with_pressure(self._outcome.windows(), answers, first)
            if settings.idle_connections:
                self._connections = await try_connections(
                    service, lines, settings, self._sustainable, self._progress
                )
        return self

    async def _press(self, pressure: PressureProcess, rate: float) -> Answers:
        await asyncio.sleep(2 * self._settings.duration_seconds)
        return await pressure.put(rate)

    @property
    def accepted_cpu_us(self) -> float:
        """CPU time of the service for an operation, at a load that it sustains."""
        phase = self._phases()[0]
        return phase.cpu_share / phase.accepted_per_second * 1e6 if phase.accepted_per_second else 0

    def course(self, refusal: RefusalCost) -> Course:
        phases, outcome, windows = self._phases(), self._outcome, self._windows
        seconds = self._settings.duration_seconds
        normal = normal_p99(self._within(0, settle=_SETTLING_WINDOWS))
        recovery = None if normal is None else seconds_to_normal(windows, 3 * seconds, normal)
        best = max(self._sustainable, *(phase.accepted_per_second for phase in phases))
        late = sum(each.skipped_late for each in outcome.recorders)
        due = seconds * sum(min(rate, self._sustainable) for rate in self._rates)
        course = Course(
            transport=self._settings.transport,
            sustainable_per_second=self._sustainable,
            phases=phases,
            windows=windows,
            held_back=self._held_back,
            skipped_at_cap=sum(each.skipped_at_cap for each in outcome.recorders),
            skipped_by_late_generator=late,
            wrong_answers=outcome.wrong,
            recovery_seconds=recovery,
            refusal=refusal,
            connections=self._connections,
            generator=verdict_on(
                self._check.cpu_share,
                self._check.loop_lag,
                None,
                late if late > due * TOLERATED_LATENESS else 0,
                max(phase.cpu_share for phase in phases),
            ),
            promises=judge(phases, best, recovery, refusal, self._connections, outcome.wrong),
        )
        if not list(course.withheld()):
            return course
        return course.model_copy(update={"promises": withhold_verdicts(course.promises)})

    async def _sample(self) -> None:
        self._samples.append(await sample_process(self._service.metrics))

    def _phases(self) -> list[Phase]:
        names = ("normal", "sustainable", "overload", "normal again")
        return [self._phase(index, name) for index, name in enumerate(names)]

    def _phase(self, index: int, name: str) -> Phase:
        seconds = self._settings.duration_seconds
        windows = self._within(index)
        refused: Counter[str] = Counter()
        for window in windows:
            refused.update(window.errors)
        begins = self._outcome.begins_at / SECOND + index * seconds
        samples = [each for each in self._samples if begins <= each.at < begins + seconds]
        return Phase(
            name=name,
            begins_seconds=index * seconds,
            seconds=seconds,
            offered_per_second=self._rates[index],
            accepted_per_second=sum(window.right for window in windows) / seconds,
            refused=dict(refused),
            p50_ms=p50_of(windows),
            p99_ms=p99_of(windows),
            cpu_share=_cpu_share(samples),
            peak_rss_bytes=max((each.rss_bytes for each in samples), default=0),
        )

    def _within(self, index: int, settle: int = 0) -> Sequence[Window]:
        seconds = self._settings.duration_seconds
        begins = index * seconds + settle * self._settings.window_seconds
        return [each for each in self._windows if begins <= each.at_seconds < (index + 1) * seconds]


def with_pressure(windows: Sequence[Window], answers: Answers, first: int) -> list[Window]:
    """Return the windows with what the pressure's operations came to, from the one numbered so."""
    added = list(windows)
    for index, (accepted, refused) in enumerate(
        zip(answers.accepted, answers.refused, strict=True), first
    ):
        if index < len(added):
            errors = Counter(added[index].errors) + Counter(refused)
            added[index] = added[index].model_copy(
                update={"right": added[index].right + accepted, "errors": dict(errors)}
            )
    return added


def _pressure(settings: OverloadSettings, address: str) -> Pressure:
    sizes = Draws.parse(settings.payload_bytes, MAX_PAYLOAD_BYTES).take(random.Random(1), 1_000)  # noqa: S311 - a mean
    return Pressure(
        address=address,
        transport=settings.transport,
        connections=settings.connections,
        channels=settings.channels,
        frame_operations=settings.frame_operations,
        plaintext_bytes=round(statistics.mean(sizes)),
        seconds=settings.duration_seconds,
        window_seconds=settings.window_seconds,
    )


def _cpu_share(samples: Sequence[ProcessSample]) -> float:
    if len(samples) < 2:
        return 0.0
    first, last = samples[0], samples[-1]
    return (last.cpu_seconds - first.cpu_seconds) / (last.at - first.at)
