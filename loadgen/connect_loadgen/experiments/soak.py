"""``loadgen soak``: finds the capacity, then holds a share of it with churn, and samples.

Whether a soak shows a leak follows from the samples alone. The first half of a run is for filling
what may be filled: caches, pools, the journal up to where its cleaning begins. A figure is flat if
in the second half its growth is within what is tolerated, or so small that it can't be told from
noise. It is broken only if the growth is sure: the whole of the slope's 95 % interval is above 0.
"""

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from connect_loadgen.drive.figures import Generator
from connect_loadgen.drive.lifecycle import Lifecycle
from connect_loadgen.drive.lines import Lines, Outcome, open_lines, p50_of
from connect_loadgen.drive.load import Progress
from connect_loadgen.drive.self_check import TOLERATED_LATENESS, SelfCheck, verdict_on
from connect_loadgen.drive.timeline import Window
from connect_loadgen.experiment.bounds import Bound
from connect_loadgen.experiment.conduct import Conduct
from connect_loadgen.experiment.model import outcome, promise, withhold
from connect_loadgen.experiment.numbers import Spread, count, figure
from connect_loadgen.experiment.results import Record, Result, Row, Withheld
from connect_loadgen.experiment.trend import trend_of
from connect_loadgen.probes.ageing import Ageing, compare_with_fresh
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.program.scratch import scratch_directory
from connect_loadgen.report.blocks import Block
from connect_loadgen.report.page import Look
from connect_loadgen.report.plots import course_plot
from connect_loadgen.service.cost import take
from connect_loadgen.service.endpoint import Endpoint
from connect_loadgen.service.process import ServiceOptions, ServiceProcess
from connect_loadgen.service.sampling import ProcessSample, Sampler, sample_process
from connect_loadgen.settings.soak import SoakSettings

__all__ = [
    "LOOK",
    "SoakDetail",
    "SoakSample",
    "SoakSettings",
    "judge_ageing",
    "judge_load",
    "judge_samples",
    "run_soak",
]

_JOURNAL_FILE = "journal.db"
_MEBI = 2**20

# Of its median: less than this in half a run is noise, whatever it makes in an hour.
_NOISE_PERCENT = 1.0
_NOISE_PERCENT_OF_LATENCY = 20.0
_HOUR = 3_600.0
# A WAL comes and goes with each checkpoint: what counts is what it grows to, within this time.
_PEAK_SECONDS = 60.0
# Of the intended rate; the rest are arrivals by chance and the last operations.
_LEAST_ACHIEVED = 0.98
# Of a fresh service's: what an hour may add, as to the trends.
_MOST_P99_OF_FRESH = 1.25
_MOST_CPU_OF_FRESH = 1.05


class SoakSample(Record):
    """The service at one moment, and the load since the sample before."""

    at_seconds: float
    """From the beginning of the soak."""
    rss_bytes: int
    descriptors: int
    threads: int
    database_bytes: int
    wal_bytes: int
    live_actors: float
    streams_open: float | None
    cpu_share: float
    """CPU seconds per second since the sample before."""
    gc_collections: float | None
    """Since the service began."""
    gc_pause_seconds: float | None
    """Likewise."""
    right_per_second: float
    errors: dict[str, int]
    p50_ms: float | None
    p99_ms: float | None
    generator_cpu_share: float
    """CPU seconds per second of the generator, which shares the machine."""
    generator_lag_p99_ms: float | None
    """How late its event loop woke up: every latency holds that, too."""

    def of_operation(self, cpu_share: float) -> float | None:
        """Return the CPU seconds of such a share for each operation that was answered."""
        return cpu_share / self.right_per_second if self.right_per_second else None


class SoakDetail(Record):
    """What a soak saw."""

    capacity_per_second: float
    intended_per_second: float
    achieved_per_second: float
    soaked_seconds: float
    """How long the load was on."""
    operations: int
    wrong_answers: int
    errors: dict[str, int]
    skipped_at_cap: int
    skipped_by_late_generator: int
    channels_established: int
    channels_closed: int
    samples: list[SoakSample]
    ageing: Ageing | None
    """Null if no fresh service was asked for."""
    generator: Generator


async def run_soak(settings: SoakSettings, progress: Progress) -> Result[SoakDetail]:
    """Soak a service of its own and judge what it did.

    Raises:
        ServiceError: the service did not start, or died.
        TransportError: it could not be reached, or has ended a stream.
        MetricsError: its metrics can't be read.
    """
    with scratch_directory() as data_dir:
        progress.step("starting the service")
        options = ServiceOptions(
            strategy=settings.strategy,
            journal=settings.journal,
            data_dir=data_dir,
            flags=(f"--idle-timeout={settings.idle_timeout}",),
        )
        if settings.service_command is not None:
            options = replace(options, command=settings.service_command)
        async with ServiceProcess(options, settings.timeout_seconds) as service:
            result = await service.while_alive(_Soak(service, settings, progress).run())
            await service.stop()
    return result


