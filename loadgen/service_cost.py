"""What the service has spent: its own counters, and what the kernel says about its process.

Two readings, taken while no work is in flight, and their difference are a cost. A series that is
missing is an error: an absent counter read as 0 would make any strategy look free.
"""

import asyncio
import http.client
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from prometheus_client.parser import text_string_to_metric_families

from loadgen.results import Cost
from loadgen.service_process import ServiceProcess

__all__ = ["MeteredProcess", "MetricsError", "Reading", "cost_between", "read_metrics", "take"]

_REQUIRED = (
    "connect_journal_records_total",
    "connect_journal_record_bytes_total",
    "connect_journal_commits_total",
    "connect_journal_snapshots_total",
    "connect_journal_snapshot_bytes_total",
    "connect_journal_disk_bytes",
    "connect_actors_live",
    "connect_actor_recoveries_total",
)
# Probes of the runtime, which a service may be built without, and what only the crash run shows.
_OPTIONAL = (
    "connect_actor_passivations_total",
    "connect_recovered_records_total",
    "connect_journal_records_deleted_total",
    "connect_journal_snapshots_deleted_total",
    "connect_streams_open",
    "python_gc_collections_total",
    "connect_gc_pause_seconds_sum",
    "connect_allocated_bytes_total",
    "connect_allocations_total",
)
_HTTP_TIMEOUT = 10.0
_HTTP_OK = 200


class MetricsError(Exception):
    """The service's metrics can't be read, or lack a series that a figure rests on."""


@dataclass(frozen=True, slots=True)
class MeteredProcess:
    """A service whose CPU, memory and disk writes can be read: a process and its children."""

    pid: int
    data_dir: Path

    @classmethod
    def of(cls, service: ServiceProcess) -> "MeteredProcess":
        """Return what can be read of a service that we started."""
        return cls(service.pid, service.options.data_dir)


@dataclass(frozen=True, slots=True)
class _ProcessReading:
    cpu_seconds: float
    peak_rss_bytes: int
    disk_write_bytes: int
    file_bytes: int


@dataclass(frozen=True, slots=True)
class Reading:
    """All counters at one moment."""

    taken_at: float
    """Seconds of the monotonic clock."""
    metrics: dict[str, float]
    process: _ProcessReading | None


async def take(metrics_address: str, process: MeteredProcess | None) -> Reading:
    """Read the counters of a service.

    Args:
        metrics_address: HOST:PORT of its metrics.
        process: the process itself, if it is ours.

    Raises:
        MetricsError: the metrics can't be had, or not all of them.
    """
    metrics = await asyncio.to_thread(_fetch, metrics_address)
    return Reading(
        taken_at=time.monotonic(),
        metrics=read_metrics(metrics),
        process=None if process is None else await asyncio.to_thread(_read_process, process),
    )


def cost_between(before: Reading, after: Reading, messages: int) -> Cost:
    """Return what was spent between two readings, on so many messages."""

    def grown(name: str) -> float:
        return after.metrics[name] - before.metrics[name]

    def grown_if_told(name: str) -> float | None:
        told = name in before.metrics and name in after.metrics
        return grown(name) if told else None

    seconds = after.taken_at - before.taken_at
    cpu_seconds = disk_writes = file_growth = peak_rss = cpu_share = None
    if before.process is not None and after.process is not None:
        cpu_seconds = after.process.cpu_seconds - before.process.cpu_seconds
        cpu_share = cpu_seconds / seconds
        disk_writes = after.process.disk_write_bytes - before.process.disk_write_bytes
        file_growth = after.process.file_bytes - before.process.file_bytes
        peak_rss = after.process.peak_rss_bytes
    return Cost(
        messages=messages,
        cpu_seconds=cpu_seconds,
        cpu_share=cpu_share,
        peak_rss_bytes=peak_rss,
        records=grown("connect_journal_records_total"),
        record_bytes=grown("connect_journal_record_bytes_total"),
        commits=grown("connect_journal_commits_total"),
        snapshots=grown("connect_journal_snapshots_total"),
        snapshot_bytes=grown("connect_journal_snapshot_bytes_total"),
        journal_growth_bytes=grown("connect_journal_disk_bytes"),
        disk_write_bytes=disk_writes,
        file_growth_bytes=file_growth,
        duration_seconds=seconds,
        gc_collections=grown_if_told("python_gc_collections_total"),
        gc_pause_seconds=grown_if_told("connect_gc_pause_seconds_sum"),
        allocated_bytes=grown_if_told("connect_allocated_bytes_total"),
        allocations=grown_if_told("connect_allocations_total"),
    )


def read_metrics(text: str) -> dict[str, float]:
    """Return the series that figures rest on, each summed over its labels.

    Raises:
        MetricsError: one of them is missing, or the text is no Prometheus exposition.
    """
    found: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in _REQUIRED or sample.name in _OPTIONAL:
                    found[sample.name] = found.get(sample.name, 0.0) + sample.value
    except (ValueError, LookupError) as error:
        # What the parser raises, by where it stumbles.
        raise MetricsError(f"the service's metrics can't be parsed: {error}") from None
    if missing := [name for name in _REQUIRED if name not in found]:
        raise MetricsError(f"the service's metrics lack {', '.join(missing)}")
    return found


def _fetch(address: str) -> str:
    connection = http.client.HTTPConnection(address, timeout=_HTTP_TIMEOUT)
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise MetricsError(f"no metrics from http://{address}/metrics: {error}") from None
    finally:
        connection.close()
    if response.status != _HTTP_OK:
        raise MetricsError(f"http://{address}/metrics answered with status {response.status}")
    return body.decode(errors="replace")


def _read_process(metered: MeteredProcess) -> _ProcessReading:
    try:
        process = psutil.Process(metered.pid)
        processes = [process, *process.children()]
        times = [one.cpu_times() for one in processes]
        writes = sum(one.io_counters().write_bytes for one in processes)
        peak = sum(_peak_rss(one.pid) for one in processes)
    except (psutil.Error, OSError) as error:
        raise MetricsError(f"the service's process can't be read: {error}") from None
    return _ProcessReading(
        cpu_seconds=sum(one.user + one.system for one in times),
        peak_rss_bytes=peak,
        disk_write_bytes=writes,
        file_bytes=_size_of_files(metered.data_dir),
    )


def _peak_rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise MetricsError("/proc tells no peak memory of the service")


def _size_of_files(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            # Deleted between listing and asking.
            continue
    return total
