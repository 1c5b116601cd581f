"""Figures over rounds, and the rules by which they are held against bounds."""

import pytest

from connect_loadgen.experiment.bounds import Bound, Verdict
from connect_loadgen.experiment.figures import FIGURE
from connect_loadgen.experiment.numbers import Spread, figure, ratio, ratio_to, spread_of

HOLDS, PARTLY, NOT = Verdict.HOLDS, Verdict.PARTLY, Verdict.DOES_NOT_HOLD
less, more, between, share = Bound.less, Bound.more, Bound.between, Bound.share


def spread(median: float, low: float | None = None, high: float | None = None) -> Spread:
    return Spread(
        median=median,
        low=median if low is None else low,
        high=median if high is None else high,
    )


# --- Figures over rounds --------------------------------------------------------------------------


def test_a_spread_is_median_lowest_and_highest() -> None:
    assert spread_of([5.0, 1.0, 9.0, 2.0]) == Spread(median=3.5, low=1.0, high=9.0)


@pytest.mark.parametrize("values", [[], [None], [1.0, None, 3.0]])
def test_a_missing_value_leaves_no_spread(values: list[float | None]) -> None:
    assert spread_of(values) is None


def test_ratios_are_taken_within_rounds_not_between_medians() -> None:
    # A slow machine in the second round slows both: the ratio stands.
    found = ratio_to([100.0, 10.0, 200.0], [200.0, 20.0, 300.0])
    assert found == Spread(median=2.0, low=1.5, high=2.0)


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
    assert ratio_to([4.0], [0.0]) == Spread(median=0.0, low=0.0, high=0.0)


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        ratio_to([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.012345, "0.0123"),
        (1.005, "1.00"),
        (9.996, "10.0"),
        (99.95, "100"),
        (123.4, "123"),
        (12345.6, "12,346"),
    ],
)
def test_a_figure_keeps_three_digits_and_all_before_the_point(value: float, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.00"), (0.0027397, "0.0027"), (0.1, "0.10"), (0.924, "0.92"), (12.345, "12.35")],
)
def test_a_ratio_keeps_two_places_or_two_digits(value: float, text: str) -> None:
    assert ratio(value) == text


# --- Bounds ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claim", "measured", "verdict"),
    [
        (less(0.6, 0.8), spread(0.4), HOLDS),
        (less(0.6, 0.8), spread(0.05), HOLDS),
        (less(0.6, 0.8), spread(0.39, high=0.41), PARTLY),
        (less(0.6, 0.8), spread(0.41), PARTLY),
        (less(0.6, 0.8), spread(0.7), PARTLY),
        (less(0.6, 0.8), spread(0.71), NOT),
        (less(0.6, 0.8), spread(2.0), NOT),
        (more(1.0, 2.0), spread(2.0), HOLDS),
        (more(1.0, 2.0), spread(2.1, low=1.9), PARTLY),
        (more(1.0, 2.0), spread(1.5), PARTLY),
        (more(1.0, 2.0), spread(1.49), NOT),
        (more(1.0, 2.0), spread(0.5), NOT),
        (between(100, 200, "B"), spread(100), HOLDS),
        (between(100, 200, "B"), spread(200), HOLDS),
        (between(100, 200, "B"), spread(201), PARTLY),
        (between(100, 200, "B"), spread(50), PARTLY),
        (between(100, 200, "B"), spread(49), NOT),
        (between(100, 200, "B"), spread(401), NOT),
        (share(0.95), spread(0.96), HOLDS),
        (share(0.95), spread(0.96, low=0.94), PARTLY),
        (share(0.95), spread(0.4), NOT),
    ],
)
def test_a_claim_is_judged_by_its_weaker_end_and_the_worst_round(
    claim: Bound, measured: Spread, verdict: Verdict
) -> None:
    assert claim.judge(measured) is verdict


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [
        (Bound.at_least(10), HOLDS),
        (Bound.at_least(10.1), NOT),
        (Bound.at_most(10), HOLDS),
        (Bound.at_most(9.9), NOT),
    ],
)
def test_a_bound_is_reached_by_the_median_from_its_edge_on(bound: Bound, verdict: Verdict) -> None:
    assert bound.judge(spread(10, 1, 99)) is verdict


@pytest.mark.parametrize(
    ("of", "measured", "verdict"),
    [
        ("ratio", spread(1.3, 1.1, 1.4), NOT),
        ("ratio", spread(1.3, 0.9, 1.4), HOLDS),
        ("ratio", spread(1.2, 1.1, 1.4), HOLDS),
        ("figure", spread(1.3, 0.1, 1.4), NOT),
        ("figure", spread(1.3, -0.1, 1.4), HOLDS),
    ],
)
def test_what_noise_may_have_made_breaks_no_bound_of_every_round(
    of: str, measured: Spread, verdict: Verdict
) -> None:
    bound = Bound(high=1.25, of="ratio" if of == "ratio" else "figure", rule="every round")
    assert bound.judge(measured) is verdict


@pytest.mark.parametrize(
    ("name", "low", "median", "high", "verdict"),
    [
        ("messages_per_second", 1.1, 1.2, 1.3, Verdict.BETTER),
        ("messages_per_second", 0.7, 0.8, 0.9, Verdict.WORSE),
        ("p99_ms", 1.1, 1.2, 1.3, Verdict.WORSE),
        ("p99_ms", 0.7, 0.8, 0.9, Verdict.BETTER),
        ("p99_ms", 0.9, 1.2, 1.3, Verdict.SAME),
        ("p99_ms", 1.0, 1.2, 1.3, Verdict.SAME),
        ("p99_ms", 1.01, 1.02, 1.05, Verdict.SAME),
    ],
)
def test_a_difference_stands_only_if_material_and_shown_by_every_round(
    name: str, low: float, median: float, high: float, verdict: Verdict
) -> None:
    more_is_better = FIGURE[name].more_is_better
    assert more_is_better is not None
    bound = Bound.difference(more_is_better=more_is_better)
    assert bound.judge(Spread(low=low, median=median, high=high)) is verdict


@pytest.mark.parametrize(
    ("bound", "written"),
    [
        (less(0.6, 0.8), "-60% to -80%"),
        (less(0.7), "-70% or more"),
        (more(2.0), "+200% or more"),
        (more(1.0, 2.0), "+100% to +200%"),
        (between(210_000, 1_030_000, "B"), "210,000 to 1,030,000 B"),
        (between(4, 4, "keys"), "4 keys"),
        (share(0.95), "95% or more"),
        (Bound.at_least(0.7, "ratio"), "ratio >= 0.700"),
        (Bound.at_most(25), "<= 25.0"),
        (Bound.at_most(0), "none"),
    ],
)
def test_a_bound_is_written_as_a_reader_writes_it(bound: Bound, written: str) -> None:
    assert str(bound) == written
