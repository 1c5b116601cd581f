"""Rows as tables: one for a terminal that is 80 columns wide, one with everything for the page."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from connect_loadgen.experiment.bounds import Verdict
from connect_loadgen.experiment.numbers import (
    Spread,
    count,
    figure,
    ratio_with_spread,
    with_spread,
)
from connect_loadgen.experiment.results import Environment, Row
from connect_loadgen.report.blocks import Cell, Column, Table, Tone, missing

__all__ = [
    "TONE",
    "environment_table",
    "figure_cell",
    "plain_table",
    "ratio_cell",
    "rows_table",
    "settings_table",
    "tables_of",
]

TONE: Mapping[Verdict, Tone] = {
    Verdict.HOLDS: Tone.BETTER,
    Verdict.BETTER: Tone.BETTER,
    Verdict.DOES_NOT_HOLD: Tone.WORSE,
    Verdict.WORSE: Tone.WORSE,
    Verdict.NOT_MEASURED: Tone.WORSE,
    Verdict.NO_VERDICT: Tone.WORSE,
}

# A prefix is used from ten of it on.
_PREFIXES = ((1e6, "M"), (1e3, "k"))


def tables_of(rows: Sequence[Row], *, detailed: bool) -> list[Table]:
    """Return a table for each subject of the rows."""
    subjects = dict.fromkeys(row.subject for row in rows)
    return [
        rows_table(
            subject or "Results",
            [row for row in rows if row.subject == subject],
            detailed=detailed,
        )
        for subject in subjects
    ]


def rows_table(title: str, rows: Sequence[Row], *, detailed: bool) -> Table:
    """Return the rows of a table; what no row has is no column.

    Args:
        title: of the table.
        rows: at least one.
        detailed: whether to show what each is compared with, how it was measured, and remarks.
    """
    is_judged = any(row.bound is not None or row.verdict for row in rows)
    is_compared = detailed and any(row.reference is not None for row in rows)
    columns = [Column("What", is_text=True, wraps=True)]
    if detailed:
        columns.insert(0, Column("Row", is_text=True))
    columns.append(
        Column(
            "Measured", is_text=True, wraps=True, meaning="Median of the rounds [lowest, highest]."
        )
    )
    if is_compared:
        columns.append(Column("Compared with", is_text=True, wraps=True))
    if is_judged:
        columns.append(Column("Bound", is_text=True, wraps=True))
        columns.append(Column("Verdict", is_text=True))
    if detailed:
        columns.append(Column("How, and remarks", is_text=True, wraps=True))
    return Table(
        title=title,
        columns=tuple(columns),
        rows=tuple(
            _cells(row, is_judged=is_judged, is_compared=is_compared, detailed=detailed)
            for row in rows
        ),
    )


def _cells(row: Row, *, is_judged: bool, is_compared: bool, detailed: bool) -> tuple[Cell, ...]:
    cells = [Cell(row.text), _measured(row)]
    if detailed:
        cells.insert(0, Cell(row.name))
    if is_compared:
        there = None if row.reference is None else _with_unit(row.reference, row.unit)
        cells.append(
            missing("it stands for itself, or what it is compared with was not measured")
            if there is None
            else Cell(f"{row.compared_with}: {there}")
        )
    if is_judged:
        cells += [
            Cell(row.claimed or "none"),
            Cell(row.verdict.value or "-", tone=TONE.get(row.verdict, Tone.NEUTRAL)),
        ]
    if detailed:
        how = f"{row.how}; rounds: {row.rounds}" if row.how and row.rounds else row.how
        cells.append(Cell(". ".join(filter(None, (how, row.remark))) or "-"))
    return tuple(cells)


def _measured(row: Row) -> Cell:
    judged = row.judged
    if judged is None and row.measured is None:
        return missing(row.remark or "not measured")
    told = []
    if row.ratio is not None:
        is_change = row.bound is not None and row.bound.rule == "claim"
        told.append(
            _change(row.ratio)
            if is_change
            else f"{ratio_with_spread(row.ratio)} of {row.compared_with}"
            if row.compared_with
            else ratio_with_spread(row.ratio)
        )
    if row.measured is not None and not (row.ratio is not None and row.subject and not row.unit):
        told.insert(0 if judged is row.measured else len(told), _with_unit(row.measured, row.unit))
    return Cell("; ".join(told), sort_by=None if judged is None else judged.median)


def _with_unit(spread: Spread, unit: str) -> str:
    if unit == "share":
        return f"{spread.median:.1%} [{spread.low:.1%}, {spread.high:.1%}]"
    is_whole = unit in {"in all", "operations"} or spread.low == spread.high == round(spread.median)
    scale, prefix = next(
        (
            (scale, prefix)
            for scale, prefix in _PREFIXES
            if unit.startswith("B") and spread.median >= 10 * scale
        ),
        (1.0, ""),
    )
    if is_whole and scale == 1 and spread.low == spread.high:
        return f"{count(spread.median)} {unit}".strip()
    scaled = Spread(median=spread.median / scale, low=spread.low / scale, high=spread.high / scale)
    return f"{with_spread(scaled)} {prefix}{unit}".strip()


def _change(spread: Spread) -> str:
    """Write a ratio as the change that it is."""
    median, low, high = (f"{value - 1:+.0%}" for value in (spread.median, spread.low, spread.high))
    return median if low == high else f"{median} [{low}, {high}]"


def figure_cell(value: float | None, reason: str) -> Cell:
    """Return a figure, or why there is none."""
    return missing(reason) if value is None else Cell(figure(value), value)


def ratio_cell(value: Spread | None, verdict: Verdict, reason: str) -> Cell:
    """Return a ratio with its spread, or why there is none."""
    if value is None:
        return missing(reason)
    return Cell(ratio_with_spread(value), value.median, TONE.get(verdict, Tone.NEUTRAL))


def plain_table(
    title: str, headings: Sequence[str], rows: Iterable[Sequence[object]], *notes: str
) -> Table:
    """Return a table of texts and numbers; the first column says what a row is about.

    A heading is written ``Title|unit``. A column of numbers is one that has a unit, or an empty one
    (``Count|``).
    """
    columns = []
    for heading in headings:
        title_, bar, unit = heading.partition("|")
        columns.append(Column(title_, unit, is_text=not bar))
    return Table(
        title=title,
        columns=tuple(columns),
        rows=tuple(tuple(_plain(each) for each in row) for row in rows),
        notes=notes,
    )


def _plain(value: object) -> Cell:
    match value:
        case Cell():
            return value
        case None:
            return missing("not known")
        case bool():
            return Cell("yes" if value else "no")
        case int():
            return Cell(count(value), value)
        case float():
            return Cell(figure(value), value)
    return Cell(str(value))


def environment_table(environment: Environment) -> Table:
    """Return the machine, the versions and the revision."""
    revision = environment.git_revision
    dirty = " with uncommitted changes" if environment.git_dirty else ""
    facts: dict[str, str | None] = {
        "Git revision": revision and f"{revision}{dirty}",
        "Machine": f"{environment.cpus} CPUs, {environment.memory_bytes / 2**30:.1f} GiB memory",
        "CPU": environment.cpu_model,
        "Platform": environment.platform,
        "File system of the data": environment.filesystem,
        "Python": environment.python,
        **environment.versions,
    }
    return plain_table("Machine and versions", ("What", "Value"), facts.items())


def settings_table(settings: Mapping[str, Any]) -> Table:
    """Return every setting that has a value."""
    known = {name: value for name, value in settings.items() if value is not None}
    return plain_table(
        "Settings",
        ("What", "Value"),
        (
            (name, ", ".join(map(str, value)) if isinstance(value, list) else str(value))
            for name, value in known.items()
        ),
    )
