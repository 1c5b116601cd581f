"""What a benchmark run leaves behind: the table, the comparison, the files."""

import itertools
from collections.abc import Iterator, Sequence

from rich.console import Console

from loadgen.bench.results import BenchResult, Comparison, Row, compare
from loadgen.bench.settings import BenchSettings
from loadgen.bench.suite import chosen
from loadgen.report.blocks import (
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
from loadgen.report.files import write_and_tell
from loadgen.report.html import render
from loadgen.report.method import caveats_of_environment, environment_table, settings_table
from loadgen.report.numbers import count, figure, ratio, ratio_with_spread
from loadgen.report.terminal import show_all
from loadgen.settings import ConfigurationError

__all__ = ["bench_page", "read_saved", "write_bench"]

_UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
_NO_HOOK = "allocations: the counting hook is not built here"


def read_saved(settings: BenchSettings) -> BenchResult | None:
    """Return the saved run to compare with, if one is named.

    Raises:
        ConfigurationError: it is not there, no benchmark run, or has none of the benchmarks chosen.
    """
    if settings.compare is None:
        return None
    try:
        saved = BenchResult.model_validate_json(settings.compare.read_bytes())
    except (OSError, ValueError):
        raise ConfigurationError(
            f"--compare: {settings.compare} is no bench.json of this version"
        ) from None
    # A comparison of nothing would pass whatever became slower.
    if not {row.name for row in saved.rows} & {one.name for one in chosen(settings.only)}:
        raise ConfigurationError(
            f"--compare: {settings.compare} has none of the benchmarks that are to run"
        )
    return saved


def write_bench(
    result: BenchResult, saved: BenchResult | None, settings: BenchSettings, console: Console
) -> bool:
    """Show a run, write its files, and return whether nothing became slower than the saved run.

    Raises:
        ReportError: a file can't be written.
    """
    compared = [] if saved is None else compare(saved, result, settings.threshold)
    show_all(console, _blocks(result, compared, settings.threshold))
    page = bench_page(result, compared, settings.threshold)
    write_and_tell(console, settings.output / "bench.json", result.model_dump_json(indent=2))
    write_and_tell(console, settings.output / "bench.html", render(page))
    return not any(comparison.is_slower for comparison in compared)


def bench_page(
    result: BenchResult, compared: Sequence[Comparison] = (), threshold: float = 0.0
) -> Page:
    """Return the page of a run."""
    sections = [Section("table", "Benchmarks", tuple(_blocks(result, compared, threshold)))]
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
    if caveats := caveats_of_environment(result.environment):
        sections.append(Section("caveats", "Caveats", tuple(Prose(text) for text in caveats)))
    return Page("Benchmarks", f"loadgen bench, {result.started_at}", tuple(sections))


def _blocks(
    result: BenchResult, compared: Sequence[Comparison], threshold: float
) -> Iterator[Block]:
    for group, rows in itertools.groupby(result.rows, key=lambda row: row.group):
        yield _table(group, list(rows))
    if compared:
        yield _comparison_table(compared, len(result.rows) - len(compared), threshold)


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


def _comparison_table(compared: Sequence[Comparison], new: int, threshold: float) -> Table:
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
