"""Inside the services: allocation, garbage collection, event loop, journal, actors and streams."""

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import units

from grafana.dashboards.kit import Limit, Line, Panel, Section, chart, dashboard, figure
from grafana.dashboards.queries import (
    STRATEGY,
    increase,
    mean,
    process_of_service,
    quantile,
    rate,
    rule,
    value,
)

__all__ = ["build"]

_NO_HOOK = "No allocation hook here (connect_allocation_probe_info says none)."
_NO_RECOVERY = "No channel has come back from the journal in this time range."
_NO_STREAM = "No Exchange stream in this time range."
_NO_COLLECTION = "No collection in this time range."

_HALF = 12
_QUARTER = 6


def build() -> builders.Dashboard:
    """Return the dashboard."""
    return dashboard(
        "runtime",
        "What the services' interpreters, journals and actors are busy with.",
        Section("Services and failures", _figures()),
        Section("Allocation and memory", _memory(), collapsed=True),
        Section("Garbage collection and event loop", _collector(), collapsed=True),
        Section("Journal and commits", _journal(), collapsed=True),
        Section("Actors and recovery", _actors(), collapsed=True),
        Section("Channels and streams", _streams(), collapsed=True),
        by_operation=False,
    )


def _figures() -> list[Panel]:
    started = process_of_service("{}", "process_start_time_seconds", by="instance, worker")
    return [
        figure(
            "Services",
            "Number of services, or of their workers, of each strategy and version.",
            units.Short,
            Line(
                value("connect_service_info", STRATEGY, by="strategy, version"),
                "{{strategy}} {{version}}",
            ),
            width=8,
            empty="no service",
        ),
        figure(
            "Uptime",
            "Time since the youngest of the chosen services has started. Small after a restart.",
            units.Seconds,
            Line(f"time() - max({started})", "up"),
            empty="no service",
        ),
        figure(
            "Failed commits",
            "Commits of unknown outcome, and requests to the journal given up on, in this time"
            " range. Channels recover by themselves; see docs/how-to/alerts.md.",
            units.Short,
            Line(
                f"{increase('connect_journal_commit_failures_total', STRATEGY, by='')}"
                f" + {increase('connect_journal_timeouts_total', STRATEGY, by='')}",
                "failed",
            ),
            limit=Limit(1),
            decimals=0,
            empty="no service",
        ),
        figure(
            "Failed loads",
            "Loads that ended with an error in this time range: journal unreadable, or damaged.",
            units.Short,
            Line(increase("connect_actor_recovery_failures_total", STRATEGY, by=""), "failed"),
            limit=Limit(1),
            decimals=0,
            empty="no service",
        ),
        figure(
            "Actor crashes",
            "Actors that met a defect in this time range; they restart from the journal. Each"
            " is a defect to report.",
            units.Short,
            Line(increase("connect_actor_crashes_total", STRATEGY, by=""), "crashed"),
            limit=Limit(1),
            decimals=0,
            empty="no service",
        ),
    ]


