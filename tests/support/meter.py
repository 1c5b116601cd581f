"""A house's metrics, as Prometheus would see them."""

from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from connect_actor.observe.gc_pauses import GcPauses
from connect_actor.observe.loop_lag import LoopLag
from connect_actor.observe.runtime import Probes
from connect_actor.process.collector import ServiceCollector, Sources
from connect_actor.rpc.admission import Admission, Bounds
from connect_actor.rpc.statistics import RequestStatistics
from tests.support.house import House

__all__ = ["Meter"]

Series = tuple[str, frozenset[tuple[str, str]]]


class Meter:
    """Reads series, and how they have grown."""

    def __init__(self, collector: Collector) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(collector)
        self._before: dict[Series, float] = {}
        self.mark()

    @classmethod
    def of(
        cls,
        house: House,
        requests: RequestStatistics | None = None,
        probes: Probes | None = None,
    ) -> "Meter":
        """Meter a house; without requests or probes those never move."""
        sources = Sources(
            requests=requests or RequestStatistics(),
            admission=Admission(Bounds()),
            actors=house.statistics,
            clock=house.service_clock,
            mailboxes=house.dispatcher.mailboxes,
            permits=house.environment.permits,
            live_actors=lambda: house.router.live,
            committer=house.committer.statistics,
            waiting_writes=lambda: house.committer.waiting,
            journal=house.journal.statistics,
            probes=probes or Probes(None, GcPauses(), LoopLag(house.dispatcher.loop)),
            reloads_failing=dict,
            data_dir=Path.cwd(),
            certificate=None,
        )
        return cls(ServiceCollector(strategy="s", journal="j", router="r", sources=sources))

    def mark(self) -> None:
        """Let growth begin here."""
        self._before = self._read()

    def value(self, name: str, **labels: str) -> float:
        """Return a series' value; labels are all but the strategy."""
        return self._read()[name, frozenset(labels.items())]

    def grown(self, name: str, **labels: str) -> float:
        """Return by how much a series has grown since the mark."""
        return self.value(name, **labels) - self._before[name, frozenset(labels.items())]

    def all_grown(self, name: str) -> dict[tuple[str, ...], float]:
        """Return all series of a name that have grown, by their sorted labels' values."""
        return {
            tuple(value for _, value in sorted(labels)): value
            - self._before.get((found, labels), 0)
            for (found, labels), value in self._read().items()
            if found == name and value != self._before.get((found, labels), 0)
        }

    def _read(self) -> dict[Series, float]:
        return {
            (
                sample.name,
                frozenset(
                    (name, value) for name, value in sample.labels.items() if name != "strategy"
                ),
            ): sample.value
            for family in self._registry.collect()
            for sample in family.samples
        }
