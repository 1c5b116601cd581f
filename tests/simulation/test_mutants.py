"""Each rule that is broken on purpose is found: the simulation can fail."""

import pytest

from tests.simulation.mutants import MUTANTS, Mutant
from tests.simulation.schedule import run_schedule

# The slowest to be found took 217.
_SEEDS = 500


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_broken_rule_is_found_within_some_schedules(mutant: Mutant) -> None:
    with mutant():
        found = next(
            (
                outcome
                for outcome in map(run_schedule, range(_SEEDS))
                if outcome.violation is not None
            ),
            None,
        )
    assert found is not None


def test_the_same_seeds_find_nothing_without_mutants() -> None:
    assert [run_schedule(seed).violation for seed in range(20)] == [None] * 20
