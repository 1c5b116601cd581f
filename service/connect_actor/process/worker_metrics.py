"""The metrics of all workers as one exposition: each series with a label ``worker``.

Each worker serves its own on a free port of the loopback address; they are asked for when this one
is. The supervisor adds what it costs itself, as ``worker="supervisor"``.
"""

import logging
from collections.abc import Iterable, Iterator
from http import HTTPStatus

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from connect_actor.network.connections import http_get
from connect_actor.observe.process import OwnProcess

__all__ = ["WorkersCollector"]

_log = logging.getLogger(__name__)

# Seconds that a worker may take; one that hangs must not hide the others.
_PATIENCE = 3.0


class WorkersCollector(Collector):
    """Collects from workers, in the threads that answer scrapes."""

    def __init__(self) -> None:
        """Begin with no worker."""
        self._addresses: dict[int, str] = {}
        self._own = OwnProcess(registry=None)

    def add(self, worker: int, address: str) -> None:
        """Ask a worker, at host:port, from now on."""
        self._addresses[worker] = address

    def describe(self) -> Iterator[Metric]:
        """Yield what a scrape can ask for by name: the processes' own metrics."""
        return self._own.describe()

    def collect(self) -> Iterator[Metric]:
        """Yield every family once, with the series of all workers that answer."""
        families: dict[str, Metric] = {}
        _merge(families, "supervisor", self._own.collect())
        for worker, address in list(self._addresses.items()):
            try:
                found = list(text_string_to_metric_families(_fetch(address)))
            except (OSError, ValueError) as error:
                _log.warning("worker %d tells no metrics: %r", worker, error)
                continue
            _merge(families, str(worker), found)
        yield from families.values()


def _merge(families: dict[str, Metric], worker: str, found: Iterable[Metric]) -> None:
    for family in found:
        merged = families.setdefault(
            family.name, Metric(family.name, family.documentation, family.type)
        )
        for sample in family.samples:
            merged.add_sample(sample.name, {**sample.labels, "worker": worker}, sample.value)


def _fetch(address: str) -> str:
    status, body = http_get(address, "/metrics", _PATIENCE)
    if status != HTTPStatus.OK:
        raise OSError(f"it answered with status {status}")
    return body.decode()
