"""A load by one generator process or by several; whoever asks for it need not know which.

With several, the channels, the rate and what is in flight are split among worker processes
(``worker``). This process tells them when to go on, so that between phases nothing is in
flight anywhere, and adds up what they did: counts are summed and histograms merged, never
percentiles. Each worker checks itself; a load is valid only if all of them kept up.

Orders go to a worker's standard input and news come from its standard output, a line of JSON each.
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

from connect_loadgen.drive.channels import ChannelEnd, decode_end, establish
from connect_loadgen.drive.figures import Generator, Latency, LoadFigures, OperationLatency
from connect_loadgen.drive.load import Load, Loading, Progress
from connect_loadgen.drive.pacing import Line
from connect_loadgen.drive.recording import Histogram
from connect_loadgen.drive.self_check import verdict_on
from connect_loadgen.drive.transport import TransportError, first_error, open_transport
from connect_loadgen.program.child import start_child
from connect_loadgen.service.endpoint import Endpoint
from connect_loadgen.settings.load import LoadSettings
from connect_loadgen.settings.stops import Tally, parse_stops, reason_to_stop

__all__ = ["Fleet", "merge_loads", "open_load", "split"]

_WORKER = (sys.executable, "-m", "connect_loadgen.drive.worker")

# Histograms and exported sessions of a worker come as one line.
_LONGEST_LINE = 1 << 28


@asynccontextmanager
async def open_load(
    endpoint: Endpoint,
    settings: LoadSettings,
    progress: Progress,
    watch: Callable[[Line], None] | None = None,
) -> AsyncIterator[Loading]:
    """Establish the channels and yield the load on them, not begun yet.

    Args:
        endpoint: of the service.
        settings: the load, and by how many processes.
        progress: told how it goes.
        watch: given the line that the load goes over, if this process puts it.

    Raises:
        TransportError: the service can't be reached or refused a handshake, or a worker failed.
    """
    progress.step(f"establishing {settings.channels} channels")
    if settings.processes > 1:
        async with Fleet(endpoint, settings, progress) as fleet:
            yield fleet
        return
    async with open_transport(endpoint, settings) as transport:
        ends = await establish(transport, settings, endpoint)
        load = Load(transport, ends, settings, endpoint, progress)
        if watch is not None:
            watch(load.line)
        yield load


def split(settings: LoadSettings) -> list[LoadSettings]:
    """Return what each worker is told; the rate stays whole, since workers know their part."""
    count = settings.processes

    def part(whole: int, index: int) -> int:
        return whole // count + (index < whole % count)

    return [
        settings.model_copy(
            update={
                "channels": part(settings.channels, index),
                "concurrency": part(settings.concurrency, index),
                "max_in_flight": max(part(settings.max_in_flight, index), 1),
                "churn_rate": settings.churn_rate / count,
                # Far from what a user would choose for another run.
                "seed": settings.seed + (index << 32),
            }
        )
        for index in range(count)
    ]


class Fleet:
    """Several worker processes, as an async context manager; leaving it kills what still runs."""

    def __init__(self, endpoint: Endpoint, settings: LoadSettings, progress: Progress) -> None:
        """Prepare; the workers start, and establish their channels, on entering."""
        self._endpoint = endpoint
        self._settings = settings
        self._progress = progress
        self._conditions = parse_stops(settings.stop_if)
        self._workers = [
            _Worker(index, settings.processes, self._take_tally)
            for index in range(settings.processes)
        ]
        # Never connects: what is asked of the service goes over the workers' transports.
        self._client = endpoint.client()
        self._figures: list[LoadFigures] = []
        self._ends: list[ChannelEnd] = []

    async def __aenter__(self) -> Self:
        """Start the workers and wait until all channels are established.

        Raises:
            TransportError: a worker failed.
        """
        try:
            for worker, settings in zip(self._workers, split(self._settings), strict=True):
                await worker.start(settings, self._endpoint)
            await self._all("established")
        except BaseException:
            await self._clean_up()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Kill what still runs."""
        await self._clean_up()

    @property
    def messages(self) -> int:
        """Messages of the measured time, right ones."""
        return sum(figures.messages for figures in self._figures)

    async def warm_up(self) -> None:
        """Let all workers warm up at once.

        Raises:
            TransportError: a worker failed.
        """
        self._progress.step(f"warm-up, {self._settings.warm_up_seconds:g} s")
        self._tell_all("warm_up")
        await self._all("warm")

    async def measure(self) -> None:
        """Let all workers measure at once; a condition that is met by all together stops all.

        Raises:
            TransportError: a worker failed.
        """
        self._progress.step(f"measuring, {self._settings.duration_seconds:g} s")
        for worker in self._workers:
            worker.tally = None
        self._tell_all("measure")
        news = await self._all("measured")
        self._figures = [LoadFigures.model_validate(each["figures"]) for each in news]
        self._ends = [decode_end(end, self._client) for each in news for end in each["ends"]]

    def stop(self, reason: str) -> None:
        """Let all workers end the measuring now."""
        self._tell_all("stop", reason=reason)

    def figures(self, service_cpu_share: float | None) -> LoadFigures:
        """Return what all workers measured together."""
        return merge_loads(self._figures, service_cpu_share)

    def ends(self) -> list[ChannelEnd]:
        """Return the peers' ends of all channels, as the measured load left them."""
        return self._ends

    def _take_tally(self) -> None:
        tallies = [worker.tally for worker in self._workers if worker.tally is not None]
        if not tallies:
            return
        total = tallies[0]
        for tally in tallies[1:]:
            total += tally
        if (reason := reason_to_stop(self._conditions, total)) is not None:
            self.stop(reason)

    def _tell_all(self, order: str, **details: str | None) -> None:
        for worker in self._workers:
            worker.tell(order, **details)

    async def _all(self, event: str) -> list[dict[str, Any]]:
        """Wait for this news of all workers, showing what they tell meanwhile."""
        try:
            async with asyncio.TaskGroup() as tasks:
                waiting = [
                    tasks.create_task(worker.wait_for(event, self._show))
                    for worker in self._workers
                ]
        except ExceptionGroup as group:
            raise first_error(group) from None
        return [task.result() for task in waiting]

    def _show(self, share: float, text: str) -> None:
        self._progress.tick(share, f"{len(self._workers)} processes, each: {text}")

    async def _clean_up(self) -> None:
        await asyncio.gather(*(worker.kill() for worker in self._workers))
        await self._client.close()


