"""The collector: puts together what is published of the whole service."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from shutil import disk_usage

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from connect_actor.access.certificates import ServerCertificate
from connect_actor.actors.dispatcher import MailboxStatistics
from connect_actor.actors.environment import ActorStatistics
from connect_actor.actors.metrics import actor_metrics
from connect_actor.actors.permits import RecoveryPermits
from connect_actor.clock import ServiceClock
from connect_actor.observe.families import Families
from connect_actor.observe.runtime import Probes, runtime_metrics
from connect_actor.persistence.committer import CommitterStatistics
from connect_actor.persistence.contract import JournalStatistics
from connect_actor.persistence.metrics import persistence_metrics
from connect_actor.rpc.admission import Admission
from connect_actor.rpc.metrics import request_metrics
from connect_actor.rpc.statistics import RequestStatistics

__all__ = ["ServiceCollector", "Sources"]


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the counts are; read at every scrape, from the scrape's own thread."""

    requests: RequestStatistics
    admission: Admission
    actors: ActorStatistics
    clock: ServiceClock
    mailboxes: MailboxStatistics
    permits: RecoveryPermits
    live_actors: Callable[[], int]
    committer: CommitterStatistics
    waiting_writes: Callable[[], int]
    journal: Callable[[], JournalStatistics]
    probes: Probes
    reloads_failing: Callable[[], Mapping[str, bool]]
    data_dir: Path
    certificate: ServerCertificate | None


class ServiceCollector(Collector):
    """Turns the service's own counts into metric families."""

    def __init__(self, *, strategy: str, journal: str, router: str, sources: Sources) -> None:
        """Read from ``sources``; the other arguments are names from the settings."""
        self._families = Families("connect_", {"strategy": strategy})
        self._facts = {"journal": journal, "router": router, "version": version("connect-actor")}
        self._sources = sources

    def collect(self) -> Iterator[Metric]:
        """Yield one family for each metric."""
        families, sources = self._families, self._sources
        yield families.info("service", "What runs.", self._facts)
        yield families.gauges(
            "reload_failing",
            "1 while files on disk can't be used, so that older content is in force.",
            ("what",),
            [((what,), int(failing)) for what, failing in sources.reloads_failing().items()],
        )
        if sources.certificate is not None:
            yield families.gauge(
                "certificate_not_after_seconds",
                "When the server's certificate expires.",
                sources.certificate.ends_at,
            )
        with suppress(OSError):
            free = disk_usage(sources.data_dir).free
            yield families.gauge("data_free_bytes", "Room left for the data directory.", free)
        yield from request_metrics(families, sources.requests, sources.admission)
        yield from actor_metrics(
            families, sources.actors, sources.mailboxes, sources.permits, sources.live_actors()
        )
        yield families.counter("clock_jumps", "Jumps of the wall clock.", sources.clock.jumps)
        yield families.gauge(
            "clock_unsettled_seconds",
            "By how much the wall clock is ahead of what is believed.",
            sources.clock.unsettled,
        )
        yield from persistence_metrics(
            families, sources.committer, sources.journal(), sources.waiting_writes()
        )
        yield from runtime_metrics(families, sources.probes)
