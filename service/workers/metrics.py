"""The metrics of all workers as one exposition: each series with a label ``worker``.

Each worker serves its own on a free port of the loopback address; they are asked for when this one
is. The supervisor adds what it costs itself, as ``worker="supervisor"``.
"""

import http.client
import logging
from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

__all__ = ["WorkersCollector"]

_log = logging.getLogger(__name__)

# Seconds that a worker may take; one that hangs must not hide the others.
_PATIENCE = 3.0


class WorkersCollector(Collector):
    """Collects from workers, in the threads that answer scrapes."""

    def __init__(self) -> None:
        """Begin with no worker."""
        self._addresses: dict[int, str] = {}
        self._own = ProcessCollector(registry=None)

    def add(self, worker: int, address: str) -> None:
        """Ask a worker, at host:port, from now on."""
        self._addresses[worker] = address

    def collect(self) -> Iterator[Metric]:
        """Yield every family once, with the series of all workers that answer."""
        families: dict[str, Metric] = {}
        _merge(families, "supervisor", self._own.collect())
        for worker, address in list(self._addresses.items()):
            try:
                found = list(text_string_to_metric_families(_fetch(address)))
            except (OSError, http.client.HTTPException, ValueError) as error:
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
    connection = http.client.HTTPConnection(address, timeout=_PATIENCE)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()
