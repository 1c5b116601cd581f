"""Figures over rounds: ratios are of one round, and a missing value leaves no figure behind."""

import pytest

from connect_loadgen.experiment.results import Ratio, Spread
from connect_loadgen.experiment.statistics import ratio_to, spread_of


def test_a_spread_is_median_lowest_and_highest() -> None:
    assert spread_of([5.0, 1.0, 9.0, 2.0]) == Spread(median=3.5, low=1.0, high=9.0)


@pytest.mark.parametrize("values", [[], [None], [1.0, None, 3.0]])
def test_a_missing_value_leaves_no_spread(values: list[float | None]) -> None:
    assert spread_of(values) is None


def test_ratios_are_taken_within_rounds_not_between_medians() -> None:
    # A slow machine in the second round slows both: the ratio stands.
    ratio = ratio_to([100.0, 10.0, 200.0], [200.0, 20.0, 300.0])
    assert ratio == Ratio(median=2.0, low=1.5, high=2.0)


@pytest.mark.parametrize(
    ("baseline", "values"),
    [
        ([1.0, None], [1.0, 1.0]),
        ([1.0, 1.0], [None, 1.0]),
        ([1.0, 0.0], [1.0, 1.0]),
        ([], []),
    ],
)
def test_a_missing_value_or_a_baseline_of_zero_leaves_no_ratio(
    baseline: list[float | None], values: list[float | None]
) -> None:
    assert ratio_to(baseline, values) is None


def test_a_value_of_zero_is_a_ratio_of_zero() -> None:
    assert ratio_to([4.0], [0.0]) == Ratio(median=0.0, low=0.0, high=0.0)


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio_to([1.0, 2.0], [1.0])
