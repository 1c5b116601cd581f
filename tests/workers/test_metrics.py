"""The metrics of all workers as one exposition."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from connect_actor.observe.exposition import serve_collector, serve_metrics
from connect_actor.process.worker_metrics import WorkersCollector
from tests.support.process import scrape


class Counted(Collector):
    """A worker's metrics: a counter, a gauge and a histogram."""

    def __init__(self, count: int) -> None:
        self.count = count

    def collect(self) -> Iterator[Metric]:
        counter = CounterMetricFamily("connect_things", "Things.", labels=["strategy"])
        counter.add_metric(["full"], self.count)
        yield counter
        yield GaugeMetricFamily("connect_now", "Now.", value=self.count / 8)
        histogram = HistogramMetricFamily("connect_seconds", "Seconds.")
        histogram.add_metric([], [("1.0", self.count), ("+Inf", self.count + 1)], 2.5)
        yield histogram


@contextmanager
def scraped(*counts: int) -> Iterator[dict[str, Metric]]:
    """Scrape what the supervisor of workers with these counts serves."""
    collector = WorkersCollector()
    servers = []
    for worker, count in enumerate(counts):
        server = serve_metrics(Counted(count), "127.0.0.1:0")
        servers.append(server)
        collector.add(worker, f"127.0.0.1:{server.server_port}")
    servers.append(serve_collector(collector, "127.0.0.1:0"))
    told = scrape(f"127.0.0.1:{servers[-1].server_port}")
    families = list(text_string_to_metric_families(told))
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    yield {family.name: family for family in families}
    for server in servers:
        server.shutdown()


def test_each_series_of_each_worker_is_there_once_with_its_number() -> None:
    with scraped(3, 5) as families:
        things = families["connect_things"]
        assert (things.type, things.documentation) == ("counter", "Things.")
        assert {
            (sample.labels["strategy"], sample.labels["worker"]): sample.value
            for sample in things.samples
            if sample.name == "connect_things_total"
        } == {("full", "0"): 3, ("full", "1"): 5}
        assert [sample.value for sample in families["connect_now"].samples] == [3 / 8, 5 / 8]
        buckets = {
            (sample.labels["worker"], sample.labels["le"]): sample.value
            for sample in families["connect_seconds"].samples
            if sample.name == "connect_seconds_bucket"
        }
        assert buckets == {("0", "1.0"): 3, ("0", "+Inf"): 4, ("1", "1.0"): 5, ("1", "+Inf"): 6}


def test_what_the_supervisor_itself_costs_is_told_beside_the_workers() -> None:
    with scraped(3, 5) as families:
        workers = [s.labels["worker"] for s in families["process_cpu_seconds"].samples]
        assert sorted(workers) == ["0", "1", "supervisor"]


def test_the_processes_own_metrics_can_be_asked_for_alone() -> None:
    collector = WorkersCollector()
    worker = serve_metrics(Counted(1), "127.0.0.1:0")
    collector.add(0, f"127.0.0.1:{worker.server_port}")
    registry = CollectorRegistry()
    registry.register(collector)
    asked = registry.restricted_registry(["process_cpu_seconds_total"])
    (family,) = asked.collect()
    worker.shutdown()
    assert {sample.labels["worker"] for sample in family.samples} == {"0", "supervisor"}
    assert {sample.name for sample in family.samples} == {"process_cpu_seconds_total"}


def test_a_worker_that_does_not_answer_is_absent_and_hides_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING, logger="connect_actor.process.worker_metrics")
    collector = WorkersCollector()
    gone = serve_metrics(Counted(1), "127.0.0.1:0")
    collector.add(0, f"127.0.0.1:{gone.server_port}")
    gone.shutdown()
    there = serve_metrics(Counted(2), "127.0.0.1:0")
    collector.add(1, f"127.0.0.1:{there.server_port}")
    families = {family.name: family for family in collector.collect()}
    there.shutdown()
    assert [sample.labels["worker"] for sample in families["connect_now"].samples] == ["1"]
    assert "worker 0 tells no metrics" in caplog.text
