"""Prometheus metrics, read off plain counters when they are scraped: free on the hot path.

The actors, the committer and the journal count for themselves; ``ServiceCollector`` knows the names
under which Prometheus sees those counts. No label is unbounded: never a connect id.
"""

from collections.abc import Callable, Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service.actors.environment import ActorStatistics
from service.persistence.committer import CommitterStatistics
from service.persistence.contract import JournalStatistics

__all__ = ["ServiceCollector", "serve_metrics"]


class ServiceCollector(Collector):
    """Turns the service's own counts into metric families."""

    def __init__(
        self,
        *,
        strategy: str,
        actors: ActorStatistics,
        live_actors: Callable[[], int],
        committer: CommitterStatistics,
        waiting_writes: Callable[[], int],
        journal: Callable[[], JournalStatistics],
    ) -> None:
        """Read from these at every scrape."""
        self._strategy = strategy
        self._actors = actors
        self._live_actors = live_actors
        self._committer = committer
        self._waiting_writes = waiting_writes
        self._journal = journal

    def collect(self) -> Iterator[Metric]:
        """Yield one family for each metric."""
        actors, committer, journal = self._actors, self._committer, self._journal()
        yield self._gauge("actors_live", "Actors alive.", self._live_actors())
        yield self._counter("actor_starts", "Actors started.", actors.started)
        yield self._counter("actor_recoveries", "Channels recovered.", actors.recovered)
        yield self._counter(
            "actor_recovery_seconds", "Time spent recovering channels.", actors.recovery_seconds
        )
        yield self._counter(
            "actor_recovery_failures",
            "Channels that could not be loaded.",
            actors.recovery_failures,
        )
        yield self._counter("actor_passivations", "Idle actors stopped.", actors.passivated)
        yield self._counter("actor_crashes", "Actors that met a defect.", actors.crashed)
        yield self._counter(
            "actor_discards", "Sessions discarded after a failed commit.", actors.discarded
        )
        yield self._counter("channels_established", "Channels made.", actors.established)
        yield self._counter("channels_closed", "Channels ended.", actors.closed)
        yield self._counter("journal_commits", "Transactions made durable.", committer.commits)
        yield self._counter(
            "journal_commit_seconds", "Time spent in commits.", committer.commit_seconds
        )
        yield self._counter(
            "journal_commit_failures", "Commits of unknown outcome.", committer.failed_commits
        )
        yield self._counter(
            "journal_rejections", "Records refused by the journal.", committer.rejected_records
        )
        yield self._counter("journal_timeouts", "Rounds given up on.", committer.timed_out_rounds)
        yield self._gauge(
            "journal_waiting_writes", "Writes waiting for a commit.", self._waiting_writes()
        )
        yield self._counter("journal_records", "Records written.", journal.records)
        yield self._counter(
            "journal_record_bytes", "Bytes of records, before sealing.", journal.record_bytes
        )
        yield self._counter("journal_snapshots", "Snapshots written.", journal.snapshots)
        yield self._counter(
            "journal_snapshot_bytes", "Bytes of snapshots, before sealing.", journal.snapshot_bytes
        )
        yield self._counter(
            "journal_records_deleted", "Records physically deleted.", journal.records_deleted
        )
        yield self._counter(
            "journal_snapshots_deleted", "Snapshots deleted.", journal.snapshots_deleted
        )
        yield self._gauge("journal_disk_bytes", "Size of the journal.", journal.bytes_on_disk)

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"connect_{name}", text, labels=["strategy"])
        family.add_metric([self._strategy], value)
        return family

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"connect_{name}", text, labels=["strategy"])
        family.add_metric([self._strategy], value)
        return family


def serve_metrics(collector: Collector, host: str, port: int) -> WSGIServer:
    """Serve the metrics over HTTP from a thread of its own.

    Args:
        collector: what to serve besides the process's and the runtime's own metrics.
        host: address to listen on.
        port: 0 picks a free one; the server returned knows which.

    Raises:
        OSError: the address can't be listened on.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(collector)
    server, _ = start_http_server(port, host, registry)
    return server
