"""The three strategies side by side, on the same axes: what a message costs with each."""

from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import units

from grafana.dashboards.kit import (
    Line,
    Panel,
    Section,
    chart,
    comparison,
    dashboard,
    latency,
)
from grafana.dashboards.queries import (
    OPERATION,
    STRATEGY,
    against_full,
    buckets,
    mean,
    process_of_service,
    quantile,
    rate,
    ratio,
    rule,
    selector,
    value,
)

__all__ = ["ANSWERS", "Answer", "build"]

_NO_HOOK = "No allocation hook here (connect_allocation_probe_info says none), or no load."
_NO_DISK = "The kernel doesn't tell what is written, or no load."
_NO_RECOVERY = "No channel has come back from the journal in this time range."

_EQUAL = "Of each message in the part of equal load, over the time range; full is 1."


class Answer(NamedTuple):
    """What a course shows: each strategy's figure as a multiple of full's."""

    title: str
    description: str
    query: str
    is_fraction: bool = False
    """Whether the query's value is how many times full's figure is the strategy's."""

    def panel(self) -> Panel:
        """Return it as a panel."""
        line = Line(self.query, "{{strategy}}")
        unit, decimals = ("prefix:1/", 0) if self.is_fraction else ("suffix:x", 2)
        return comparison(self.title, self.description, unit, line, decimals=decimals)

    def say(self, value: float) -> str:
        """Return a value of the query as the panel shows it."""
        return f"1/{value:.0f}" if self.is_fraction else f"{value:.2f}x"


def _per_message_at_equal_load(title: str, what: str, description: str) -> Answer:
    query = against_full(what, "open", per_message=True)
    return Answer(title, f"{description} {_EQUAL}", query)


ANSWERS = (
    Answer(
        "Messages",
        "Messages per second at the limit, where all services have the same CPU; full is 1. Higher"
        " is better.",
        against_full("connect_changes", "closed", per_message=False),
    ),
    _per_message_at_equal_load(
        "CPU", "process_cpu_seconds", "CPU time of the whole service, gRPC included."
    ),
    _per_message_at_equal_load(
        "Allocation",
        "connect_allocated_bytes",
        "Bytes asked of Python's allocators. Empty without the allocation hook.",
    ),
    _per_message_at_equal_load(
        "Disk bytes",
        "connect_disk_written_bytes",
        "Bytes that the kernel wrote: whole pages, write-ahead log and checkpoints.",
    ),
    Answer(
        "Journal bytes",
        f"Records and snapshots, before sealing, as a fraction of full's. {_EQUAL}",
        against_full("connect_journal_bytes", "open", per_message=True, inverse=True),
        is_fraction=True,
    ),
)
"""The first row of the dashboard."""

_JOURNAL_BYTES = (
    f"({rate('connect_journal_record_bytes_total', STRATEGY)}"
    f" + {rate('connect_journal_snapshot_bytes_total', STRATEGY)})"
)
_CPU_CORES = process_of_service("rate({}[$__rate_interval])", "process_cpu_seconds_total")


def build() -> builders.Dashboard:
    """Return the dashboard."""
    return dashboard(
        "strategies",
        "What persisting a session costs with each strategy. The demo stack gives all services an"
        " equal load, then all they can take, in turn.",
        Section("The answer: each strategy as a multiple of full", _answer()),
        Section("The course: an equal load, then the limit", _course()),
        Section("Latency", _latencies()),
        Section("Service", _service(), collapsed=True),
        Section("Disk", _disk(), collapsed=True),
        Section("Interpreter", _interpreter(), collapsed=True),
        Section("Memory, disk space and recovery", _later(), collapsed=True),
        by_operation=True,
    )


def _answer() -> list[Panel]:
    parts = [
        Line(f"min ({selector('loadgen_pacing', STRATEGY, matcher)}) == 1", name)
        for name, matcher in (("equal load", 'loop="open"'), ("limit", 'loop="closed"'))
    ]
    course = comparison(
        "Course",
        "The part that runs now. Equal load: every service gets the same messages per second,"
        " which shows what a message costs. Limit: every service gets as many as it can serve with"
        " the same CPU. The parts change by the wall clock.",
        units.Short,
        *parts,
        names_only=True,
    )
    return [course, *(answer.panel() for answer in ANSWERS)]


