"""The figures of a load: what each is called, what it means, how it is worked out.

Result files, tables and reports all go by this list, so a figure can't mean one thing here and
another there.
"""

import functools
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files

from connect_loadgen.drive.figures import Latency, LoadFigures
from connect_loadgen.drive.recording import Histogram
from connect_loadgen.experiment.results import Recovery, Round
from connect_loadgen.service.cost import Cost

__all__ = ["FIGURE", "FIGURES", "Figure", "latency_of", "round_of", "warnings_about"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a load."""

    name: str
    """Key in the result file; ends in its unit where it has one."""
    title: str
    unit: str
    more_is_better: bool | None
    """Nothing where more is neither better nor worse."""
    meaning: str
    """What it is and how it is obtained."""


def _figures() -> tuple[Figure, ...]:
    text = files(__package__).joinpath("figures.toml").read_text(encoding="utf-8")
    better = {"more": True, "less": False, None: None}
    return tuple(
        Figure(
            each["name"], each["title"], each["unit"], better[each.get("better")], each["meaning"]
        )
        for each in tomllib.loads(text)["figure"]
    )


FIGURES = _figures()
FIGURE = {figure.name: figure for figure in FIGURES}


def round_of(
    load: LoadFigures, cost: Cost | None, recovery: Recovery | None, *, is_durable: bool = True
) -> Round:
    """Return the round of a load.

    Args:
        load: what it did.
        cost: to the service, if its counters were read.
        recovery: how the service came back, if it was tried.
        is_durable: whether the journal is on disk; in memory, what the process writes are logs.
    """
    figures: dict[str, float | None] = {
        "messages_per_second": load.messages_per_second,
        "p50_ms": None,
        "p99_ms": None,
        "p99_9_ms": None,
    }
    if (latency := latency_of([load])) is not None:
        figures |= {
            "p50_ms": latency.p50_us / 1000,
            "p99_ms": latency.p99_us / 1000,
            "p99_9_ms": latency.p99_9_us / 1000,
        }
    if cost is not None:
        figures |= _cost_of(cost, is_durable=is_durable)
    back = recovery
    figures |= {
        "restart_seconds": None if back is None else back.start_seconds,
        "restore_seconds": None if back is None else back.restore_seconds,
        "restored_channels_per_second": None if back is None else back.channels_per_second,
    }
    return Round(
        figures=figures,
        generator_bound=not load.generator.is_valid,
        load=load,
        cost=cost,
        recovery=recovery,
    )


def _cost_of(cost: Cost, *, is_durable: bool) -> dict[str, float | None]:
    def each(amount: float | None, times: float = 1) -> float | None:
        return amount / cost.messages * times if amount is not None and cost.messages else None

    paused, peak = cost.gc_pause_seconds, cost.peak_rss_bytes
    return {
        "cpu_seconds_per_1000_messages": each(cost.cpu_seconds, 1000),
        "record_bytes_per_message": each(cost.record_bytes),
        "snapshot_bytes_per_message": each(cost.snapshot_bytes),
        "disk_write_bytes_per_message": each(cost.disk_write_bytes) if is_durable else None,
        "file_growth_bytes_per_message": each(cost.file_growth_bytes) if is_durable else None,
        "commits": cost.commits,
        "messages_per_commit": cost.messages / cost.commits if cost.commits else None,
        "snapshots": cost.snapshots,
        "peak_memory_mb": None if peak is None else peak / 1e6,
        "allocated_bytes_per_message": each(cost.allocated_bytes),
        "allocations_per_message": each(cost.allocations),
        "gc_collections_per_1000_messages": each(cost.gc_collections, 1000),
        "gc_pause_share": None if paused is None else paused / cost.duration_seconds,
    }


def latency_of(loads: Iterable[LoadFigures]) -> Latency | None:
    """Return the latency of all operations of the loads, of any kind, as one distribution."""
    return _merged(
        tuple(
            (latency.from_intended_send or latency.service_time).hdr
            for load in loads
            for latency in load.latency.values()
        )
    )


# The report asks for the same merge several times: each takes 20 ms.
@functools.lru_cache(maxsize=1024)
def _merged(histograms: tuple[str, ...]) -> Latency | None:
    return Histogram.merge(list(histograms)).summary()


def warnings_about(rounds: Iterable[Round], where: str) -> list[str]:
    """Return what a reader of these rounds has to know, a line each."""
    warnings: list[str] = []
    for each in rounds:
        load, back = each.load, each.recovery
        if load is None:
            continue
        told = [] if load.stopped is None else [f"stopped early: {load.stopped}"]
        if not load.generator.is_valid:
            told.append(f"{load.generator.verdict}; the round is left out")
        told += load.generator.warnings
        if load.skipped_at_cap:
            told.append(
                f"{load.skipped_at_cap} sends were skipped at the cap on what is in flight: the"
                " service did not keep up with the rate"
            )
        if load.verification_failures:
            told.append(f"{load.verification_failures} answers were WRONG")
        if load.errors:
            told.append(f"operations failed: {load.errors}")
        if back is not None and back.verified_channels < back.channels:
            told.append(
                f"after the restart only {back.verified_channels} of {back.channels} channels"
                " carried a message each way UNHARMED"
            )
        warnings += [f"{where}, round {each.number}: {text}" for text in told]
    return warnings
