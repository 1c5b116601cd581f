"""The three strategies side by side, on the same axes: what a message costs with each."""

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import units

from grafana.dashboards.kit import Line, Panel, chart, dashboard
from grafana.dashboards.queries import (
    OPERATION,
    STRATEGY,
    mean,
    process_of_service,
    quantile,
    rate,
    ratio,
    relative,
    rule,
    value,
)

__all__ = ["build"]

_NO_HOOK = "No allocation hook here (connect_allocation_probe_info says none), or no load."
_NO_FULL = "No service with strategy full among the chosen instances, or no load."
_NO_DISK = "The kernel doesn't tell what is written, or no load."
_NO_RECOVERY = "No channel has come back from the journal in this time range."

_QUARTER = 6

_CPU = "instance_strategy:process_cpu_seconds_per_changes:ratio_rate1m"
_JOURNAL = "instance_strategy:connect_journal_bytes_per_changes:ratio_rate1m"
_DISK = "instance_strategy:connect_disk_written_bytes_per_changes:ratio_rate1m"
_ALLOCATED = "instance_strategy:connect_allocated_bytes_per_changes:ratio_rate1m"


def build() -> builders.Dashboard:
    """Return the dashboard."""
    return dashboard(
        "strategies",
        "What persisting a session costs with each strategy. Fair only while all bear the same"
        " load.",
        {
            "Is it a fair comparison? Only while all strategies serve the same": _service(),
            "What the disk pays for a message": _disk(),
            "What the interpreter pays for a message": _interpreter(),
            "As multiples of full, which is 1: below is better": _multiples(),
            "What is owed later: memory, disk space and the way back from the journal": _later(),
        },
        by_operation=True,
    )


def _service() -> list[Panel]:
    return [
        chart(
            "Throughput: under the same load, lower means it can't keep up",
            "Messages encrypted or decrypted per second. In an open loop all should be equal.",
            units.MessagesPerSecond,
            Line(
                rule("instance_strategy:connect_changes:rate1m", STRATEGY, how="sum"),
                "{{strategy}}",
            ),
            width=_QUARTER,
        ),
        chart(
            "p99 of the service: lower is better",
            "99th percentile of the time from an operation's arrival to its answer.",
            units.Seconds,
            Line(
                quantile(0.99, "connect_operation_duration_seconds", STRATEGY, OPERATION),
                "{{strategy}}",
            ),
            width=_QUARTER,
        ),
        chart(
            "p99 of the client: what its users would see",
            "99th percentile of the time from when an operation was due to its last answer, over a"
            " minute.",
            units.Seconds,
            Line(
                rule("instance_strategy:loadgen_latency_seconds:p99_rate1m", STRATEGY, how="max"),
                "{{strategy}}",
            ),
            width=_QUARTER,
            empty="No generator among the chosen instances, or it does not run.",
        ),
        chart(
            "Errors: none, or the rest compares apples and pears",
            "Share of answers other than OK over a minute.",
            units.PercentUnit,
            Line(
                rule(
                    "instance_strategy:connect_operation_errors_per_operations:ratio_rate1m",
                    STRATEGY,
                    how="max",
                ),
                "{{strategy}}",
            ),
            width=_QUARTER,
        ),
    ]


