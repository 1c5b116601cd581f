"""What the service has spent, by its own metrics, wherever it runs.

Two readings, taken while no work is in flight, and their difference are a cost. A series that is
missing is an error: an absent counter read as 0 would make any strategy look free. Of a service of
several workers each series is the sum over all its processes.
"""

import asyncio
import time
from collections.abc import Container, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlencode

from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel, ConfigDict

from connect_actor.network.connections import http_get

__all__ = ["Cost", "MetricsError", "Reading", "cost_between", "read_metrics", "scrape", "take"]

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
# What a kernel may not account for, probes that a service may be built without, and what only the
# crash run shows.
_OPTIONAL = (
    "process_cpu_seconds_total",
    "process_resident_memory_peak_bytes",
    "connect_disk_written_bytes_total",
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


class Cost(BaseModel):
    """What the load cost the service: differences between two moments without work in flight."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: int
    cpu_seconds: float | None
    cpu_share: float | None
    """CPU seconds per second of the whole phase."""
    peak_rss_bytes: float | None
    records: float
    record_bytes: float
    """Before sealing."""
    commits: float
    snapshots: float
    snapshot_bytes: float
    journal_growth_bytes: float
    """Growth of the journal by its own account (gauge ``connect_journal_disk_bytes``)."""
    disk_write_bytes: float | None
    """Bytes that the service caused to be written to storage."""
    file_growth_bytes: int | None
    """Growth of all files in the data directory; null of a service that runs elsewhere."""
    duration_seconds: float
    """Between the two moments."""
    gc_collections: float | None
    """Of all generations."""
    gc_pause_seconds: float | None
    """Time that the collector held the service up."""
    allocated_bytes: float | None
    """Bytes asked of Python's allocators by the whole process; null without the counting hook."""
    allocations: float | None
    """The same, as a number of requests."""


class MetricsError(Exception):
    """The service's metrics can't be read, or lack a series that a figure rests on."""


@dataclass(frozen=True, slots=True)
class Reading:
    """All counters at one moment."""

    taken_at: float
    """Seconds of the monotonic clock."""
    metrics: dict[str, float]
    file_bytes: int | None
    """Size of all files in the data directory, if it is ours."""


async def take(metrics_address: str, data_dir: Path | None = None) -> Reading:
    """Read the counters of a service.

    Args:
        metrics_address: HOST:PORT of its metrics.
        data_dir: its data directory, if that is on this machine.

    Raises:
        MetricsError: the metrics can't be read, or one is missing that every service has.
    """
    metrics = await scrape(metrics_address)
    if missing := [name for name in _REQUIRED if name not in metrics]:
        raise MetricsError(f"the service's metrics lack {', '.join(missing)}")
    return Reading(
        taken_at=time.monotonic(),
        metrics=metrics,
        file_bytes=None if data_dir is None else await asyncio.to_thread(_size_of_files, data_dir),
    )


async def scrape(metrics_address: str, names: Sequence[str] = ()) -> dict[str, float]:
    """Return the series that figures rest on, each summed over its labels, if it is there.

    Args:
        metrics_address: HOST:PORT of the metrics.
        names: the only ones to ask for: of a process's own metrics, which are cheap for it to tell.

    Raises:
        MetricsError: the metrics can't be read.
    """
    query = urlencode([("name[]", name) for name in names])
    text = await asyncio.to_thread(_fetch, metrics_address, query)
    if names and not text:
        # A service of before they could be asked for alone.
        text = await asyncio.to_thread(_fetch, metrics_address, "")
    return read_metrics(text, names or (*_REQUIRED, *_OPTIONAL))


def cost_between(before: Reading, after: Reading, messages: int) -> Cost:
    """Return what was spent between two readings, on so many messages.

    Raises:
        MetricsError: a counter has fallen, so the second reading lacks a part of the service.
    """

    def grown(name: str) -> float:
        growth = after.metrics[name] - before.metrics[name]
        if growth < 0 and name.endswith("_total"):
            raise MetricsError(
                f"the service's counter {name} has fallen from {before.metrics[name]:g} to"
                f" {after.metrics[name]:g}: it has restarted, or a worker did not answer"
            )
        return growth

    def grown_if_told(name: str) -> float | None:
        told = name in before.metrics and name in after.metrics
        return grown(name) if told else None

    seconds = after.taken_at - before.taken_at
    cpu_seconds = grown_if_told("process_cpu_seconds_total")
    file_growth = None
    if before.file_bytes is not None and after.file_bytes is not None:
        file_growth = after.file_bytes - before.file_bytes
    return Cost(
        messages=messages,
        cpu_seconds=cpu_seconds,
        cpu_share=None if cpu_seconds is None else cpu_seconds / seconds,
        peak_rss_bytes=after.metrics.get("process_resident_memory_peak_bytes"),
        records=grown("connect_journal_records_total"),
        record_bytes=grown("connect_journal_record_bytes_total"),
        commits=grown("connect_journal_commits_total"),
        snapshots=grown("connect_journal_snapshots_total"),
        snapshot_bytes=grown("connect_journal_snapshot_bytes_total"),
        journal_growth_bytes=grown("connect_journal_disk_bytes"),
        disk_write_bytes=grown_if_told("connect_disk_written_bytes_total"),
        file_growth_bytes=file_growth,
        duration_seconds=seconds,
        gc_collections=grown_if_told("python_gc_collections_total"),
        gc_pause_seconds=grown_if_told("connect_gc_pause_seconds_sum"),
        allocated_bytes=grown_if_told("connect_allocated_bytes_total"),
        allocations=grown_if_told("connect_allocations_total"),
    )


def read_metrics(text: str, names: Container[str]) -> dict[str, float]:
    """Return the series of these names that a text holds, each summed over its labels.

    Raises:
        MetricsError: the text is no Prometheus exposition.
    """
    found: dict[str, float] = {}
    try:
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name in names:
                    found[sample.name] = found.get(sample.name, 0.0) + sample.value
    except (ValueError, LookupError) as error:
        # What the parser raises, by where it stumbles.
        raise MetricsError(f"the service's metrics can't be parsed: {error}") from None
    return found


def _fetch(address: str, query: str) -> str:
    try:
        status, body = http_get(address, f"/metrics?{query}", _HTTP_TIMEOUT)
    except OSError as error:
        raise MetricsError(f"no metrics from http://{address}/metrics: {error}") from None
    if status != HTTPStatus.OK:
        raise MetricsError(f"http://{address}/metrics answered with status {status}")
    return body.decode(errors="replace")


def _size_of_files(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            # Deleted between listing and asking.
            continue
    return total
