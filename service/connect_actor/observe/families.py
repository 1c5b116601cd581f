"""Metric families from plain counts, all with one prefix and the same constant labels."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from connect_actor.observe.counting import Distribution

__all__ = ["Families"]

_Labels = Sequence[str]


class Families:
    """Makes metric families; names are given without the prefix and, for counters, ``_total``."""

    def __init__(self, prefix: str, labels: Mapping[str, str]) -> None:
        """Begin every name with ``prefix``, and put ``labels`` on every series."""
        self._prefix = prefix
        self._names = list(labels)
        self._values = list(labels.values())

    def counter(self, name: str, text: str, value: float) -> Metric:
        """Return a counter of one series."""
        return self.counters(name, text, (), [((), value)])

    def counters(
        self, name: str, text: str, labels: _Labels, series: Iterable[tuple[_Labels, float]]
    ) -> Metric:
        """Return a counter with a series for each set of label values."""
        family = CounterMetricFamily(self._prefix + name, text, labels=[*self._names, *labels])
        for values, value in series:
            family.add_metric([*self._values, *values], value)
        return family

    def gauge(self, name: str, text: str, value: float) -> Metric:
        """Return a gauge of one series."""
        return self.gauges(name, text, (), [((), value)])

    def gauges(
        self, name: str, text: str, labels: _Labels, series: Iterable[tuple[_Labels, float]]
    ) -> Metric:
        """Return a gauge with a series for each set of label values."""
        family = GaugeMetricFamily(self._prefix + name, text, labels=[*self._names, *labels])
        for values, value in series:
            family.add_metric([*self._values, *values], value)
        return family

    def histogram(self, name: str, text: str, distribution: Distribution) -> Metric:
        """Return a histogram of one series."""
        return self.histograms(name, text, (), [((), distribution)])

    def histograms(
        self, name: str, text: str, labels: _Labels, series: Iterable[tuple[_Labels, Distribution]]
    ) -> Metric:
        """Return a histogram with a series for each set of label values."""
        family = HistogramMetricFamily(self._prefix + name, text, labels=[*self._names, *labels])
        for values, distribution in series:
            family.add_metric([*self._values, *values], _buckets(distribution), distribution.total)
        return family

    def info(self, name: str, text: str, facts: Mapping[str, str]) -> Metric:
        """Return a gauge ``<name>_info`` that is 1 and has facts for labels."""
        family = InfoMetricFamily(self._prefix + name, text, labels=self._names)
        family.add_metric(self._values, dict(facts))
        return family


def _buckets(distribution: Distribution) -> list[tuple[str, float]]:
    """Return the cumulative counts that Prometheus wants, from one reading of the counts."""
    counts = tuple(distribution.counts)
    bounds = [*(str(float(bound)) for bound in distribution.bounds), "+Inf"]
    return list(zip(bounds, accumulate(counts), strict=True))
