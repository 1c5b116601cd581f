"""Run many schedules, or show one: ``python -m tests.simulation``."""

import argparse
import logging
import sys
from collections import Counter

from tests.simulation.schedule import run_schedule


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _table(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.most_common())


def main() -> int:
    """Return 1 if a schedule broke a rule."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000, help="how many schedules")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--trace", action="store_true", help="print every step")
    arguments = parser.parse_args()
    logging.getLogger("connect_actor").setLevel(logging.ERROR)
    faults: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    steps = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        outcome = run_schedule(seed, watch=_say if arguments.trace else None)
        faults += outcome.faults
        answers += outcome.answers
        steps += outcome.steps
        if outcome.violation is not None:
            _say(f"seed {seed}, step {outcome.steps}: {outcome.violation}")
            _say(f"replay: python -m tests.simulation --first {seed} --seeds 1 --trace")
            return 1
    _say(f"{arguments.seeds} schedules, {steps} steps: every rule held")
    _say(f"faults: {_table(faults)}")
    _say(f"answers: {_table(answers)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
