"""``loadgen overload``: finds the sustainable rate, goes to three times of it, and back.

All of it over streams, then over unary calls, each on a service of its own.
"""

import asyncio
import random
import statistics
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from connect_loadgen.drive.figures import Generator
from connect_loadgen.drive.lines import Lines, Outcome, open_lines, p50_of, p99_of
from connect_loadgen.drive.load import Progress
from connect_loadgen.drive.pacing import SECOND
from connect_loadgen.drive.pressure import Answers, Pressure, PressureProcess, start_pressure
from connect_loadgen.drive.self_check import TOLERATED_LATENESS, SelfCheck, verdict_on
from connect_loadgen.drive.timeline import Window
from connect_loadgen.experiment.bounds import Bound
from connect_loadgen.experiment.conduct import Conduct
from connect_loadgen.experiment.model import outcome, promise, withhold
from connect_loadgen.experiment.numbers import count, figure
from connect_loadgen.experiment.results import Record, Result, Row, Withheld
from connect_loadgen.probes.connections import (
    ConnectionsFound,
    require_descriptors,
    try_connections,
)
from connect_loadgen.probes.refusal import RefusalCost, measure_refusals, options_of
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.program.scratch import scratch_directory
from connect_loadgen.report.blocks import Block, Table
from connect_loadgen.report.page import Look
from connect_loadgen.report.plots import course_plot
from connect_loadgen.report.tables import plain_table
from connect_loadgen.service.process import ServiceProcess
from connect_loadgen.service.sampling import ProcessSample, Sampler, sample_process
from connect_loadgen.settings.draws import Draws
from connect_loadgen.settings.overload import OverloadSettings, TransportName
from connect_loadgen.settings.types import MAX_PAYLOAD_BYTES

__all__ = [
    "LOOK",
    "Course",
    "OverloadSettings",
    "Phase",
    "course_rows",
    "judge_course",
    "normal_p99",
    "parts_of",
    "run_overload",
    "seconds_to_normal",
    "with_pressure",
]

_NORMAL_SHARE = 0.7
_SAMPLED_EVERY = 0.25
# The first windows of a phase still show what was in flight before.
_SETTLING_WINDOWS = 2
_NAMES = ("normal", "sustainable", "overload", "normal again")
_OVERLOAD = 2
_WAYS = {"stream": "streams", "unary": "unary calls"}

# Throughput under overload: within 20 % of the best.
_LEAST_SHARE = 0.8
_MOST_RECOVERY_SECONDS = 5.0
# Beyond what it holds for its bounds, which are small beside it, memory has no reason to grow.
_MOST_RSS_GROWTH = 1.5
# "Refused cheaply": what is left is reading, counting and answering.
_MOST_REFUSAL_SHARE = 0.33
# Of a call, that is gRPC's work before all, which no service of Python can spare a caller.
_MOST_REFUSAL_OF_BARE = 1.5
# A flood takes all the CPU that it can get: survived is what goes on at all, and soon.
_MOST_P99_IN_FLOOD_MS = 1_000.0
# A percentile that is small to begin with may double by a single late sync.
_SLACK_MS = 25.0
_NORMAL_FACTOR = 2.0
# For as long as this many windows, latency has to stay normal.
_STEADY_WINDOWS = 2


class Phase(Record):
    """One rate, held for a while."""

    name: str
    begins_seconds: float
    seconds: float
    offered_per_second: float
    accepted_per_second: float
    """Operations answered rightly while it lasted."""
    refused: dict[str, int]
    """Operations answered by another status, by its name."""
    p50_ms: float | None
    """Median over its windows, of what was accepted, from when it was due."""
    p99_ms: float | None
    cpu_share: float
    """CPU seconds of the service per second."""
    peak_rss_bytes: int


class Course(Record):
    """All phases over one transport, and what was seen beside them."""

    transport: TransportName
    sustainable_per_second: float
    """What a closed loop showed."""
    phases: list[Phase]
    windows: list[Window]
    """Throughput and refusals of all; latencies of the lines, whose every answer was opened."""
    held_back: int
    """Operations beyond the sustainable rate that were not sent: the service did not read the
    stream, or had as many calls of the connection under way as it takes."""
    skipped_at_cap: int
    skipped_by_late_generator: int
    wrong_answers: int
    recovery_seconds: float | None
    """From the end of the overload until latency is normal and stays so; null: never."""
    refusal: RefusalCost
    connections: ConnectionsFound | None
    """Tried beside the first transport only: they have nothing to do with it."""
    generator: Generator


