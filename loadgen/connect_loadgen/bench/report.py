"""What a benchmark run leaves behind: the table, the comparison, the files."""

import itertools
from collections.abc import Iterator

from connect_loadgen.bench.results import BenchResult, Row
from connect_loadgen.experiment.numbers import count, figure, ratio, ratio_with_spread
from connect_loadgen.report.blocks import (
    Block,
    Cell,
    Column,
    Page,
    Prose,
    Section,
    Table,
    Tone,
    missing,
)
from connect_loadgen.report.tables import environment_table, settings_table

__all__ = ["bench_blocks", "bench_page"]

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_NO_HOOK = "allocations: the counting hook is not built here"


def bench_page(result: BenchResult) -> Page:
    """Return the page of a run."""
    sections = [Section("table", "Benchmarks", tuple(bench_blocks(result)))]
    sections.append(
        Section(
            "method",
            "How it was measured",
            (
                Prose(
                    "Timed by pyperf, each benchmark in worker processes of its own, those of a"
                    " group in turn, round by round. Allocations are requests to Python's"
                    " allocators (not what C and Rust libraries take from the heap), counted in"
                    " another process; so are collections of the garbage collector."
                ),
                settings_table(result.settings),
                environment_table(result.environment),
            ),
        )
    )
    return Page("Benchmarks", f"loadgen bench, {result.started_at}", tuple(sections))


def bench_blocks(result: BenchResult) -> Iterator[Block]:
    """Yield what the terminal shows."""
    for group, rows in itertools.groupby(result.rows, key=lambda row: row.group):
        yield _table(group, list(rows))
    if result.compared:
        yield _comparison_table(result)


def _table(group: str, rows: list[Row]) -> Table:
    scale, unit = next(
        ((scale, unit) for scale, unit in _UNITS if min(row.mean for row in rows) >= scale),
        _UNITS[-1],
    )
    return Table(
        title=group,
        columns=(
            Column("Benchmark", is_text=True),
            Column("Mean", unit),
            Column("Error", unit, "Half of the mean's 99.9 % confidence interval."),
            Column("Median", unit),
            Column("p95", unit, "95 of 100 values lie at or below; a value is itself a mean."),
            Column("Rate", "op/s"),
            Column(
                "Ratio", "", "To the group's baseline in the same round: median, lowest, highest."
            ),
            Column("Allocated", "B/op", "Asked of Python's allocators."),
            Column("Blocks", "/op"),
            Column("GC", "/1,000 op", "Runs of the garbage collector, of all generations."),
        ),
        rows=tuple(_cells(row, scale) for row in rows),
    )


def _cells(row: Row, scale: float) -> tuple[Cell, ...]:
    def timed(seconds: float) -> Cell:
        return Cell(figure(seconds / scale), sort_by=seconds)

    return (
        Cell(row.name.partition(": ")[2]),
        timed(row.mean),
        timed(row.error),
        timed(row.median),
        timed(row.p95),
        Cell(figure(row.operations_per_second), sort_by=row.operations_per_second),
        _ratio_cell(row),
        missing(_NO_HOOK)
        if row.allocated_bytes is None
        else Cell(figure(row.allocated_bytes), sort_by=row.allocated_bytes),
        missing(_NO_HOOK)
        if row.allocated_blocks is None
        else Cell(figure(row.allocated_blocks), sort_by=row.allocated_blocks),
        Cell(figure(row.collections), sort_by=row.collections),
    )


def _ratio_cell(row: Row) -> Cell:
    if row.is_baseline:
        return Cell("1", sort_by=1.0)
    if row.ratio is None:
        return missing("ratio: the group has no baseline, or it was not run")
    return Cell(ratio_with_spread(row.ratio), sort_by=row.ratio.median)


def _comparison_table(result: BenchResult) -> Table:
    compared, threshold = result.compared, result.settings["threshold"]
    new = len(result.rows) - len(compared)
    slower = sum(comparison.is_slower for comparison in compared)
    return Table(
        title=f"Beside the saved run: {count(slower)} of {count(len(compared))} slower",
        columns=(
            Column("Benchmark", is_text=True),
            Column("Before", "us"),
            Column("After", "us"),
            Column("Ratio"),
        ),
        rows=tuple(
            (
                Cell(comparison.name),
                Cell(figure(comparison.before * 1e6), sort_by=comparison.before),
                Cell(figure(comparison.after * 1e6), sort_by=comparison.after),
                Cell(
                    ratio(comparison.ratio),
                    sort_by=comparison.ratio,
                    tone=Tone.WORSE if comparison.is_slower else Tone.NEUTRAL,
                ),
            )
            for comparison in compared
        ),
        notes=(
            f"Slower is by more than {threshold:.0%}, and by more than both runs' errors explain.",
            *([f"Not in the saved run, and so not compared: {count(new)}."] if new else ()),
        ),
    )