class _Worker:
    """One worker process, seen from outside."""

    def __init__(self, index: int, count: int, on_tally: Callable[[], None]) -> None:
        self.tally: Tally | None = None
        self._index = index
        self._count = count
        self._on_tally = on_tally
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, settings: LoadSettings, endpoint: Endpoint) -> None:
        self._process = await start_child(
            *_WORKER,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=None,
            longest_line=_LONGEST_LINE,
        )
        fields = settings.model_dump(mode="json", include=set(LoadSettings.model_fields))
        self._write(
            {
                "settings": fields,
                "endpoint": endpoint.encode(),
                "part": self._index,
                "parts": self._count,
            }
        )

    def tell(self, order: str, **details: str | None) -> None:
        self._write({"order": order, **details})

    async def wait_for(self, event: str, show: Callable[[float, str], None]) -> dict[str, Any]:
        while True:
            news = await self._read()
            match news["event"]:
                case "tick":
                    if not self._index:
                        show(news["share"], news["text"])
                case "tally":
                    self.tally = Tally(news["finished"], news["failed"], tuple(news["slower"]))
                    self._on_tally()
                case "failed":
                    raise TransportError(f"generator process {self._index + 1}: {news['why']}")
                case told if told == event:
                    return news
                case other:
                    raise TransportError(
                        f"generator process {self._index + 1} said {other} instead of {event}"
                    )

    async def kill(self) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _write(self, message: dict[str, Any]) -> None:
        process = self._running()
        if process.stdin is not None:
            process.stdin.write(json.dumps(message).encode() + b"\n")

    async def _read(self) -> dict[str, Any]:
        process = self._running()
        line = b"" if process.stdout is None else await process.stdout.readline()
        if not line:
            code = await process.wait()
            raise TransportError(f"generator process {self._index + 1} died: exit code {code}")
        news: dict[str, Any] = json.loads(line)
        return news

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the worker was not started")
        return self._process