async def run_overload(settings: OverloadSettings, progress: Progress) -> Result[list[Course]]:
    """Put the load on services of its own, one for each transport, and judge what they did.

    Raises:
        Ended: the command ended before one transport was done.
        ConfigurationError: more connections are asked for than this user may open.
        ServiceError: the service did not start, or died.
        TransportError: it could not be reached, or has ended a stream.
        MetricsError: its metrics can't be read.
    """
    require_descriptors(settings.idle_connections)
    conduct = Conduct(settings)
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
    return conduct.result(Path(tempfile.gettempdir()), courses, **parts_of(courses))


def parts_of(courses: Sequence[Course]) -> dict[str, Any]:
    """Return what the result says of these courses."""
    return {
        "answer": [_lead(course) for course in courses],
        "rows": [row for course in courses for row in course_rows(course)],
        "withheld": [each for course in courses for each in _withheld(course)],
        "warnings": [
            f"{course.transport}: {text}"
            for course in courses
            for text in course.generator.warnings
        ],
    }


async def _course(settings: OverloadSettings, progress: Progress) -> Course:
    with scratch_directory() as data_dir:
        progress.step("starting the service")
        options = options_of(settings, data_dir)
        async with ServiceProcess(options, settings.timeout_seconds) as service:
            found = await service.while_alive(_Run(service, settings, progress).run())
            await service.stop()
    refusal = await measure_refusals(settings, found.accepted_cpu_us, progress)
    return found.course(refusal)


