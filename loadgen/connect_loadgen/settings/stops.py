"""When a load is not worth going on with: too many failures, or a percentile out of bounds.

Written as conditions, any of which stops the load: ``errors>0.01,p99>50``, a share of the finished
operations and milliseconds from the due time. Checked while the load runs, on all that it has
measured so far. That p99 is above a bound is the same as that more than 1 % took longer, so nothing
needs to be sorted.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["StopCondition", "Tally", "parse_stops", "reason_to_stop"]

# Before so many have finished, a single one weighs too much.
_ENOUGH = 100

_CONDITION = re.compile(r"(errors|p(?P<percentile>\d+(\.\d+)?))>(?P<bound>\d+(\.\d+)?)")


@dataclass(frozen=True, slots=True)
class StopCondition:
    """One condition."""

    percentile: float | None
    """0 to 100; without one, the condition is on the share of errors."""
    bound: float
    """Milliseconds, or a share."""

    @property
    def bound_nanoseconds(self) -> int | None:
        """What takes longer is counted; nothing for errors."""
        return None if self.percentile is None else int(self.bound * 1e6)


@dataclass(frozen=True, slots=True)
class Tally:
    """What the conditions are judged by; tallies of several generators are added."""

    finished: int
    failed: int
    """Wrong answers and errors."""
    slower: tuple[int, ...]
    """Operations beyond the bound of each condition; 0 for one on errors."""

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.finished + other.finished,
            self.failed + other.failed,
            tuple(a + b for a, b in zip(self.slower, other.slower, strict=True)),
        )


def parse_stops(text: str) -> tuple[StopCondition, ...]:
    """Read conditions as they are written; none in an empty text.

    Raises:
        ValueError: they are not written so.
    """
    conditions = []
    for part in text.split(",") if text else []:
        match = _CONDITION.fullmatch(part.strip())
        percentile = match and match["percentile"]
        if match is None or (percentile is not None and not 0 < float(percentile) < 100):
            raise ValueError("expected conditions as in errors>0.01,p99>50 (a share, milliseconds)")
        conditions.append(
            StopCondition(None if percentile is None else float(percentile), float(match["bound"]))
        )
    return tuple(conditions)


def reason_to_stop(conditions: Sequence[StopCondition], tally: Tally) -> str | None:
    """Return which condition is met, in words; nothing if none is, or too little has finished."""
    if tally.finished < _ENOUGH:
        return None
    for condition, slower in zip(conditions, tally.slower, strict=True):
        if condition.percentile is None:
            share = tally.failed / tally.finished
            if share > condition.bound:
                return f"{share:.2%} of the operations failed, more than {condition.bound:.2%}"
        elif slower / tally.finished > 1 - condition.percentile / 100:
            return f"p{condition.percentile:g} was above {condition.bound:g} ms"
    return None