# --- Adding up ------------------------------------------------------------------------------------


def merge_loads(loads: Sequence[LoadFigures], service_cpu_share: float | None) -> LoadFigures:
    """Return what several generators did at the same time, as one load.

    Args:
        loads: of each generator.
        service_cpu_share: CPU seconds per second of the service meanwhile, if known.
    """
    errors: Counter[str] = Counter()
    for load in loads:
        errors.update(load.errors)
    checked = [_judged_anew(load, service_cpu_share) for load in loads]
    rates = [load.intended_rate for load in loads if load.intended_rate is not None]
    return LoadFigures(
        model=loads[0].model,
        duration_seconds=max(load.duration_seconds for load in loads),
        intended_rate=sum(rates) if rates else None,
        operations_per_second=sum(load.operations_per_second for load in loads),
        messages_per_second=sum(load.messages_per_second for load in loads),
        operations_sent=sum(load.operations_sent for load in loads),
        operations_finished=sum(load.operations_finished for load in loads),
        messages=sum(load.messages for load in loads),
        reordered_messages=sum(load.reordered_messages for load in loads),
        verification_failures=sum(load.verification_failures for load in loads),
        errors=dict(errors),
        skipped_at_cap=sum(load.skipped_at_cap for load in loads),
        skipped_by_late_generator=sum(load.skipped_by_late_generator for load in loads),
        latency=_merge_operations([load.latency for load in loads]),
        lifecycle={
            name: merged
            for name in _names(load.lifecycle for load in loads)
            if (merged := _merge([load.lifecycle.get(name) for load in loads])) is not None
        },
        replacements_skipped=sum(load.replacements_skipped for load in loads),
        stopped=next((load.stopped for load in loads if load.stopped is not None), None),
        generator=_merge_checks(checked),
        processes=checked,
    )


def _judged_anew(load: LoadFigures, service_cpu_share: float | None) -> Generator:
    # A worker does not know how busy the service was.
    own = load.generator
    return verdict_on(
        own.cpu_share, own.loop_lag, own.send_lag, load.skipped_by_late_generator, service_cpu_share
    )


def _merge_checks(checks: Sequence[Generator]) -> Generator:
    warnings = [
        f"process {number}: {warning}"
        for number, check in enumerate(checks, 1)
        for warning in check.warnings
    ]
    return Generator(
        cpu_share=max(check.cpu_share for check in checks),
        loop_lag=_merge([check.loop_lag for check in checks]),
        send_lag=_merge([check.send_lag for check in checks]),
        warnings=warnings,
    )


def _merge_operations(parts: Sequence[dict[str, OperationLatency]]) -> dict[str, OperationLatency]:
    merged = {}
    for kind in _names(parts):
        of_kind = [part[kind] for part in parts if kind in part]
        service_time = _merge([latency.service_time for latency in of_kind])
        if service_time is not None:
            merged[kind] = OperationLatency(
                from_intended_send=_merge([latency.from_intended_send for latency in of_kind]),
                service_time=service_time,
            )
    return merged


def _merge(latencies: Iterable[Latency | None]) -> Latency | None:
    return Histogram.merge([each.hdr for each in latencies if each is not None]).summary()


def _names(parts: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for part in parts for name in part))
