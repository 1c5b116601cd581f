"""Persistence metrics: what the committer, the journal and the kernel have counted."""

from collections.abc import Iterator

from prometheus_client.core import Metric

from connect_actor.observe.families import Families
from connect_actor.observe.process import disk_bytes
from connect_actor.persistence.committer import CommitterStatistics
from connect_actor.persistence.contract import JournalStatistics

__all__ = ["persistence_metrics"]


def persistence_metrics(
    families: Families,
    committer: CommitterStatistics,
    journal: JournalStatistics,
    waiting_writes: int,
) -> Iterator[Metric]:
    """Yield the metrics of commits, of what they wrote, and of its deletion."""
    counter, gauge = families.counter, families.gauge
    yield counter("journal_commits", "Transactions made durable.", committer.commits)
    yield families.histogram(
        "journal_commit_duration_seconds", "Time of a commit.", committer.commit_duration
    )
    yield families.histogram(
        "journal_commit_records", "Records in a commit.", committer.commit_records
    )
    yield counter(
        "journal_commit_failures", "Commits of unknown outcome.", committer.failed_commits
    )
    yield counter(
        "journal_rejections", "Writes refused by the journal.", committer.rejected_records
    )
    yield counter("journal_timeouts", "Rounds given up on.", committer.timed_out_rounds)
    yield gauge("journal_waiting_writes", "Writes waiting for a commit.", waiting_writes)
    yield counter("journal_records", "Records written.", journal.records)
    yield counter("journal_record_bytes", "Bytes of records, before sealing.", journal.record_bytes)
    yield counter("journal_snapshots", "Snapshots written.", journal.snapshots)
    yield counter(
        "journal_snapshot_bytes", "Bytes of snapshots, before sealing.", journal.snapshot_bytes
    )
    yield counter("journal_records_deleted", "Records physically deleted.", journal.records_deleted)
    yield counter("journal_snapshots_deleted", "Snapshots deleted.", journal.snapshots_deleted)
    yield gauge("journal_disk_bytes", "Size of the journal's files.", journal.bytes_on_disk)
    disk = disk_bytes()
    if disk is not None:
        yield counter(
            "disk_read_bytes", "Bytes that the process caused to be read from storage.", disk.read
        )
        yield counter(
            "disk_written_bytes", "Bytes that the process caused to be written.", disk.written
        )