def _course() -> list[Panel]:
    return [
        chart(
            "Messages per second",
            "Messages encrypted or decrypted. In the part of equal load the lines lie on each"
            " other; at the limit they part.",
            units.MessagesPerSecond,
            Line(rate("connect_changes_total", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "CPU cores",
            "CPU time per second of each service. At equal load, lower is cheaper; at the limit all"
            " must have the same, or the comparison of messages is not fair.",
            units.Short,
            Line(_CPU_CORES, "{{strategy}}"),
        ),
        chart(
            "Journal bytes per second",
            "Records and snapshots, before sealing. This is what the strategies differ in by"
            " design.",
            units.BytesPerSecondIEC,
            Line(_JOURNAL_BYTES, "{{strategy}}"),
        ),
    ]


def _latencies() -> list[Panel]:
    return [
        latency(
            f"Duration, {strategy}",
            "Operations per second by how long they took, from arrival to answer.",
            buckets(
                "connect_operation_duration_seconds",
                STRATEGY,
                OPERATION,
                f'strategy="{strategy}"',
            ),
        )
        for strategy in ("full", "cached", "differential")
    ]


def _service() -> list[Panel]:
    return [
        chart(
            "p99, service",
            "99th percentile of the time from an operation's arrival to its answer.",
            units.Seconds,
            Line(
                quantile(0.99, "connect_operation_duration_seconds", STRATEGY, OPERATION),
                "{{strategy}}",
            ),
        ),
        chart(
            "p99, client",
            "99th percentile of the time from when an operation was due to its last answer, over a"
            " minute.",
            units.Seconds,
            Line(
                rule("instance_strategy:loadgen_latency_seconds:p99_rate1m", STRATEGY, how="max"),
                "{{strategy}}",
            ),
            empty="No generator among the chosen instances, or it does not run.",
        ),
        chart(
            "Error share",
            "Share of answers other than OK over a minute. Unless 0, the strategies don't do"
            " the same.",
            units.PercentUnit,
            Line(
                rule(
                    "instance_strategy:connect_operation_errors_per_operations:ratio_rate1m",
                    STRATEGY,
                    how="max",
                ),
                "{{strategy}}",
            ),
        ),
    ]


def _disk() -> list[Panel]:
    return [
        chart(
            "Journal bytes / message",
            "Records and snapshots, before sealing, over messages. This is what the strategies"
            " differ in by design.",
            units.BytesIEC,
            Line(_per_message(_JOURNAL_BYTES), "{{strategy}}"),
        ),
        chart(
            "Disk bytes / message",
            "What the process made the kernel write, over messages: whole pages, write-ahead log"
            " and checkpoints. More messages in a commit share them.",
            units.BytesIEC,
            Line(
                _per_message(rate("connect_disk_written_bytes_total", STRATEGY)),
                "{{strategy}}",
            ),
            empty=_NO_DISK,
        ),
        chart(
            "Write amplification",
            "What the kernel wrote over the size of the changes in differential form, the least"
            " that has to be written under any strategy.",
            units.Short,
            Line(
                rule(
                    "instance_strategy:connect_disk_written_bytes_per_change_bytes:ratio_rate1m",
                    STRATEGY,
                ),
                "{{strategy}}",
            ),
            empty=_NO_DISK,
        ),
    ]


def _interpreter() -> list[Panel]:
    return [
        chart(
            "CPU time / message",
            "CPU time of the whole process, gRPC included, over messages. Its parts for each frame"
            " and each commit are shared by more messages under more load, so it says nothing of"
            " what a core can serve at most; `loadgen compare` does.",
            units.Seconds,
            Line(_per_message(_CPU_CORES), "{{strategy}}"),
        ),
        chart(
            "Allocation / message",
            "Bytes asked of Python's allocators over messages, whatever is freed again. The"
            " native heap (gRPC's core, OpenSSL, SQLite) is not in it. The audit's claim is"
            " about this.",
            units.BytesIEC,
            Line(_per_message(rate("connect_allocated_bytes_total", STRATEGY)), "{{strategy}}"),
            empty=_NO_HOOK,
        ),
        chart(
            "Allocations / message",
            "Requests to Python's allocators over messages.",
            units.Short,
            Line(
                rule("instance_strategy:connect_allocations_per_changes:ratio_rate1m", STRATEGY),
                "{{strategy}}",
            ),
            empty=_NO_HOOK,
        ),
        chart(
            "GC share of time",
            "Time of collections by the cyclic collector, over time. Objects freed by reference"
            " count, as most are, cost nothing here.",
            units.PercentUnit,
            Line(
                rule("instance_strategy:connect_gc_pause_seconds:rate1m", STRATEGY), "{{strategy}}"
            ),
        ),
        chart(
            "Commit duration, mean",
            "Mean time in the journal of a commit, sealing and sync included.",
            units.Seconds,
            Line(mean("connect_journal_commit_duration_seconds", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Records per commit",
            "Mean. Higher under more load: that is what makes commits cheap.",
            units.Short,
            Line(mean("connect_journal_commit_records", STRATEGY), "{{strategy}}"),
        ),
    ]


def _later() -> list[Panel]:
    return [
        chart(
            "Recovery, mean",
            "Mean time from the permit to the session: reading the last record for full and cached,"
            " a snapshot and deriving anew what follows it for differential. An actor leaves a"
            " snapshot before it rests, so after a rest there is little between them.",
            units.Seconds,
            Line(mean("connect_actor_recovery_duration_seconds", STRATEGY), "{{strategy}}"),
            empty=_NO_RECOVERY,
        ),
        chart(
            "Records replayed",
            "Records behind a snapshot that recoveries have read, for each of them. 0 after a"
            " rest, up to the snapshot interval after a crash.",
            units.Short,
            Line(
                ratio(
                    rate("connect_recovered_records_total", STRATEGY),
                    rate("connect_actor_recoveries_total", STRATEGY),
                ),
                "{{strategy}}",
            ),
            empty=_NO_RECOVERY,
        ),
        chart(
            "Journal on disk",
            "Size of the journal's files at each scrape. Level once deletion keeps up.",
            units.BytesIEC,
            Line(value("connect_journal_disk_bytes", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Resident memory",
            "Resident set of each strategy's service, native heap included. About equal, since"
            " the same sessions are alive.",
            units.BytesIEC,
            Line(process_of_service("{}", "process_resident_memory_bytes"), "{{strategy}}"),
        ),
        chart(
            "Snapshots",
            "Snapshots made durable per second.",
            units.WritesPerSecond,
            Line(rate("connect_journal_snapshots_total", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Deletions",
            "Records physically deleted per second.",
            units.OpsPerSecond,
            Line(rate("connect_journal_records_deleted_total", STRATEGY), "{{strategy}}"),
        ),
    ]


def _per_message(amount: str) -> str:
    return ratio(amount, rate("connect_changes_total", STRATEGY))
