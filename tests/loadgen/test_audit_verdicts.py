"""The rules by which claims are judged."""

import pytest

from connect_loadgen.experiment.results import Spread
from connect_loadgen.experiment.verdicts import AtLeast, Between, Expectation, Less, More, Verdict

HOLDS, PARTLY, NOT = Verdict.HOLDS, Verdict.PARTLY, Verdict.DOES_NOT_HOLD


def spread(median: float, low: float | None = None, high: float | None = None) -> Spread:
    return Spread(
        median=median,
        low=median if low is None else low,
        high=median if high is None else high,
    )


@pytest.mark.parametrize(
    ("claim", "measured", "verdict"),
    [
        (Less(0.6, 0.8), spread(0.4), HOLDS),
        (Less(0.6, 0.8), spread(0.05), HOLDS),
        (Less(0.6, 0.8), spread(0.39, high=0.41), PARTLY),
        (Less(0.6, 0.8), spread(0.41), PARTLY),
        (Less(0.6, 0.8), spread(0.7), PARTLY),
        (Less(0.6, 0.8), spread(0.71), NOT),
        (Less(0.6, 0.8), spread(2.0), NOT),
        (More(1.0, 2.0), spread(2.0), HOLDS),
        (More(1.0, 2.0), spread(2.1, low=1.9), PARTLY),
        (More(1.0, 2.0), spread(1.5), PARTLY),
        (More(1.0, 2.0), spread(1.49), NOT),
        (More(1.0, 2.0), spread(0.5), NOT),
        (Between(100, 200, "B"), spread(100), HOLDS),
        (Between(100, 200, "B"), spread(200), HOLDS),
        (Between(100, 200, "B"), spread(201), PARTLY),
        (Between(100, 200, "B"), spread(50), PARTLY),
        (Between(100, 200, "B"), spread(49), NOT),
        (Between(100, 200, "B"), spread(401), NOT),
        (AtLeast(0.95), spread(0.96), HOLDS),
        (AtLeast(0.95), spread(0.96, low=0.94), PARTLY),
        (AtLeast(0.95), spread(0.4), NOT),
    ],
)
def test_a_claim_is_judged_by_its_weaker_end_and_the_worst_round(
    claim: Expectation, measured: Spread, verdict: Verdict
) -> None:
    assert claim.judge(measured) is verdict


@pytest.mark.parametrize(
    ("claim", "written"),
    [
        (Less(0.6, 0.8), "-60% to -80%"),
        (Less(0.7), "-70% or more"),
        (More(2.0), "+200% or more"),
        (More(1.0, 2.0), "+100% to +200%"),
        (Between(210_000, 1_030_000, "B"), "210,000 to 1,030,000 B"),
        (Between(4, 4, "keys"), "4 keys"),
        (AtLeast(0.95), "95% or more"),
    ],
)
def test_a_claim_is_written_as_the_audit_writes_it(claim: Expectation, written: str) -> None:
    assert str(claim) == written
