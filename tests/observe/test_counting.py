"""Distributions, and what Prometheus is shown of them."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from connect_actor.observe.counting import SECONDS, SIZES, Distribution
from connect_actor.observe.families import Families


@pytest.mark.parametrize(
    ("value", "bucket"), [(0, 0), (1, 0), (1.5, 1), (2, 1), (4, 2), (4.1, 3), (1e9, 3)]
)
def test_a_value_belongs_to_the_first_bound_not_below_it(value: float, bucket: int) -> None:
    distribution = Distribution((1, 2, 4))
    distribution.add(value)
    assert distribution.counts == [int(position == bucket) for position in range(4)]
    assert distribution.total == value
    assert distribution.count == 1


def test_a_value_can_be_counted_several_times_at_once() -> None:
    distribution = Distribution((1, 2, 4))
    distribution.add(2, 3)
    assert (distribution.counts, distribution.total) == ([0, 3, 0, 0], 6)


def test_distributions_add_up() -> None:
    one, other = Distribution((1, 2)), Distribution((1, 2))
    for value in (1, 2, 3):
        one.add(value)
    other.add(2)
    one.include(other)
    assert (one.counts, one.total, one.count) == ([1, 2, 1], 8, 4)
    assert other.counts == [0, 1, 0]


def test_durations_are_told_apart_from_50_microseconds_to_5_seconds() -> None:
    assert (SECONDS[0], SECONDS[-1], len(SECONDS)) == (50e-6, 5.0, 16)
    assert list(SECONDS) == sorted(SECONDS)


def test_sizes_are_powers_of_two_up_to_a_mailbox() -> None:
    assert SIZES == (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


class One(Collector):
    def __init__(self, family: Metric) -> None:
        self.family = family

    def collect(self) -> list[Metric]:
        return [self.family]


def test_prometheus_sees_cumulative_buckets_sum_and_count() -> None:
    distribution = Distribution((0.5, 2))
    for value in (0.5, 1, 1, 3):
        distribution.add(value)
    family = Families("x_", {"strategy": "full"}).histogram("seconds", "Text.", distribution)
    registry = CollectorRegistry()
    registry.register(One(family))
    assert generate_latest(registry).decode().splitlines() == [
        "# HELP x_seconds Text.",
        "# TYPE x_seconds histogram",
        'x_seconds_bucket{le="0.5",strategy="full"} 1.0',
        'x_seconds_bucket{le="2.0",strategy="full"} 3.0',
        'x_seconds_bucket{le="+Inf",strategy="full"} 4.0',
        'x_seconds_count{strategy="full"} 4.0',
        'x_seconds_sum{strategy="full"} 5.5',
    ]