async def _sustainable_rate(lines: Lines, settings: OverloadSettings, progress: Progress) -> float:
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
            self._sustainable = await _sustainable_rate(lines, settings, self._progress)
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
                self._outcome: Outcome = lines.begin(
                    settings.duration_seconds * len(factors), settings.window_seconds
                )
                _, answers = await asyncio.gather(
                    lines.open(self._outcome, own_rate, settings),
                    self._press(pressure, self._sustainable * (settings.overload_factor - 1)),
                )
            self._held_back = answers.held_back
            first = round(_OVERLOAD * settings.duration_seconds / settings.window_seconds)
            self._windows = with_pressure(self._outcome.windows(), answers, first)
            if settings.idle_connections:
                self._connections = await try_connections(
                    service, lines, settings, self._sustainable, self._progress
                )
        return self

    async def _press(self, pressure: PressureProcess, rate: float) -> Answers:
        await asyncio.sleep(_OVERLOAD * self._settings.duration_seconds)
        return await pressure.put(rate)

    @property
    def accepted_cpu_us(self) -> float:
        """CPU time of the service for an operation, at a load that it sustains."""
        phase = self._phase(0)
        return phase.cpu_share / phase.accepted_per_second * 1e6 if phase.accepted_per_second else 0

    def course(self, refusal: RefusalCost) -> Course:
        phases, outcome = [self._phase(index) for index in range(len(_NAMES))], self._outcome
        seconds = self._settings.duration_seconds
        normal = normal_p99(self._within(0, settle=_SETTLING_WINDOWS))
        late = sum(each.skipped_late for each in outcome.recorders)
        due = seconds * sum(min(rate, self._sustainable) for rate in self._rates)
        return Course(
            transport=self._settings.transport,
            sustainable_per_second=self._sustainable,
            phases=phases,
            windows=self._windows,
            held_back=self._held_back,
            skipped_at_cap=sum(each.skipped_at_cap for each in outcome.recorders),
            skipped_by_late_generator=late,
            wrong_answers=outcome.wrong,
            recovery_seconds=None
            if normal is None
            else seconds_to_normal(self._windows, 3 * seconds, normal),
            refusal=refusal,
            connections=self._connections,
            generator=verdict_on(
                self._check.cpu_share,
                self._check.loop_lag,
                None,
                late if late > due * TOLERATED_LATENESS else 0,
                max(phase.cpu_share for phase in phases),
            ),
        )

    async def _sample(self) -> None:
        self._samples.append(await sample_process(self._service.metrics))

    def _phase(self, index: int) -> Phase:
        seconds = self._settings.duration_seconds
        windows = self._within(index)
        refused: Counter[str] = Counter()
        for window in windows:
            refused.update(window.errors)
        begins = self._outcome.begins_at / SECOND + index * seconds
        samples = [each for each in self._samples if begins <= each.at < begins + seconds]
        return Phase(
            name=_NAMES[index],
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


# --- Rules ----------------------------------------------------------------------------------------


def normal_p99(windows: Sequence[Window]) -> float | None:
    """Return up to which p99, in ms, latency counts as normal, from windows of a normal load."""
    known = [window.p99_ms for window in windows if window.p99_ms is not None]
    return _normal(statistics.median(known)) if known else None


def _normal(usual_ms: float) -> float:
    return max(usual_ms * _NORMAL_FACTOR, usual_ms + _SLACK_MS)


def seconds_to_normal(
    windows: Sequence[Window], dropped_at: float, normal_ms: float
) -> float | None:
    """Return how long after the load dropped latency was normal again and stayed so for a while.

    Args:
        windows: in order, of the time after the drop at least.
        dropped_at: when it dropped, on the windows' clock.
        normal_ms: the highest p99 that is normal.
    """
    steady = 0
    for window in windows:
        if window.at_seconds < dropped_at:
            continue
        is_normal = window.p99_ms is not None and window.p99_ms <= normal_ms
        steady = steady + 1 if is_normal else 0
        if steady == _STEADY_WINDOWS:
            began = window.at_seconds - (_STEADY_WINDOWS - 1) * window.seconds
            return max(began - dropped_at, 0.0)
    return None


def judge_course(course: Course) -> list[Row]:
    """Hold a course's figures against what a service must still do when it is overloaded."""
    _, sustainable, overload, _ = course.phases
    best = max(course.sustainable_per_second, *(each.accepted_per_second for each in course.phases))
    refusal, memory = course.refusal, "Peak memory under overload, of that at a sustainable load"
    of_accepted = _ratio(refusal.refused_cpu_us, refusal.accepted_cpu_us)
    remark = f"{refusal.refused:,} were refused to find out"
    rows = [
        promise(
            "throughput",
            "Throughput under overload, of the best",
            "",
            _ratio(overload.accepted_per_second, best),
            Bound.at_least(_LEAST_SHARE),
        ),
        promise(
            "refusal",
            "CPU of a refused operation, of an accepted one",
            "",
            of_accepted,
            Bound.at_most(_MOST_REFUSAL_SHARE),
            remark=remark,
        )
        if refusal.of_bare is None
        else promise(
            "refusal",
            "CPU of a refused call, of one that a bare gRPC server answers",
            "",
            refusal.of_bare,
            Bound.at_most(_MOST_REFUSAL_OF_BARE),
            remark=remark,
        ),
        promise(
            "retry-info",
            "Refusals that say when to try again (1: all)",
            "",
            float(refusal.has_retry_info),
            Bound.at_least(1),
        ),
        promise(
            "memory",
            memory,
            "",
            _ratio(overload.peak_rss_bytes, sustainable.peak_rss_bytes),
            Bound.at_most(_MOST_RSS_GROWTH),
        ),
        promise(
            "recovery",
            "Until latency is normal again after the load drops",
            "s",
            course.recovery_seconds,
            Bound.at_most(_MOST_RECOVERY_SECONDS),
        ),
        promise("wrong", "Wrong answers", "operations", course.wrong_answers, Bound.at_most(0)),
    ]
    if course.connections is not None:
        rows += _judge_connections(course.connections)
    return rows


def _judge_connections(found: ConnectionsFound) -> Iterator[Row]:
    alone = found.p99_alone_ms
    yield promise(
        "idle-connections",
        f"p99 of others beside {found.idle:,} idle connections",
        "ms",
        found.p99_with_idle_ms,
        # Without a load alone that was answered there is nothing to compare with.
        Bound.at_most(0.0 if alone is None else _normal(alone)),
        remark="" if alone is None else f"{alone:.1f} ms alone",
    )
    yield promise(
        "flood",
        "p99 of others in a flood of connections",
        "ms",
        found.p99_in_flood_ms,
        Bound.at_most(_MOST_P99_IN_FLOOD_MS),
    )
    yield promise(
        "failed-beside",
        "Operations of others that failed meanwhile",
        "operations",
        sum(found.errors.values()),
        Bound.at_most(0),
    )


def _ratio(value: float, base: float) -> float | None:
    return value / base if base else None


def course_rows(course: Course) -> list[Row]:
    """Return the judged rows of a course, without verdicts where it showed nothing."""
    rows = judge_course(course)
    if list(_withheld(course)):
        rows = withhold(rows)
    subject = f"Over {_WAYS[course.transport]}"
    return [
        row.model_copy(update={"name": f"{course.transport}.{row.name}", "subject": subject})
        for row in rows
    ]


def _withheld(course: Course) -> Iterator[Withheld]:
    over = f"Over {course.transport}"
    if not course.generator.is_valid:
        yield Withheld.invalid(f"{over}: {course.generator.verdict}: no verdict")
    if not sum(course.phases[_OVERLOAD].refused.values()):
        yield Withheld.nothing_shown(
            f"{over}: not overloaded, not one operation was refused: no verdict",
        )


# --- The report -----------------------------------------------------------------------------------


def _lead(course: Course) -> str:
    overload = course.phases[_OVERLOAD]
    return (
        f"Over {_WAYS[course.transport]}: {outcome(course_rows(course))}. Sustains"
        f" {figure(course.sustainable_per_second)} operations/s; offered"
        f" {figure(overload.offered_per_second)}, it did {figure(overload.accepted_per_second)}."
    )


def _tables(result: Result[Any]) -> Iterator[Table]:
    for course in result.detail:
        refusal, notes = course.refusal, []
        if (found := course.connections) is not None:
            notes.append(
                f"{count(found.idle)} idle connections took"
                f" {figure(found.rss_per_idle_connection_bytes / 1024)} KiB of the service's memory"
                f" each. The flood opened {count(found.flood_connections)} connections in"
                f" {figure(found.flood_seconds)} s, half of them with garbage."
            )
        bare = (
            ""
            if refusal.bare_cpu_us is None
            else f", a call of a bare gRPC server {figure(refusal.bare_cpu_us)} us"
        )
        yield plain_table(
            f"Phases over {_WAYS[course.transport]}",
            (
                "Phase",
                "Offered|ops/s",
                "Accepted|ops/s",
                "Refused|operations",
                "p50|ms",
                "p99|ms",
                "CPU|s/s",
                "Peak RSS|MiB",
            ),
            (
                (
                    phase.name,
                    phase.offered_per_second,
                    phase.accepted_per_second,
                    sum(phase.refused.values()),
                    phase.p50_ms,
                    phase.p99_ms,
                    phase.cpu_share,
                    phase.peak_rss_bytes / 2**20,
                )
                for phase in course.phases
            ),
            f"Not sent since the service did not take more: {count(course.held_back)}. Skipped at"
            f" the cap in flight: {count(course.skipped_at_cap)}; by a late generator:"
            f" {count(course.skipped_by_late_generator)}.",
            f"A refusal took {figure(refusal.refused_cpu_us)} us of CPU, an accepted operation"
            f" {figure(refusal.accepted_cpu_us)} us{bare}.",
            *notes,
        )


def _plots(result: Result[Any]) -> Iterator[Block]:
    for course in result.detail:
        offered = [
            (at, phase.offered_per_second)
            for phase in course.phases
            for at in (phase.begins_seconds, phase.begins_seconds + phase.seconds)
        ]
        name, windows = course.transport, course.windows
        yield course_plot(
            f"{name}-throughput",
            f"Throughput over {_WAYS[name]}",
            "operations per second (ops/s)",
            {
                "accepted": [(each.at_seconds, each.right / each.seconds) for each in windows],
                "refused": [
                    (each.at_seconds, sum(each.errors.values()) / each.seconds) for each in windows
                ],
                "offered": offered,
            },
        )
        yield course_plot(
            f"{name}-latency",
            f"Latency over {_WAYS[name]}",
            "latency of what was accepted (ms), log scale",
            {
                "p50": [(each.at_seconds, each.p50_ms or None) for each in windows],
                "p99": [(each.at_seconds, each.p99_ms or None) for each in windows],
            },
            x_label="time when due (s)",
            is_log=True,
        )


LOOK = Look(
    "Overload",
    "Each transport had a service of its own. The sustainable rate is what a closed loop reached."
    " Then one open loop went through all phases without a pause: operations were sent when they"
    " were due, up to a cap of what is in flight, and latency counts from there. Beyond the"
    " sustainable rate a second process sent frames, or made calls, over connections of its own,"
    " and only counted answers; what found as many calls of a connection under way as the service"
    " takes was not sent. What a refusal costs was measured on a service that may hold next to no"
    " bytes, so that it refuses all messages.",
    lambda result: tuple(_tables(result)),
    lambda result: tuple(_plots(result)),
)
