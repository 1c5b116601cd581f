"""One builder for all reports: answer, warnings, rows, what an experiment adds, and its method."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

from connect_loadgen.experiment.bounds import Verdict
from connect_loadgen.experiment.results import Environment, Result
from connect_loadgen.report.blocks import Block, Bullets, Page, Prose, Section, Table
from connect_loadgen.report.tables import environment_table, settings_table, tables_of

__all__ = ["NO_WINDOW", "Look", "condensed", "csv_of", "junit_of", "page_of", "terminal_blocks"]

NO_WINDOW = (
    "The service kept no answers to give again (redelivery_window 0), since the audited server has"
    " no such window."
)
"""What trials fix for the service, whatever its default is."""

_IN_MEMORY = frozenset({"tmpfs", "ramfs"})
# More would push the answer off the screen.
_MOST_WARNINGS = 5


@dataclass(frozen=True, slots=True)
class Look:
    """What a command adds to the report that all commands have."""

    title: str
    method: str
    """How it was measured."""
    tables: Callable[[Result[Any]], Sequence[Table]] = lambda _: ()
    """Shown on the terminal and on the page."""
    more: Callable[[Result[Any]], Sequence[Block]] = lambda _: ()
    """On the page alone: plots, and tables for who wants all of it."""
    opening: Callable[[Result[Any]], Sequence[Block]] = lambda _: ()
    """Pictures at the page's top."""
    has_rows: bool = True
    """Whether the rows are shown as they are; else ``tables`` show them."""
    caveats: Callable[[Result[Any]], Sequence[str]] = lambda _: ()


def terminal_blocks(result: Result[Any], look: Look) -> Iterator[Block]:
    """Yield what the terminal shows: warnings, the answer, tables."""
    yield from _above(result)
    if result.answer:
        yield Bullets(tuple(result.answer))
    if look.has_rows:
        yield from tables_of(result.rows, detailed=False)
    yield from look.tables(result)


def page_of(result: Result[Any], look: Look) -> Page:
    """Return the page of a result."""
    return Page(
        title=look.title,
        subtitle=f"loadgen {result.command}, {result.started_at}, {_duration(result.seconds)}",
        sections=tuple(
            Section(anchor, title, tuple(blocks))
            for anchor, title, blocks in _sections(result, look)
            if blocks
        ),
    )


def _sections(result: Result[Any], look: Look) -> Iterator[tuple[str, str, Sequence[Block]]]:
    yield "notices", "Read this first", tuple(_above(result))
    yield (
        "answer",
        "Answer",
        (*(Prose(line, is_lead=True) for line in result.answer), *look.opening(result)),
    )
    rows = tables_of(result.rows, detailed=True) if look.has_rows else []
    yield "figures", "Figures", (*rows, *look.tables(result))
    yield "more", "In detail", tuple(look.more(result))
    faults = (*result.faults, *result.warnings)
    yield "warnings", "All warnings", (Bullets(faults, is_alarm=True),) if faults else ()
    yield (
        "method",
        "How it was measured",
        (
            Prose(look.method),
            settings_table(result.settings),
            environment_table(result.environment),
            Bullets((*look.caveats(result), *_caveats(result.environment))),
        ),
    )


def _above(result: Result[Any]) -> Iterator[Block]:
    told = [*result.notices, *condensed([*result.faults, *result.warnings])]
    if told:
        yield Bullets(tuple(told), is_alarm=True)


def condensed(warnings: Sequence[str]) -> list[str]:
    """Return warnings in few lines: alike ones as one, the first ones of many."""
    alike: dict[str, list[str]] = {}
    for warning in warnings:
        # What stands before the colon says where; the digits differ by round.
        text = warning.partition(": ")[2] or warning
        alike.setdefault("".join(c for c in text if not c.isdigit()), []).append(warning)
    lines = [
        each[0] if len(each) == 1 else f"{each[0]} (and {len(each) - 1} more alike)"
        for each in alike.values()
    ]
    rest = len(lines) - _MOST_WARNINGS
    return lines if rest <= 0 else [*lines[:_MOST_WARNINGS], f"and {rest} other warnings"]


def _caveats(environment: Environment) -> Iterator[str]:
    if environment.git_revision is None:
        yield "The git revision is unknown, so this result can't be reproduced."
    elif environment.git_dirty:
        yield "The code had uncommitted changes; the git revision does not tell it all."
    if environment.filesystem in _IN_MEMORY:
        yield (
            f"The data lay on {environment.filesystem}, in memory: what a commit costs on a disk"
            " does not show."
        )
    else:
        yield (
            f"What a commit costs depends on the disk ({environment.filesystem or 'unknown'});"
            " another one shifts the ratios."
        )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


# --- For other programs ---------------------------------------------------------------------------

_COLUMNS = ("name", "subject", "text", "unit", "bound", "verdict", "rounds", "how", "remark")
_SPREADS = ("measured", "reference", "ratio")


def csv_of(result: Result[Any]) -> str:
    """Return the rows as CSV: a line each, spreads as three columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    parts = ("median", "low", "high")
    writer.writerow([*_COLUMNS, *(f"{name}_{part}" for name in _SPREADS for part in parts)])
    for row in result.rows:
        spreads = [getattr(row, name) for name in _SPREADS]
        writer.writerow(
            [
                *(row.name, row.subject, row.text, row.unit, row.claimed, row.verdict.value),
                *(row.rounds, row.how, row.remark),
                *(
                    "" if spread is None else getattr(spread, part)
                    for spread in spreads
                    for part in parts
                ),
            ]
        )
    return text.getvalue()


def junit_of(result: Result[Any]) -> str:
    """Return the judged rows as JUnit's XML, which CI systems show."""
    rows = [row for row in result.rows if row.verdict]
    failures, skipped, cases = 0, 0, []
    of = f"classname={quoteattr(f'loadgen.{result.command}')}"
    for row in rows:
        inside = ""
        message = quoteattr(f"{row.verdict}: bound {row.claimed}; {row.remark}")
        if row.is_broken or row.verdict is Verdict.NOT_MEASURED:
            failures, inside = failures + 1, f"<failure message={message}/>"
        elif row.verdict in {Verdict.NO_VERDICT, Verdict.LEFT_OUT}:
            skipped, inside = skipped + 1, f"<skipped message={message}/>"
        cases.append(f"  <testcase {of} name={quoteattr(row.name)}>{inside}</testcase>")
    for fault in result.faults:
        failures += 1
        cases.append(f"  <testcase {of} name={quoteattr(fault)}><failure/></testcase>")
    suite = f"tests='{len(cases)}' failures='{failures}' skipped='{skipped}'"
    head = f"<testsuite name='loadgen {result.command}' {suite} time='{result.seconds:.3f}'>"
    return "\n".join(["<?xml version='1.0' encoding='UTF-8'?>", head, *cases, "</testsuite>"])
