"""What the benchmarks share: the number of rounds, cells that show a spread, the check of answers.

A ratio is always taken within a round, so that what else the machine does weighs on both sides; a
cell shows the median over the rounds and, in brackets, the lowest and the highest.
"""

import argparse
import multiprocessing
import statistics
from collections.abc import Callable, Sequence

__all__ = ["better_by", "in_fresh_process", "require", "rounds_from_arguments", "spread"]

_DEFAULT_ROUNDS = 5


def rounds_from_arguments(description: str | None) -> int:
    """Return the number of rounds asked for on the command line."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=int, default=_DEFAULT_ROUNDS, help="default: %(default)s", metavar="N"
    )
    rounds: int = parser.parse_args().rounds
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    return rounds


def spread(values: Sequence[float], unit: str) -> str:
    """Return the median and what it ranges over, for a cell of a table."""
    low, middle, high = min(values), statistics.median(values), max(values)
    digits = ",.2f" if middle < 10 else ",.1f" if middle < 100 else ",.0f"
    return f"{middle:{digits}} {unit} ({low:{digits}} to {high:{digits}})"


def better_by(
    theirs: Sequence[float], ours: Sequence[float], *, more_is_better: bool = False
) -> str:
    """Return the cell that says how many times better ours did, round by round."""
    pairs = zip(theirs, ours, strict=True)
    ratios = [mine / other if more_is_better else other / mine for other, mine in pairs]
    return spread(ratios, "x")


def require(right: bool) -> None:  # noqa: FBT001 - one condition
    """Refuse to go on measuring something that gives wrong answers."""
    if not right:
        raise RuntimeError("a wrong answer: these figures would mean nothing")


def in_fresh_process(measure: Callable[[], float]) -> float:
    """Return what ``measure``, a function of a module, returns in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure)
