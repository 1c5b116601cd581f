"""``python -m tests.simulation``: run many schedules, or show one."""

import argparse
import logging
import sys
from collections import Counter

from tests.simulation.schedule import run_schedule


def main() -> int:
    """Return 1 if a schedule broke a rule."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000, help="how many schedules")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--trace", action="store_true", help="print every step")
    arguments = parser.parse_args()
    logging.getLogger("service").setLevel(logging.ERROR)
    watch = print if arguments.trace else None
    faults: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    steps = 0
    for seed in range(arguments.first, arguments.first + arguments.seeds):
        outcome = run_schedule(seed, watch=watch)
        faults += outcome.faults
        answers += outcome.answers
        steps += outcome.steps
        if outcome.violation is not None:
            print(
                f"seed {seed}: {outcome.violation}\n"
                f"replay: python -m tests.simulation --first {seed} --seeds 1 --trace"
            )
            return 1
    print(f"{arguments.seeds} schedules, {steps} steps: every rule held")
    print("faults:", ", ".join(f"{name} {count}" for name, count in faults.most_common()))
    print("answers:", ", ".join(f"{name} {count}" for name, count in answers.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