class _Soak:
    """One soak of one service."""

    def __init__(self, service: ServiceProcess, settings: SoakSettings, progress: Progress) -> None:
        self._service = service
        self._settings = settings
        self._progress = progress
        self._conduct = Conduct(settings)
        self._began = 0.0
        self._own_cpu_before = time.process_time()
        self._check = SelfCheck()
        self._samples: list[SoakSample] = []

    async def run(self) -> Result[SoakDetail]:
        settings, service, progress = self._settings, self._service, self._progress
        progress.step(f"establishing {settings.channels} channels")
        async with open_lines(service.endpoint, settings, settings.connections) as lines:
            patience = settings.timeout_seconds
            for step, seconds in (
                ("warm-up", settings.warm_up_seconds),
                ("finding the capacity", settings.duration_seconds),
            ):
                progress.step(f"{step}, {seconds:g} s")
                found = await lines.closed(max(seconds, 0.5), settings.concurrency, patience)
            rate = max(found.per_second * settings.load, 1.0)
            progress.step(f"soaking at {rate:,.0f} operations/s for {settings.duration:g} s")
            async with self._check as check:
                outcome = await self._soak(lines, service.endpoint, rate)
            ageing = None
            if settings.fresh_rounds:
                with suppress(Ended):
                    ageing = await ending().part(
                        compare_with_fresh(service, lines, rate, settings, progress)
                    )
        return self._result(found.per_second, rate, outcome, check, ageing)

    def _result(
        self,
        capacity: float,
        rate: float,
        outcome: Outcome,
        check: SelfCheck,
        ageing: Ageing | None,
    ) -> Result[SoakDetail]:
        recorders = outcome.recorders
        late = sum(each.skipped_late for each in recorders)
        lifecycle: Counter[str] = Counter()
        for each in recorders:
            for name, histogram in each.lifecycle.items():
                summary = histogram.summary()
                lifecycle[name] += 0 if summary is None else summary.count
        achieved, seconds = outcome.per_second, outcome.seconds
        shares = [sample.cpu_share for sample in self._samples]
        generator = verdict_on(
            check.cpu_share,
            check.loop_lag,
            None,
            # A stall in an hour is no load that was not put on.
            late if late > rate * seconds * TOLERATED_LATENESS else 0,
            statistics.median(shares) if shares else None,
        )
        rows = [
            *judge_samples(self._samples, self._settings),
            *([] if ageing is None else judge_ageing(ageing)),
            *judge_load(rate - late / seconds, achieved, outcome.wrong, outcome.errors.total()),
        ]
        if ending().reason is not None or not generator.is_valid:
            rows = withhold(rows)
        detail = SoakDetail(
            capacity_per_second=capacity,
            intended_per_second=rate,
            achieved_per_second=achieved,
            soaked_seconds=seconds,
            operations=sum(each.finished for each in recorders),
            wrong_answers=outcome.wrong,
            errors=dict(outcome.errors),
            skipped_at_cap=sum(each.skipped_at_cap for each in recorders),
            skipped_by_late_generator=late,
            channels_established=lifecycle["establish"],
            channels_closed=lifecycle["close"],
            samples=self._samples,
            ageing=ageing,
            generator=generator,
        )
        why = f"{generator.verdict}: no verdict"
        return self._conduct.result(
            self._service.options.data_dir,
            detail,
            answer=_answer(rows, detail),
            rows=rows,
            warnings=generator.warnings,
            withheld=[] if generator.is_valid else [Withheld.invalid(why)],
        )

    async def _soak(self, lines: Lines, endpoint: Endpoint, rate: float) -> Outcome:
        settings = self._settings
        # From here on an early end keeps what was measured.
        ending().rather(lines.stop)
        part = settings.model_copy(update={"churn_rate": settings.churn_rate / len(lines.lines)})
        phase = lines.begin(settings.duration, settings.sample_seconds)
        self._began = phase.begins_at / 1e9
        self._before = await sample_process(self._service.metrics)
        self._own_cpu_before = time.process_time()

        async def look() -> None:
            if (now := await sample_process(self._service.metrics)).at > self._before.at + 1e-3:
                windows = [each for each in phase.take() if each.right]
                self._samples.append(await self._sample(now, windows))
                self._before = now

        async with Sampler(settings.sample_seconds, look), asyncio.TaskGroup() as tasks:
            for line, ends in zip(lines.lines, lines.ends, strict=True):
                if settings.churn_rate:
                    tasks.create_task(Lifecycle(line, ends, part, endpoint).run())
            await lines.open(phase, str(rate), settings)
        return phase

    async def _sample(self, now: ProcessSample, windows: list[Window]) -> SoakSample:
        reading = await take(self._service.metrics)
        metrics = reading.metrics
        seconds = now.at - self._before.at
        errors: Counter[str] = Counter()
        for window in windows:
            errors.update(window.errors)
        slowest = [window.p99_ms for window in windows if window.p99_ms is not None]
        covered = sum(window.seconds for window in windows)
        own_cpu_before, self._own_cpu_before = self._own_cpu_before, time.process_time()
        lag = self._check.take_recent_lag()
        database = self._service.options.data_dir / _JOURNAL_FILE
        return SoakSample(
            at_seconds=now.at - self._began,
            rss_bytes=now.rss_bytes,
            descriptors=now.descriptors,
            threads=now.threads,
            database_bytes=_size(database),
            wal_bytes=_size(database.with_name(f"{database.name}-wal")),
            live_actors=metrics["connect_actors_live"],
            streams_open=metrics.get("connect_streams_open"),
            cpu_share=(now.cpu_seconds - self._before.cpu_seconds) / seconds,
            gc_collections=metrics.get("python_gc_collections_total"),
            gc_pause_seconds=metrics.get("connect_gc_pause_seconds_sum"),
            right_per_second=sum(each.right for each in windows) / covered if covered else 0.0,
            errors=dict(errors),
            p50_ms=p50_of(windows),
            p99_ms=max(slowest) if slowest else None,
            generator_cpu_share=(self._own_cpu_before - own_cpu_before) / seconds,
            generator_lag_p99_ms=None if lag is None else lag.p99_us / 1_000,
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


# --- Rules ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Figure:
    name: str
    values: Callable[[Sequence[SoakSample]], Sequence[float | None]]
    tolerated: float
    """Per cent an hour."""
    noise: float = _NOISE_PERCENT


def _figures(settings: SoakSettings) -> Sequence[_Figure]:
    return (
        _Figure("Memory (RSS)", _each(lambda sample: sample.rss_bytes), settings.max_rss_growth),
        _Figure("File descriptors", _each(lambda sample: sample.descriptors), 0.0),
        _Figure("Threads", _each(lambda sample: sample.threads), 0.0),
        _Figure(
            "Journal (database and WAL at its largest)", _journal_peaks, settings.max_journal_growth
        ),
        _Figure(
            "CPU of an operation",
            _each(lambda sample: sample.of_operation(sample.cpu_share)),
            settings.max_cpu_growth,
        ),
        _Figure(
            "p99 from the due time",
            _each(lambda sample: sample.p99_ms),
            settings.max_p99_growth,
            _NOISE_PERCENT_OF_LATENCY,
        ),
    )


def _each(
    value: Callable[[SoakSample], float | None],
) -> Callable[[Sequence[SoakSample]], Sequence[float | None]]:
    return lambda samples: [value(sample) for sample in samples]


def _journal_peaks(samples: Sequence[SoakSample]) -> Sequence[float]:
    """Return the database and the largest WAL of the last minute, at each sample."""
    peaks: list[float] = []
    first = 0
    for index, sample in enumerate(samples):
        while samples[first].at_seconds <= sample.at_seconds - _PEAK_SECONDS:
            first += 1
        wal = max(each.wal_bytes for each in samples[first : index + 1])
        peaks.append(float(sample.database_bytes + wal))
    return peaks


def second_half(samples: Sequence[SoakSample]) -> Sequence[SoakSample]:
    """Return what the verdicts rest on."""
    return samples[len(samples) // 2 :]


def judge_samples(samples: Sequence[SoakSample], settings: SoakSettings) -> list[Row]:
    """Hold what the service held, sample by sample, against the bound that it is flat."""
    late = second_half(samples)
    return [_judge(figure, late) for figure in _figures(settings)]


def _judge(figure: _Figure, samples: Sequence[SoakSample]) -> Row:
    known = [
        (sample.at_seconds, value)
        for sample, value in zip(samples, figure.values(samples), strict=True)
        if value is not None
    ]
    trend, name = trend_of(known), f"{figure.name}: growth"
    tolerated = Bound.at_most(figure.tolerated, rule="every round")
    if trend is None:
        # A journal in memory has no files, so nothing of it grows.
        is_zero = bool(known) and not any(value for _, value in known)
        value, remark = (0.0, "always 0") if is_zero else (None, "too few samples")
        return promise(name, name, "%/h", value, tolerated, remark=remark)
    # Growth that is noise within the time it rests on is tolerated, whatever it makes in an hour.
    noise = figure.noise * _HOUR / trend.seconds
    row = promise(
        name,
        name,
        "%/h",
        Spread(median=trend.per_hour, low=trend.low, high=trend.high),
        Bound.at_most(max(figure.tolerated, noise), rule="every round"),
        remark=f"95 % interval of the slope; {trend.within:+.2f} % in {trend.seconds:,.0f} s",
    )
    return row.model_copy(update={"bound": tolerated, "claimed": f"<= {figure.tolerated:g}"})


def judge_ageing(ageing: Ageing) -> list[Row]:
    """Hold a soaked service against a fresh one: broken is what is slower in every round, too."""
    p99 = Bound.at_most(_MOST_P99_OF_FRESH, "ratio", "every round")
    cpu = Bound.at_most(_MOST_CPU_OF_FRESH, "ratio", "every round")
    return [
        promise("aged-p99", "p99 of the soaked service, of a fresh one's", "", ageing.p99, p99),
        promise("aged-cpu", "CPU of an operation, likewise", "", ageing.cpu, cpu),
        promise(
            "aged-failed",
            "Failed or wrong in those turns",
            "operations",
            ageing.failed,
            Bound.at_most(0),
        ),
    ]


def judge_load(asked: float, achieved: float, wrong: int, failed: int) -> list[Row]:
    """Hold what became of the load against the bound that all of it was served.

    Args:
        asked: operations per second that the generator put on.
        achieved: operations per second that were answered.
        wrong: wrong answers.
        failed: operations that failed.
    """
    return [
        promise(
            "throughput",
            "Throughput, of what was put on",
            "",
            achieved / asked if asked else None,
            Bound.at_least(_LEAST_ACHIEVED),
        ),
        promise("wrong", "Wrong answers", "operations", wrong, Bound.at_most(0)),
        promise("failed", "Failed operations", "operations", failed, Bound.at_most(0)),
    ]


# --- The report -----------------------------------------------------------------------------------


def _answer(rows: Sequence[Row], detail: SoakDetail) -> list[str]:
    load = (
        f"{count(detail.operations)} operations in {figure(detail.soaked_seconds / 60)} min at"
        f" {figure(detail.achieved_per_second)} operations/s, {count(detail.channels_established)}"
        f" channels established and {count(detail.channels_closed)} closed meanwhile."
    )
    return [f"{outcome(rows).capitalize()}.", load]


_Value = Callable[[SoakSample], float | None]

_PLOTS: Sequence[tuple[str, str, str, Mapping[str, _Value]]] = (
    ("rss", "Memory", "RSS (MiB)", {"RSS": lambda s: s.rss_bytes / _MEBI}),
    (
        "journal",
        "Journal",
        "size of its files (MiB)",
        {"database": lambda s: s.database_bytes / _MEBI, "WAL": lambda s: s.wal_bytes / _MEBI},
    ),
    (
        "handles",
        "Descriptors, threads and live actors",
        "number",
        {
            "descriptors": lambda s: s.descriptors,
            "threads": lambda s: s.threads,
            "live actors": lambda s: s.live_actors,
        },
    ),
    (
        "throughput",
        "Throughput",
        "operations per second (ops/s)",
        {"right": lambda s: s.right_per_second},
    ),
    (
        "cpu",
        "CPU of an operation",
        "CPU time (us)",
        {
            "service": lambda s: _micros(s, s.cpu_share),
            "generator": lambda s: _micros(s, s.generator_cpu_share),
        },
    ),
    (
        "latency",
        "Latency",
        "from the due time (ms)",
        {
            "p50": lambda s: s.p50_ms,
            "p99": lambda s: s.p99_ms,
            "generator's own, p99": lambda s: s.generator_lag_p99_ms,
        },
    ),
)


def _micros(sample: SoakSample, cpu_share: float) -> float | None:
    seconds = sample.of_operation(cpu_share)
    return None if seconds is None else seconds * 1e6


def _plots(result: Result[Any]) -> Iterator[Block]:
    samples = result.detail.samples
    late = second_half(samples)
    for name, title, label, series in _PLOTS:
        curves = {
            line: [(sample.at_seconds, value(sample)) for sample in samples]
            for line, value in series.items()
        }
        yield course_plot(name, title, label, curves, marks=[late[0].at_seconds] if late else ())


LOOK = Look(
    "Soak",
    "Verdicts rest on the second half of the run, right of the line: the slope of Theil and Sen, in"
    " per cent of the median an hour, with its 95 % interval, widened by how alike samples are that"
    " follow each other. A figure is broken if it certainly grows, by more than is tolerated an"
    " hour and by more than noise in that half. At the end the soaked service and a fresh one took"
    " the same load in turns.",
    more=lambda result: tuple(_plots(result)),
)
