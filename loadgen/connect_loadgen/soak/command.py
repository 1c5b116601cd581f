"""``loadgen soak``: finds the capacity, then holds a share of it with churn, and samples."""

import asyncio
import statistics
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from connect_loadgen.drive.lifecycle import Lifecycle
from connect_loadgen.drive.lines import Lines, Outcome, open_lines, p50_of
from connect_loadgen.drive.load import Progress
from connect_loadgen.drive.self_check import TOLERATED_LATENESS, SelfCheck, verdict_on
from connect_loadgen.drive.timeline import Window
from connect_loadgen.experiment.environment import describe_environment
from connect_loadgen.probes.ageing import compare_with_fresh
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.program.scratch import scratch_directory
from connect_loadgen.report.promises import withhold_verdicts
from connect_loadgen.service.cost import take
from connect_loadgen.service.endpoint import Endpoint
from connect_loadgen.service.process import ServiceOptions, ServiceProcess
from connect_loadgen.service.sampling import ProcessSample, Sampler, sample_process
from connect_loadgen.soak.judgement import judge_ageing, judge_load, judge_samples
from connect_loadgen.soak.results import SoakResult, SoakSample
from connect_loadgen.soak.settings import SoakSettings

__all__ = ["execute_soak"]

_JOURNAL_FILE = "journal.db"


async def execute_soak(settings: SoakSettings, progress: Progress) -> SoakResult:
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
        self._began = 0.0
        self._own_cpu_before = time.process_time()
        self._check = SelfCheck()
        self._samples: list[SoakSample] = []

    async def run(self) -> SoakResult:
        settings, service, progress = self._settings, self._service, self._progress
        started_at = datetime.now(UTC).isoformat(timespec="seconds")
        endpoint = service.endpoint
        progress.step(f"establishing {settings.channels} channels")
        async with open_lines(endpoint, settings, settings.connections) as lines:
            patience = settings.timeout_seconds
            for step, seconds in (
                ("warm-up", settings.warm_up_seconds),
                ("finding the capacity", settings.duration_seconds),
            ):
                progress.step(f"{step}, {seconds:g} s")
                found = await lines.closed(max(seconds, 0.5), settings.concurrency, patience)
            capacity = found.per_second
            rate = max(capacity * settings.load, 1.0)
            progress.step(f"soaking at {rate:,.0f} operations/s for {settings.duration:g} s")
            async with self._check as check:
                outcome = await self._soak(lines, endpoint, rate)
            ageing = None
            if settings.fresh_rounds:
                with suppress(Ended):
                    ageing = await ending().part(
                        compare_with_fresh(service, lines, rate, settings, progress)
                    )
        recorders = outcome.recorders
        late = sum(each.skipped_late for each in recorders)
        capped = sum(each.skipped_at_cap for each in recorders)
        failed: Counter[str] = outcome.errors
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
        promises = [
            *judge_samples(self._samples, settings),
            *([] if ageing is None else judge_ageing(ageing)),
            *judge_load(rate - late / seconds, achieved, outcome.wrong, failed.total()),
        ]
        cut_short = ending().reason
        if cut_short is not None or not generator.is_valid:
            promises = withhold_verdicts(promises)
        return SoakResult(
            started_at=started_at,
            settings=settings.model_dump(mode="json"),
            environment=describe_environment(service.options.data_dir),
            cut_short=cut_short,
            capacity_per_second=capacity,
            intended_per_second=rate,
            achieved_per_second=achieved,
            soaked_seconds=seconds,
            operations=sum(each.finished for each in recorders),
            wrong_answers=outcome.wrong,
            errors=dict(failed),
            skipped_at_cap=capped,
            skipped_by_late_generator=late,
            channels_established=lifecycle["establish"],
            channels_closed=lifecycle["close"],
            samples=self._samples,
            ageing=ageing,
            generator=generator,
            promises=promises,
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
