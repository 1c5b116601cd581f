"""The figures that a comparison shows: what each is called, what it means, how it is worked out.

The result file, the table and the report all go by this list, so a figure can't mean one thing
here and another there.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from connect_loadgen.drive.figures import Latency, LoadFigures
from connect_loadgen.drive.recording import Histogram
from connect_loadgen.experiment.results import Round

__all__ = ["FIGURES", "Figure", "latency_of", "latency_of_loads"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One column of a comparison."""

    name: str
    """Key in the result file; ends in its unit where it has one."""
    title: str
    unit: str
    meaning: str
    """What it is and how it is had, for a reader who was not there."""
    more_is_better: bool | None
    """Nothing where more is neither better nor worse."""
    value: Callable[[Round], float | None]
    """The figure of one round; nothing where there is none."""
    absent: str
    """Why a round may have none."""
    is_of_disk: bool = False
    """Whether only a journal on disk has it."""


def latency_of(rounds: Sequence[Round]) -> Latency | None:
    """Return the latency of all operations of the rounds, of whatever kind, as one distribution."""
    return latency_of_loads(round_.load for round_ in rounds)


def latency_of_loads(loads: Iterable[LoadFigures]) -> Latency | None:
    """Return the latency of all operations of the loads, of whatever kind, as one distribution."""
    return _merged(
        tuple(
            (latency.from_intended_send or latency.service_time).hdr
            for load in loads
            for latency in load.latency.values()
        )
    )


# Three figures ask for the same merge, for the ratios again: each takes 20 ms.
@functools.lru_cache(maxsize=1024)
def _merged(histograms: tuple[str, ...]) -> Latency | None:
    return Histogram.merge(list(histograms)).summary()


def _milliseconds(round_: Round, pick: Callable[[Latency], int]) -> float | None:
    latency = latency_of([round_])
    return None if latency is None else pick(latency) / 1000


def _per_message(round_: Round, amount: float | None) -> float | None:
    messages = round_.cost.messages
    return amount / messages if amount is not None and messages else None


def _durable(round_: Round, amount: float | None) -> float | None:
    # The memory journal puts nothing on disk; what its process writes are logs.
    return None if round_.recovery is None else _per_message(round_, amount)


def _thousandfold(each: float | None) -> float | None:
    return None if each is None else each * 1000


def _gc_pause_share(round_: Round) -> float | None:
    paused = round_.cost.gc_pause_seconds
    return None if paused is None else paused / round_.cost.duration_seconds


_NO_ANSWER = "no operation had a right answer"
_NO_MESSAGE = "no message got through"
_UNREAD = "the service does not tell, or no message got through"
_NOT_RECOVERED = "no recovery was tried"
_NO_HOOK = "the service was built without the allocation hook, or no message got through"

