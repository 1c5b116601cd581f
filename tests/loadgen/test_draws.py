"""Distributions as they are written, and as they are drawn from."""

import random
from collections import Counter
from statistics import mean, median

import pytest

from connect_loadgen.settings.draws import Draws

MANY = 20_000


def drawn(text: str, limit: float = 1e6) -> list[float]:
    return Draws.parse(text, limit).take(random.Random(1), MANY)


def test_a_number_is_always_this_number() -> None:
    assert set(drawn("64")) == {64}


def test_listed_numbers_come_by_their_weights() -> None:
    found = Counter(drawn("1,2*2,3*0.5,4*0"))
    assert set(found) == {1, 2, 3}
    assert found[1] / MANY == pytest.approx(1 / 3.5, abs=0.02)
    assert found[2] / MANY == pytest.approx(2 / 3.5, abs=0.02)


def test_shapes_have_the_parameters_that_they_are_given() -> None:
    uniform = drawn("uniform:10:30")
    assert 10 <= min(uniform) < 10.1
    assert 29.9 < max(uniform) <= 30
    assert mean(drawn("exponential:5")) == pytest.approx(5, rel=0.05)
    lognormal = drawn("lognormal:200:1")
    assert median(lognormal) == pytest.approx(200, rel=0.05)
    assert mean(lognormal) == pytest.approx(200 * 2.718**0.5, rel=0.05)


def test_nothing_is_drawn_beyond_the_limit() -> None:
    assert max(drawn("lognormal:200:1", limit=300)) == 300
    assert Draws.parse("lognormal:200:1", 300).highest == 300
    assert Draws.parse("1,7,3", 300).highest == 7


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a number"),
        ("x", "expected a number"),
        ("1,,2", "expected a number"),
        ("1*x", "expected a number"),
        ("nan", "expected a number"),
        ("normal:1:2", "expected a number"),
        ("uniform:1", "expected a number"),
        ("exponential:1:2", "expected a number"),
        ("-1", "from 0 to 100"),
        ("101", "from 0 to 100"),
        ("uniform:1:101", "from 0 to 100"),
        ("uniform:10:5", "has the lower number first"),
        ("1*1e308,1*1e308", "weights are positive numbers"),
        ("1*0", "weights"),
        ("1*-1,2*3", "weights"),
    ],
)
def test_what_is_no_distribution_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Draws.parse(text, 100)


def test_a_lognormal_of_any_sigma_stays_within_the_limit() -> None:
    assert max(drawn("lognormal:1:100000")) == 1e6
