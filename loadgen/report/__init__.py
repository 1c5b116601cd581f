"""What a command leaves behind: tables on the terminal, the result as JSON, a page in HTML.

The figures are shown before anything is written, so that a full disk can't take them away.
"""

from collections.abc import Iterator

from rich.console import Console

from loadgen.diff import Diff
from loadgen.report.blocks import Block, Bullets, Prose
from loadgen.report.compare_page import compare_page
from loadgen.report.compare_tables import how_to_read, ratio_table, variant_table
from loadgen.report.diff_tables import diff_blocks
from loadgen.report.files import ReportError, require_writable, write_and_tell
from loadgen.report.findings import answer, nothing_worse, what_got_worse
from loadgen.report.html import render
from loadgen.report.run_page import run_page
from loadgen.report.run_tables import (
    cost_table,
    generator_table,
    latency_table,
    load_table,
    run_warnings,
)
from loadgen.report.terminal import show_all
from loadgen.results import CompareResult, LoadFigures, Recovery, RunResult
from loadgen.settings import CompareSettings, RunSettings

__all__ = [
    "ReportError",
    "require_writable",
    "show_diff",
    "went_right",
    "write_compare",
    "write_run",
]


def write_run(result: RunResult, settings: RunSettings, console: Console) -> bool:
    """Show a run and write the files that were asked for; return whether all went right.

    Raises:
        ReportError: a file can't be written.
    """
    show_all(console, _run_blocks(result))
    if settings.output is not None:
        write_and_tell(console, settings.output, result.model_dump_json(indent=2))
    if settings.report is not None:
        write_and_tell(console, settings.report, render(run_page(result)))
    return went_right(result.load)


def write_compare(result: CompareResult, settings: CompareSettings, console: Console) -> bool:
    """Show a comparison and write its files; return whether every run of it went right.

    Raises:
        ReportError: a file can't be written.
    """
    show_all(console, _compare_blocks(result))
    write_and_tell(console, settings.output / "compare.json", result.model_dump_json(indent=2))
    write_and_tell(console, settings.output / "compare.html", render(compare_page(result)))
    return all(
        went_right(round_.load) and _came_back(round_.recovery)
        for variant in result.variants
        for round_ in variant.rounds
    )


def show_diff(diff: Diff, threshold: float, console: Console) -> None:
    """Show two results beside each other."""
    show_all(console, diff_blocks(diff, threshold))


def _run_blocks(result: RunResult) -> Iterator[Block]:
    yield load_table(result)
    yield latency_table(result)
    yield cost_table(result)
    yield generator_table(result)
    if warnings := run_warnings(result):
        yield Bullets(tuple(warnings), is_alarm=True)


def _compare_blocks(result: CompareResult) -> Iterator[Block]:
    yield variant_table(result)
    yield ratio_table(result)
    yield Prose(" ".join(how_to_read(result)))
    yield Bullets(tuple(answer(result)))
    if worse := what_got_worse(result):
        yield Bullets(tuple(f"Worse in every round - {sentence}" for sentence in worse))
    else:
        yield Prose(nothing_worse(result))
    if result.warnings:
        yield Bullets(tuple(result.warnings), is_alarm=True)


def went_right(load: LoadFigures) -> bool:
    """Return whether every answer came and was right, to the end of the load."""
    return not load.verification_failures and not load.errors and load.stopped is None


def _came_back(recovery: Recovery | None) -> bool:
    return recovery is None or recovery.verified_channels == recovery.channels
