"""The form of a benchmark run's result, and how it compares with another."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from connect_loadgen.experiment.numbers import Spread as Ratio
from connect_loadgen.experiment.numbers import ratio_to
from connect_loadgen.former import FormerResult as Result

__all__ = ["BENCH_SCHEMA", "BenchResult", "Comparison", "Row", "compare", "make_row"]

BENCH_SCHEMA: Final = "connect-actor.loadgen.bench/2"

# Student's t, two-sided 99.9 % as BenchmarkDotNet's "Error", by degrees of freedom. Between two of
# them the smaller one's holds: rather too wide an error than too narrow a one.
_STUDENT: Mapping[int, float] = {
    1: 636.6,
    2: 31.60,
    3: 12.92,
    4: 8.610,
    5: 6.869,
    6: 5.959,
    7: 5.408,
    8: 5.041,
    9: 4.781,
    10: 4.587,
    11: 4.437,
    12: 4.318,
    13: 4.221,
    14: 4.140,
    15: 4.073,
    16: 4.015,
    17: 3.965,
    18: 3.922,
    19: 3.883,
    24: 3.745,
    29: 3.659,
    39: 3.558,
    59: 3.463,
    99: 3.392,
    199: 3.340,
}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(_Record):
    """One benchmark; every figure is that of one operation."""

    name: str
    group: str
    is_baseline: bool
    rounds: list[list[float]]
    """Seconds: one mean for each value that pyperf took, by round, in the order taken."""
    mean: float
    error: float
    """Half of the mean's 99.9 % confidence interval."""
    median: float
    p95: float
    operations_per_second: float
    ratio: Ratio | None
    """Of a round's median to that of the group's baseline in the same round, over the rounds."""
    allocated_bytes: float | None
    allocated_blocks: float | None
    collections: float
    """Runs of the garbage collector for 1,000 operations."""


class Comparison(_Record):
    """One benchmark in two runs."""

    name: str
    before: float
    """Median, seconds."""
    after: float
    ratio: float
    is_slower: bool
    """Slower by more than the threshold, and by more than both runs' errors explain."""


class BenchResult(Result):
    """Result of ``loadgen bench``."""

    schema_version: Literal["connect-actor.loadgen.bench/2"] = BENCH_SCHEMA
    rows: list[Row]
    compared: list[Comparison] = Field(default_factory=list)
    """Benchmarks that a saved run has, too, if one was named."""

    @property
    def is_wrong(self) -> bool:
        """Whether a benchmark became slower."""
        return any(comparison.is_slower for comparison in self.compared)


def make_row(
    name: str,
    *,
    group: str,
    is_baseline: bool,
    rounds: Sequence[Sequence[float]],
    baseline: Sequence[Sequence[float]] | None,
    allocated_bytes: float | None,
    allocated_blocks: float | None,
    collections: float,
) -> Row:
    """Work a row's figures out of its values.

    Args:
        name: of the benchmark.
        group: what it is compared in.
        is_baseline: whether the group is divided by it.
        rounds: seconds of one operation, value by value, by round.
        baseline: the same of the group's baseline, in the same rounds, if it was run.
        allocated_bytes: of one operation, if they could be counted.
        allocated_blocks: likewise.
        collections: for 1,000 operations.
    """
    seconds = list(itertools.chain.from_iterable(rounds))
    mean = statistics.fmean(seconds)
    return Row(
        name=name,
        group=group,
        is_baseline=is_baseline,
        rounds=[list(values) for values in rounds],
        mean=mean,
        error=_error(seconds),
        median=statistics.median(seconds),
        p95=_quantile(seconds, 0.95),
        operations_per_second=1 / mean,
        ratio=None if baseline is None or is_baseline else _ratio(baseline, rounds),
        allocated_bytes=allocated_bytes,
        allocated_blocks=allocated_blocks,
        collections=collections,
    )


def _error(values: Sequence[float]) -> float:
    degrees = len(values) - 1
    t = _STUDENT[max(known for known in _STUDENT if known <= degrees)]
    return t * statistics.stdev(values) / math.sqrt(len(values))


def _quantile(values: Sequence[float], share: float) -> float:
    """Return the value below or at which so many lie, between neighbours in proportion."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def _ratio(baseline: Sequence[Sequence[float]], rounds: Sequence[Sequence[float]]) -> Ratio | None:
    return ratio_to(
        [statistics.median(values) for values in baseline],
        [statistics.median(values) for values in rounds],
    )


def compare(before: BenchResult, after: Sequence[Row], threshold: float) -> list[Comparison]:
    """Compare the benchmarks that both runs have.

    Args:
        before: the saved run.
        after: rows of the new one.
        threshold: share by which a median may be larger.
    """
    saved = {row.name: row for row in before.rows}
    return [_compared(saved[row.name], row, threshold) for row in after if row.name in saved]


def _compared(before: Row, after: Row, threshold: float) -> Comparison:
    ratio = after.median / before.median
    apart = after.mean - after.error > before.mean + before.error
    return Comparison(
        name=after.name,
        before=before.median,
        after=after.median,
        ratio=ratio,
        is_slower=ratio > 1 + threshold and apart,
    )