def _memory() -> list[Panel]:
    return [
        chart(
            "Allocation",
            "Bytes asked of Python's allocators. Gross, and of Python alone: the native heap"
            " (gRPC's core, OpenSSL, SQLite) is not in it. Scrapes are.",
            units.BytesPerSecondIEC,
            Line(rate("connect_allocated_bytes_total", STRATEGY), "{{strategy}}"),
            empty=_NO_HOOK,
        ),
        chart(
            "Allocation by domain",
            "Bytes asked of each of Python's allocators, all chosen services together. obj is"
            " Python's objects, mem and raw are buffers.",
            units.BytesPerSecondIEC,
            Line(rate("connect_allocated_bytes_total", STRATEGY, by="domain"), "{{domain}}"),
            stacked=True,
            empty=_NO_HOOK,
        ),
        chart(
            "Allocations per message",
            "Requests to Python's allocators over messages.",
            units.Short,
            Line(
                rule("instance_strategy:connect_allocations_per_changes:ratio_rate1m", STRATEGY),
                "{{strategy}}",
            ),
            empty=_NO_HOOK,
        ),
        chart(
            "Blocks alive",
            "Blocks of up to 512 bytes alive in pymalloc. Net: what is allocated and freed"
            " between two scrapes does not show. Growing without end: a leak.",
            units.Short,
            Line(value("connect_allocated_blocks", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Resident memory",
            "Resident set of the process, native heap included. Growing while blocks are level:"
            " a leak outside Python.",
            units.BytesIEC,
            Line(process_of_service("{}", "process_resident_memory_bytes"), "{{strategy}}"),
        ),
        chart(
            "Open files",
            "Open file descriptors as a share of what the process may have. At the limit,"
            " connections are refused.",
            units.PercentUnit,
            Line(
                f"{process_of_service('{}', 'process_open_fds')}"
                f" / {process_of_service('{}', 'process_max_fds')}",
                "{{strategy}}",
            ),
        ),
    ]


def _collector() -> list[Panel]:
    return [
        chart(
            "Collections",
            "Collections per second by generation, all chosen services together. Generation 0"
            " often, 2 seldom.",
            units.CountsPerSecond,
            Line(
                rate("connect_gc_pause_seconds_count", STRATEGY, by="generation"),
                "generation {{generation}}",
            ),
        ),
        chart(
            "Pause, mean",
            "Mean time of a collection by generation. Operations that meet one wait for it.",
            units.Seconds,
            Line(
                mean("connect_gc_pause_seconds", STRATEGY, by="generation"),
                "generation {{generation}}",
            ),
            empty=_NO_COLLECTION,
        ),
        chart(
            "GC share of time",
            "Time of collections over time.",
            units.PercentUnit,
            Line(
                rule("instance_strategy:connect_gc_pause_seconds:rate1m", STRATEGY), "{{strategy}}"
            ),
        ),
        chart(
            "Garbage in cycles",
            "Objects per second that collections found unreachable, by strategy.",
            units.CountsPerSecond,
            Line(
                process_of_service(
                    "sum by (job, instance) (rate({}[$__rate_interval]))",
                    "python_gc_objects_collected_total",
                ),
                "{{strategy}}",
            ),
        ),
        chart(
            "Event loop lag, median",
            "How late the loop wakes, sampled every 100 ms: 50th percentile. Late: the loop is"
            " overloaded.",
            units.Seconds,
            Line(quantile(0.5, "connect_event_loop_lag_seconds", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Event loop lag, p99",
            "How late the loop wakes, sampled every 100 ms: 99th percentile. Late here alone:"
            " something blocks the loop.",
            units.Seconds,
            Line(quantile(0.99, "connect_event_loop_lag_seconds", STRATEGY), "{{strategy}}"),
        ),
    ]


def _journal() -> list[Panel]:
    return [
        chart(
            "Commits",
            "Transactions made durable per second. One at a time: this times their duration is"
            " how busy the journal is.",
            units.WritesPerSecond,
            Line(rate("connect_journal_commits_total", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Commit duration",
            "50th and 99th percentile of the time in the journal, sealing and sync included. No"
            " answer leaves before its commit ends.",
            units.Seconds,
            Line(
                quantile(0.5, "connect_journal_commit_duration_seconds", STRATEGY),
                "{{strategy}}, median",
            ),
            Line(
                quantile(0.99, "connect_journal_commit_duration_seconds", STRATEGY),
                "{{strategy}}, p99",
            ),
        ),
        chart(
            "Records per commit",
            "Mean number of records in a commit. Grows under load.",
            units.Short,
            Line(mean("connect_journal_commit_records", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Bytes written",
            "Records and snapshots before sealing; and what the process made the kernel write,"
            " whole pages, log and checkpoints included.",
            units.BytesPerSecondIEC,
            Line(
                f"{rate('connect_journal_record_bytes_total', STRATEGY)}"
                f" + {rate('connect_journal_snapshot_bytes_total', STRATEGY)}",
                "{{strategy}}, journal",
            ),
            Line(rate("connect_disk_written_bytes_total", STRATEGY), "{{strategy}}, disk"),
        ),
        chart(
            "Write amplification",
            "What the kernel wrote over the least that has to be written under any strategy.",
            units.Short,
            Line(
                rule(
                    "instance_strategy:connect_disk_written_bytes_per_change_bytes:ratio_rate1m",
                    STRATEGY,
                ),
                "{{strategy}}",
            ),
            empty="The kernel doesn't tell what is written, or no load.",
        ),
        chart(
            "Records made and deleted",
            "Records made durable and physically deleted per second. Deletion works in bulk,"
            " behind snapshots. Equal in the long run.",
            units.WritesPerSecond,
            Line(rate("connect_journal_records_total", STRATEGY), "{{strategy}}, made"),
            Line(rate("connect_journal_records_deleted_total", STRATEGY), "{{strategy}}, deleted"),
        ),
        chart(
            "Journal on disk",
            "Size of the journal's files at each scrape. Level once deletion keeps up.",
            units.BytesIEC,
            Line(value("connect_journal_disk_bytes", STRATEGY), "{{strategy}}"),
            width=_HALF,
        ),
        chart(
            "Journal errors",
            "Per second, all chosen services together: commits of unknown outcome, requests"
            " given up on, and writes refused, as those of a second writer are. All must be 0.",
            units.OpsPerSecond,
            Line(rate("connect_journal_commit_failures_total", STRATEGY, by=""), "failed"),
            Line(rate("connect_journal_timeouts_total", STRATEGY, by=""), "given up"),
            Line(rate("connect_journal_rejections_total", STRATEGY, by=""), "refused"),
            width=_HALF,
        ),
    ]


def _actors() -> list[Panel]:
    return [
        chart(
            "Live actors",
            "Channels with an actor, at each scrape. Idle ones passivate and wait in the journal.",
            units.Short,
            Line(value("connect_actors_live", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Passivation and recovery",
            "Actors per second that were told to stop as they were idle, and channels per second"
            " that came back from the journal, or were refused as too many were coming.",
            units.OpsPerSecond,
            Line(rate("connect_actor_passivations_total", STRATEGY), "{{strategy}}, passivated"),
            Line(rate("connect_actor_recoveries_total", STRATEGY), "{{strategy}}, recovered"),
            Line(rate("connect_recovery_permit_refusals_total", STRATEGY), "{{strategy}}, refused"),
        ),
        chart(
            "Recovery duration",
            "50th and 99th percentile of the time from the permit to the session, and the 99th"
            " of the wait for the permit. The first message after a rest waits as long.",
            units.Seconds,
            Line(
                quantile(0.5, "connect_actor_recovery_duration_seconds", STRATEGY),
                "{{strategy}}, median",
            ),
            Line(
                quantile(0.99, "connect_actor_recovery_duration_seconds", STRATEGY),
                "{{strategy}}, p99",
            ),
            Line(
                quantile(0.99, "connect_recovery_permit_wait_seconds", STRATEGY),
                "{{strategy}}, p99 of the wait",
            ),
            empty=_NO_RECOVERY,
        ),
        chart(
            "Recovery permits",
            "Channels that are loading, and actors that wait to, at each scrape. Waiting for"
            " long: recoveries are the limit.",
            units.Short,
            Line(value("connect_recovery_permits_in_use", STRATEGY), "{{strategy}}, loading"),
            Line(value("connect_recovery_permits_waiting", STRATEGY), "{{strategy}}, waiting"),
        ),
        chart(
            "Mailbox depth, mean",
            "Mean number of messages that an actor finds when it gets a turn, the one that it"
            " then handles included. 1: no message waits for another.",
            units.Short,
            Line(mean("connect_mailbox_depth", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Actor errors",
            "Per second, all chosen services together: actors that met a defect, sessions"
            " thrown away as a commit failed, channels that could not be loaded, and messages"
            " refused by a full mailbox. All must be 0.",
            units.OpsPerSecond,
            Line(rate("connect_actor_crashes_total", STRATEGY, by=""), "crashed"),
            Line(rate("connect_actor_discards_total", STRATEGY, by=""), "discarded"),
            Line(rate("connect_actor_recovery_failures_total", STRATEGY, by=""), "not loaded"),
            Line(rate("connect_mailbox_rejections_total", STRATEGY, by=""), "mailbox full"),
        ),
    ]


def _streams() -> list[Panel]:
    return [
        chart(
            "Channels made",
            "Handshakes that made a channel, and channels ended durably, per second. A burst:"
            " peers that come anew.",
            units.OpsPerSecond,
            Line(rate("connect_channels_established_total", STRATEGY), "{{strategy}}, made"),
            Line(rate("connect_channels_closed_total", STRATEGY), "{{strategy}}, ended"),
            width=_QUARTER,
        ),
        chart(
            "Streams open",
            "Exchange streams open, at each scrape. None: unary calls, or no client.",
            units.Short,
            Line(value("connect_streams_open", STRATEGY), "{{strategy}}"),
            width=_QUARTER,
        ),
        chart(
            "Frames per second",
            "Frames per second on Exchange streams. gRPC's work is paid by the frame.",
            units.OpsPerSecond,
            Line(
                rate("connect_stream_frames_total", STRATEGY, by="direction, strategy"),
                "{{strategy}}, {{direction}}",
            ),
            width=_QUARTER,
            empty=_NO_STREAM,
        ),
        chart(
            "Operations / frame",
            "Mean number of operations in a frame. The more, the cheaper each.",
            units.Short,
            Line(
                mean("connect_stream_frame_operations", STRATEGY, by="direction, strategy"),
                "{{strategy}}, {{direction}}",
            ),
            width=_QUARTER,
            empty=_NO_STREAM,
        ),
    ]