FIGURES = (
    Figure(
        "messages_per_second",
        "Throughput",
        "messages/s",
        "Messages that the service encrypted or decrypted, and the peer verified, within the"
        " measured time.",
        more_is_better=True,
        value=lambda r: r.load.messages_per_second,
        absent="nothing was measured",
    ),
    Figure(
        "p50_ms",
        "p50",
        "ms",
        "Half of the operations were answered within this time, from when they were due (open loop)"
        " or sent (closed loop).",
        more_is_better=False,
        value=lambda r: _milliseconds(r, lambda latency: latency.p50_us),
        absent=_NO_ANSWER,
    ),
    Figure(
        "p99_ms",
        "p99",
        "ms",
        "99 of 100 operations were answered within this time.",
        more_is_better=False,
        value=lambda r: _milliseconds(r, lambda latency: latency.p99_us),
        absent=_NO_ANSWER,
    ),
    Figure(
        "p99_9_ms",
        "p99.9",
        "ms",
        "999 of 1,000 operations were answered within this time.",
        more_is_better=False,
        value=lambda r: _milliseconds(r, lambda latency: latency.p99_9_us),
        absent=_NO_ANSWER,
    ),
    Figure(
        "cpu_seconds_per_1000_messages",
        "CPU",
        "s / 1,000 messages",
        "CPU time of the service, user and system, all threads (process_cpu_seconds_total).",
        more_is_better=False,
        value=lambda r: _thousandfold(_per_message(r, r.cost.cpu_seconds)),
        absent=_UNREAD,
    ),
    Figure(
        "record_bytes_per_message",
        "Record",
        "B/message",
        "What the strategy wrote for a message, before sealing: the journal record alone"
        " (connect_journal_record_bytes_total).",
        more_is_better=False,
        value=lambda r: _per_message(r, r.cost.record_bytes),
        absent=_NO_MESSAGE,
    ),
    Figure(
        "snapshot_bytes_per_message",
        "Snapshot share",
        "B/message",
        "What snapshots added, spread over all messages, before sealing"
        " (connect_journal_snapshot_bytes_total).",
        more_is_better=False,
        value=lambda r: _per_message(r, r.cost.snapshot_bytes),
        absent=_NO_MESSAGE,
    ),
    Figure(
        "disk_write_bytes_per_message",
        "Disk writes",
        "B/message",
        "What the service caused to be written to disk (connect_disk_written_bytes_total): whole"
        " pages, write-ahead log and what is copied out of it included.",
        more_is_better=False,
        value=lambda r: _durable(r, r.cost.disk_write_bytes),
        absent=_UNREAD,
        is_of_disk=True,
    ),
    Figure(
        "file_growth_bytes_per_message",
        "File growth",
        "B/message",
        "How much larger all files of the data directory became, divided by the messages. What a"
        " snapshot replaces is deleted and its room used again, so this is less than what was"
        " written.",
        more_is_better=False,
        value=lambda r: _durable(r, r.cost.file_growth_bytes),
        absent=_UNREAD,
        is_of_disk=True,
    ),
    Figure(
        "commits",
        "Commits",
        "in all",
        "Transactions of the journal. One carries the records of many channels.",
        more_is_better=None,
        value=lambda r: r.cost.commits,
        absent="nothing was measured",
    ),
    Figure(
        "messages_per_commit",
        "Batch",
        "messages/commit",
        "How many messages shared a commit.",
        more_is_better=None,
        value=lambda r: r.cost.messages / r.cost.commits if r.cost.commits else None,
        absent="nothing was committed",
    ),
    Figure(
        "snapshots",
        "Snapshots",
        "in all",
        "Snapshots written: one for so many records of a channel.",
        more_is_better=None,
        value=lambda r: r.cost.snapshots,
        absent="nothing was measured",
    ),
    Figure(
        "peak_memory_mb",
        "Peak memory",
        "MB",
        "The most that the service held in memory (process_resident_memory_peak_bytes).",
        more_is_better=False,
        value=lambda r: None if r.cost.peak_rss_bytes is None else r.cost.peak_rss_bytes / 1e6,
        absent=_UNREAD,
    ),
    Figure(
        "allocated_bytes_per_message",
        "Allocated",
        "B/message",
        "Bytes that the service's whole process asked of Python's allocators, gross"
        " (connect_allocated_bytes_total).",
        more_is_better=False,
        value=lambda r: _per_message(r, r.cost.allocated_bytes),
        absent=_NO_HOOK,
    ),
    Figure(
        "allocations_per_message",
        "Allocations",
        "blocks/message",
        "The same, as a number of requests (connect_allocations_total).",
        more_is_better=False,
        value=lambda r: _per_message(r, r.cost.allocations),
        absent=_NO_HOOK,
    ),
    Figure(
        "gc_collections_per_1000_messages",
        "Collections",
        "per 1,000 messages",
        "Runs of CPython's cyclic garbage collector, of all generations"
        " (python_gc_collections_total).",
        more_is_better=False,
        value=lambda r: _thousandfold(_per_message(r, r.cost.gc_collections)),
        absent="the service does not tell",
    ),
    Figure(
        "gc_pause_share",
        "Collecting",
        "s/s",
        "Share of the time for which the collector held the service up (connect_gc_pause_seconds).",
        more_is_better=False,
        value=_gc_pause_share,
        absent="the service does not tell",
    ),
    Figure(
        "restart_seconds",
        "Restart",
        "s",
        "After kill -9: from the start of a new process on the same data until it is ready.",
        more_is_better=False,
        value=lambda r: None if r.recovery is None else r.recovery.start_seconds,
        absent=_NOT_RECOVERED,
        is_of_disk=True,
    ),
    Figure(
        "restore_seconds",
        "Recovery",
        "s",
        "Then: from asking Restore of all channels at once until the last answer.",
        more_is_better=False,
        value=lambda r: None if r.recovery is None else r.recovery.restore_seconds,
        absent=_NOT_RECOVERED,
        is_of_disk=True,
    ),
    Figure(
        "restored_channels_per_second",
        "Recovery rate",
        "channels/s",
        "The same as a rate.",
        more_is_better=True,
        value=lambda r: None if r.recovery is None else r.recovery.channels_per_second,
        absent=_NOT_RECOVERED,
        is_of_disk=True,
    ),
)