def _disk() -> list[Panel]:
    return [
        chart(
            "Journal bytes per message: what the strategy chose to write",
            "Records and snapshots, before sealing, over messages. This is what the strategies"
            " differ in by design.",
            units.BytesIEC,
            Line(rule(_JOURNAL, STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Disk bytes per message: pages and log included, they differ less",
            "What the process made the kernel write, over messages: whole pages, write-ahead log"
            " and checkpoints. More messages in a commit share them.",
            units.BytesIEC,
            Line(
                rule(_DISK, STRATEGY),
                "{{strategy}}",
            ),
            empty=_NO_DISK,
        ),
        chart(
            "Write amplification: bytes on disk for each byte that had to be written",
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
            "CPU per message: lower is cheaper, and it falls as frames and commits fill",
            "CPU time of the whole process, gRPC included, over messages. Its parts for each frame"
            " and each commit are shared by more messages under more load, so it says nothing of"
            " what a core can serve at most; `loadgen compare` does.",
            units.Seconds,
            Line(rule(_CPU, STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Allocation per message: the audit's claim is about this",
            "Bytes asked of Python's allocators over messages, whatever is freed again. The native"
            " heap (gRPC's core, OpenSSL, SQLite) is not in it.",
            units.BytesIEC,
            Line(rule(_ALLOCATED, STRATEGY), "{{strategy}}"),
            empty=_NO_HOOK,
        ),
        chart(
            "Allocations per message: how many, whatever their size",
            "Requests to Python's allocators over messages.",
            units.Short,
            Line(
                rule("instance_strategy:connect_allocations_per_changes:ratio_rate1m", STRATEGY),
                "{{strategy}}",
            ),
            empty=_NO_HOOK,
        ),
        chart(
            "GC: share of time in which the collector stops all threads",
            "Time of collections by the cyclic collector, over time. Objects freed by reference"
            " count, as most are, cost nothing here.",
            units.PercentUnit,
            Line(
                rule("instance_strategy:connect_gc_pause_seconds:rate1m", STRATEGY), "{{strategy}}"
            ),
        ),
        chart(
            "Commit: how long one takes, whatever is in it",
            "Mean time in the journal of a commit, sealing and sync included.",
            units.Seconds,
            Line(mean("connect_journal_commit_duration_seconds", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Records per commit: what shares one sync",
            "Mean. Higher under more load: that is what makes commits cheap.",
            units.Short,
            Line(mean("connect_journal_commit_records", STRATEGY), "{{strategy}}"),
        ),
    ]


def _multiples() -> list[Panel]:
    return [
        chart(
            f"{what}: full is 1",
            f"{what} per message, as a multiple of what full takes.",
            units.Short,
            Line(relative(name), "{{strategy}}"),
            width=_QUARTER,
            empty=_NO_FULL,
        )
        for what, name in (
            ("Journal bytes", _JOURNAL),
            ("Disk bytes", _DISK),
            ("Allocated bytes", _ALLOCATED),
            ("CPU time", _CPU),
        )
    ]


def _later() -> list[Panel]:
    return [
        chart(
            "Recovery: where differential may pay, by the records that it replays",
            "Mean time from the permit to the session: reading the last record for full and cached,"
            " a snapshot and deriving anew what follows it for differential. An actor leaves a"
            " snapshot before it rests, so after a rest there is little between them.",
            units.Seconds,
            Line(mean("connect_actor_recovery_duration_seconds", STRATEGY), "{{strategy}}"),
            empty=_NO_RECOVERY,
        ),
        chart(
            "Records replayed: 0 after a rest, up to the snapshot interval after a crash",
            "Records behind a snapshot that recoveries have read, for each of them.",
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
            "Journal on disk: level once deletion keeps up",
            "Size of the journal's files at each scrape.",
            units.BytesIEC,
            Line(value("connect_journal_disk_bytes", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Memory: about equal, as the same sessions are alive",
            "Resident set of each strategy's service, native heap included.",
            units.BytesIEC,
            Line(process_of_service("{}", "process_resident_memory_bytes"), "{{strategy}}"),
        ),
        chart(
            "Snapshots: before a rest and at intervals, whatever the strategy",
            "Snapshots made durable per second.",
            units.WritesPerSecond,
            Line(rate("connect_journal_snapshots_total", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Deletions: in bulk, behind snapshots",
            "Records physically deleted per second.",
            units.OpsPerSecond,
            Line(rate("connect_journal_records_deleted_total", STRATEGY), "{{strategy}}"),
        ),
    ]
