"""Inside the services: allocation, garbage collection, event loop, journal, actors and streams."""

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import units

from grafana.dashboards.kit import Limit, Line, Panel, chart, dashboard, figure
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
        {
            "What runs, and what must be 0": _figures(),
            "Allocation and memory": _memory(),
            "Garbage collection and event loop": _collector(),
            "Journal and commits": _journal(),
            "Actors and recovery": _actors(),
            "Channels and streams": _streams(),
        },
        by_operation=False,
    )


def _figures() -> list[Panel]:
    started = process_of_service("{}", "process_start_time_seconds", by="instance, worker")
    return [
        figure(
            "Services: what runs, by strategy and version",
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
            "Up for: small after a restart nobody ordered",
            "Time since the youngest of the chosen services has started.",
            units.Seconds,
            Line(f"time() - max({started})", "up"),
            empty="no service",
        ),
        figure(
            "Failed commits: nobody knows what they left",
            "Commits of unknown outcome, and requests to the journal given up on, in this time"
            " range. Channels recover by themselves; see docs/runbook.md.",
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
            "Failed recoveries: channels lost to their peers",
            "Loads that ended with an error in this time range: journal unreadable, or damaged.",
            units.Short,
            Line(increase("connect_actor_recovery_failures_total", STRATEGY, by=""), "failed"),
            limit=Limit(1),
            decimals=0,
            empty="no service",
        ),
        figure(
            "Crashes: each is a defect to report",
            "Actors that met a defect in this time range; they restart from the journal.",
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
            "Allocation: bytes a second, whatever is freed again",
            "Bytes asked of Python's allocators. Gross, and of Python alone: the native heap"
            " (gRPC's core, OpenSSL, SQLite) is not in it. Scrapes are.",
            units.BytesPerSecondIEC,
            Line(rate("connect_allocated_bytes_total", STRATEGY), "{{strategy}}"),
            empty=_NO_HOOK,
        ),
        chart(
            "Allocation by domain: obj is Python's objects, mem and raw are buffers",
            "Bytes asked of each of Python's allocators, all chosen services together.",
            units.BytesPerSecondIEC,
            Line(rate("connect_allocated_bytes_total", STRATEGY, by="domain"), "{{domain}}"),
            stacked=True,
            empty=_NO_HOOK,
        ),
        chart(
            "Allocations per message: level, or messages have become dearer",
            "Requests to Python's allocators over messages.",
            units.Short,
            Line(
                rule("instance_strategy:connect_allocations_per_changes:ratio_rate1m", STRATEGY),
                "{{strategy}}",
            ),
            empty=_NO_HOOK,
        ),
        chart(
            "Blocks alive: growing without end is a leak",
            "Blocks of up to 512 bytes alive in pymalloc. Net: what is allocated and freed between"
            " two scrapes does not show.",
            units.Short,
            Line(value("connect_allocated_blocks", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Resident memory: growing while blocks are level is outside Python",
            "Resident set of the process, native heap included.",
            units.BytesIEC,
            Line(process_of_service("{}", "process_resident_memory_bytes"), "{{strategy}}"),
        ),
        chart(
            "Open files: at its limit, connections are refused",
            "Open file descriptors as a share of what the process may have.",
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
            "Collections: generation 0 often, 2 seldom",
            "Collections per second by generation, all chosen services together.",
            units.CountsPerSecond,
            Line(
                rate("connect_gc_pause_seconds_count", STRATEGY, by="generation"),
                "generation {{generation}}",
            ),
        ),
        chart(
            "Pauses: each stops every thread, older generations for longer",
            "Mean time of a collection by generation. Operations that meet one wait for it.",
            units.Seconds,
            Line(
                mean("connect_gc_pause_seconds", STRATEGY, by="generation"),
                "generation {{generation}}",
            ),
            empty=_NO_COLLECTION,
        ),
        chart(
            "GC: share of time in which nothing else runs",
            "Time of collections over time.",
            units.PercentUnit,
            Line(
                rule("instance_strategy:connect_gc_pause_seconds:rate1m", STRATEGY), "{{strategy}}"
            ),
        ),
        chart(
            "Garbage in cycles: what reference counts can't free",
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
            "Event loop: late in the median, it is overloaded",
            "How late the loop wakes, sampled every 100 ms: 50th percentile.",
            units.Seconds,
            Line(quantile(0.5, "connect_event_loop_lag_seconds", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Event loop: late in the 99th percentile, something blocks it",
            "How late the loop wakes, sampled every 100 ms: 99th percentile.",
            units.Seconds,
            Line(quantile(0.99, "connect_event_loop_lag_seconds", STRATEGY), "{{strategy}}"),
        ),
    ]


def _journal() -> list[Panel]:
    return [
        chart(
            "Commits: one at a time, so this times their duration is how busy it is",
            "Transactions made durable per second.",
            units.WritesPerSecond,
            Line(rate("connect_journal_commits_total", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Commit duration: no answer leaves before it ends",
            "50th and 99th percentile of the time in the journal, sealing and sync included.",
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
            "Records per commit: grows under load, and so bears it",
            "Mean number of records in a commit.",
            units.Short,
            Line(mean("connect_journal_commit_records", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Bytes written: to the journal, and by the process to disk",
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
            "Write amplification: disk bytes for each byte of change",
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
            "Records made and deleted: equal in the long run",
            "Records made durable and physically deleted per second. Deletion works in bulk, behind"
            " snapshots.",
            units.WritesPerSecond,
            Line(rate("connect_journal_records_total", STRATEGY), "{{strategy}}, made"),
            Line(rate("connect_journal_records_deleted_total", STRATEGY), "{{strategy}}, deleted"),
        ),
        chart(
            "Journal on disk: level once deletion keeps up",
            "Size of the journal's files at each scrape.",
            units.BytesIEC,
            Line(value("connect_journal_disk_bytes", STRATEGY), "{{strategy}}"),
            width=_HALF,
        ),
        chart(
            "What went wrong in the journal: all at 0",
            "Per second, all chosen services together: commits of unknown outcome, requests given"
            " up on, and writes refused, as those of a second writer are.",
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
            "Live actors: what memory is spent on",
            "Channels with an actor, at each scrape. Idle ones passivate and wait in the journal.",
            units.Short,
            Line(value("connect_actors_live", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "Coming and going: passivated channels come back when used",
            "Actors per second that were told to stop as they were idle, and channels per second"
            " that came back from the journal, or were refused as too many were coming.",
            units.OpsPerSecond,
            Line(rate("connect_actor_passivations_total", STRATEGY), "{{strategy}}, passivated"),
            Line(rate("connect_actor_recoveries_total", STRATEGY), "{{strategy}}, recovered"),
            Line(rate("connect_recovery_permit_refusals_total", STRATEGY), "{{strategy}}, refused"),
        ),
        chart(
            "Recovery: what the first message after a rest waits for",
            "50th and 99th percentile of the time from the permit to the session, and the 99th of"
            " the wait for the permit.",
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
            "Recovery permits: waiting for long, recoveries are the limit",
            "Channels that are loading, and actors that wait to, at each scrape.",
            units.Short,
            Line(value("connect_recovery_permits_in_use", STRATEGY), "{{strategy}}, loading"),
            Line(value("connect_recovery_permits_waiting", STRATEGY), "{{strategy}}, waiting"),
        ),
        chart(
            "Mailboxes: 1 means that nobody waits for another",
            "Mean number of messages that an actor finds when it gets a turn, the one that it then"
            " handles included.",
            units.Short,
            Line(mean("connect_mailbox_depth", STRATEGY), "{{strategy}}"),
        ),
        chart(
            "What went wrong with actors: all at 0",
            "Per second, all chosen services together: actors that met a defect, sessions thrown"
            " away as a commit failed, channels that could not be loaded, and messages refused by a"
            " full mailbox.",
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
            "Channels made: a burst is peers that come anew",
            "Handshakes that made a channel, and channels ended durably, per second.",
            units.OpsPerSecond,
            Line(rate("connect_channels_established_total", STRATEGY), "{{strategy}}, made"),
            Line(rate("connect_channels_closed_total", STRATEGY), "{{strategy}}, ended"),
            width=_QUARTER,
        ),
        chart(
            "Streams open: none means unary calls, or no client",
            "Exchange streams open, at each scrape.",
            units.Short,
            Line(value("connect_streams_open", STRATEGY), "{{strategy}}"),
            width=_QUARTER,
        ),
        chart(
            "Frames: gRPC's work is paid by the frame",
            "Frames per second on Exchange streams.",
            units.OpsPerSecond,
            Line(
                rate("connect_stream_frames_total", STRATEGY, by="direction, strategy"),
                "{{strategy}}, {{direction}}",
            ),
            width=_QUARTER,
            empty=_NO_STREAM,
        ),
        chart(
            "Operations per frame: the more, the cheaper each",
            "Mean number of operations in a frame.",
            units.Short,
            Line(
                mean("connect_stream_frame_operations", STRATEGY, by="direction, strategy"),
                "{{strategy}}, {{direction}}",
            ),
            width=_QUARTER,
            empty=_NO_STREAM,
        ),
    ]
