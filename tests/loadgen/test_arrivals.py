"""Due times follow from the rate alone: exact if even, a Poisson process if by chance."""

import random
from itertools import pairwise
from statistics import mean, pvariance

import pytest

from connect_loadgen.settings.arrivals import SECOND, Arrivals, Schedule


def times(text: str, seconds: float = 10.0, *, offset: float = 0.0, seed: int = 1) -> list[int]:
    return list(Arrivals.parse(text).times(seconds, random.Random(seed), offset))


def counts(text: str, parts: int) -> list[int]:
    """Return how many arrivals fall in each of so many equal parts of ten seconds."""
    found = [0] * parts
    for time in times(text):
        found[min(time * parts // (10 * SECOND), parts - 1)] += 1
    return found


def test_a_constant_rate_is_exact() -> None:
    assert times("3") == [number * SECOND // 3 for number in range(30)]


def test_a_ramp_goes_straight_from_one_rate_to_the_other() -> None:
    assert counts("0..1000", 10) == pytest.approx([50 + 100 * n for n in range(10)], abs=1)
    assert counts("1000..0", 10) == pytest.approx([950 - 100 * n for n in range(10)], abs=1)


def test_steps_last_equally_long() -> None:
    assert counts("100,300,200,0", 4) == [250, 750, 500, 0]


def test_a_spike_takes_the_middle_tenth() -> None:
    assert counts("10^500", 20) == [5] * 9 + [250] * 2 + [5] * 9


@pytest.mark.parametrize("text", ["100", "10..900", "900..10", "5,0,50", "1^100", "poisson:80"])
def test_due_times_never_go_back_and_end_with_the_phase(text: str) -> None:
    found = times(text)
    assert found == sorted(found)
    assert found[0] >= 0
    assert found[-1] < 10 * SECOND


@pytest.mark.parametrize("text", ["100", "10..900", "5,0,50", "1^100"])
def test_as_many_come_as_the_mean_rate_says(text: str) -> None:
    assert len(times(text)) == pytest.approx(Arrivals.parse(text).mean_rate * 10, abs=1)


def test_by_chance_gaps_are_exponential_and_counts_are_poisson() -> None:
    found = times("poisson:1000")
    gaps = [later - earlier for earlier, later in pairwise(found)]
    assert mean(gaps) == pytest.approx(SECOND / 1000, rel=0.05)
    # Of an exponential distribution, the standard deviation is the mean.
    assert pvariance(gaps) ** 0.5 == pytest.approx(mean(gaps), rel=0.05)
    per_part = counts("poisson:1000", 1000)
    # Of a Poisson distribution, the variance is the mean.
    assert pvariance(per_part) == pytest.approx(mean(per_part), rel=0.15)


def test_chance_follows_the_shape_of_the_rate() -> None:
    assert counts("poisson:0..2000", 2) == pytest.approx([2500, 7500], rel=0.05)


def test_chance_is_that_of_the_seed() -> None:
    assert times("poisson:50", seed=1) == times("poisson:50", seed=1)
    assert times("poisson:50", seed=1) != times("poisson:50", seed=2)


def test_parts_with_their_offsets_make_up_the_whole() -> None:
    part = Arrivals.parse("300").divided(3)
    together = sorted(time for n in range(3) for time in part.times(10.0, random.Random(1), n / 3))
    assert together == pytest.approx(times("300"), abs=1)


def test_a_warm_up_is_at_the_rate_that_comes_first() -> None:
    assert Arrivals.parse("poisson:100..900").at_its_beginning() == Arrivals.parse("poisson:100")
    assert Arrivals.parse("7").at_its_beginning() == Arrivals.parse("7")


def test_a_schedule_gives_each_time_once_when_it_has_come() -> None:
    schedule = Schedule(iter([0, 10, 20]), begins_at=100)
    assert list(schedule.due(99)) == []
    assert list(schedule.due(115)) == [100, 110]
    assert schedule.next_at == 120
    assert list(schedule.due(1_000)) == [120]
    assert list(schedule.due(1_000)) == []


def test_a_batch_is_due_at_once_and_the_rate_stays() -> None:
    evenly = times("640")
    found = times("batch:64:640")
    assert len(found) == len(evenly)
    assert found == [evenly[number // 64 * 64] for number in range(len(evenly))]
    by_chance = times("poisson:batch:8:100")
    assert all(len(set(by_chance[first : first + 8])) == 1 for first in range(0, 96, 8))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "fast",
        "-1",
        "nan",
        "inf",
        "1000001",
        "1..2..3",
        "1^2^3",
        "1,,2",
        "poisson",
        "poisson:",
        "1 000",
        "gauss:3",
        "batch:0:10",
        "batch:10",
        "batch:2:poisson:10",
    ],
)
def test_what_is_no_rate_is_refused_with_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected operations per second.*poisson:"):
        Arrivals.parse(text)


@pytest.mark.parametrize("text", ["0", "0..0", "0,0", "0^0"])
def test_a_rate_at_which_nothing_comes_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="nothing is ever sent"):
        Arrivals.parse(text)
