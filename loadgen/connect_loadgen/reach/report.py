"""What ``loadgen reach`` leaves behind: the table, and how each row was measured."""

from collections import Counter
from collections.abc import Iterator

from connect_loadgen.experiment.numbers import ratio_with_spread, with_spread
from connect_loadgen.experiment.results import Spread
from connect_loadgen.reach.results import ReachResult, RowResult, Verdict
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
from connect_loadgen.report.method import NO_WINDOW, method_section

__all__ = ["reach_blocks", "reach_page"]

_TONE = {
    Verdict.REACHED: Tone.BETTER,
    Verdict.NOT_MEASURED: Tone.WORSE,
    Verdict.NO_VERDICT: Tone.WORSE,
}
_NOTHING_BESIDE = "the figure stands for itself"


def reach_page(result: ReachResult) -> Page:
    """Return the page of a result."""
    return Page(
        title="Reach",
        subtitle=f"loadgen reach, {result.started_at}, {result.seconds / 60:.0f} minutes",
        sections=(
            Section("answer", "Answer", tuple(reach_blocks(result))),
            method_section(
                "A row's figure and what it is compared with took turns, each turn on a fresh"
                " service with a data directory of its own, in an order drawn from the seed; a"
                " ratio is taken within its round. Figures are medians over the rounds with the"
                " lowest and the highest, and medians alone are held to the goals. CPU is that of"
                " the service's processes, user and system, all threads."
                f" {NO_WINDOW}",
                result.settings,
                result.environment,
            ),
        ),
    )


def reach_blocks(result: ReachResult) -> Iterator[Block]:
    """Yield what the terminal shows."""
    yield Prose(_lead(result), is_lead=True)
    yield _table(result)
    yield _method_table(result)


def _lead(result: ReachResult) -> str:
    verdicts = Counter(row.verdict for row in result.rows)
    told = [f"{verdicts[verdict]} {verdict.value}" for verdict in Verdict if verdicts[verdict]]
    return f"Of {len(result.rows)} rows: {', '.join(told)}."


def _table(result: ReachResult) -> Table:
    return Table(
        title="Reach",
        columns=(
            Column("Row", is_text=True),
            Column("What", is_text=True, wraps=True),
            Column("Measured", meaning="Median over the rounds, lowest and highest."),
            Column("Unit", is_text=True),
            Column("Compared with", is_text=True, wraps=True),
            Column("There"),
            Column("Ratio", meaning="Measured / compared with, within the rounds."),
            Column("Goal", is_text=True),
            Column("Verdict", is_text=True),
        ),
        rows=tuple(_row(row) for row in result.rows),
    )


def _row(row: RowResult) -> tuple[Cell, ...]:
    nothing = missing(_NOTHING_BESIDE) if not row.compared_with else None
    unmeasured = f"{row.name}: {row.remark}"
    return (
        Cell(row.name),
        Cell(row.what),
        _figure(row.measured, unmeasured),
        Cell(row.unit),
        nothing or Cell(row.compared_with),
        nothing or _figure(row.reference, unmeasured),
        nothing
        or (
            missing(unmeasured)
            if row.ratio is None
            else Cell(ratio_with_spread(row.ratio), row.ratio.median)
        ),
        missing("for orientation, without a goal") if row.goal is None else Cell(row.goal.words),
        Cell(row.verdict.value, tone=_TONE.get(row.verdict, Tone.NEUTRAL)),
    )


def _figure(spread: Spread | None, why_not: str) -> Cell:
    return missing(why_not) if spread is None else Cell(with_spread(spread), spread.median)


def _method_table(result: ReachResult) -> Table:
    return Table(
        title="Run with",
        columns=(
            Column("Row", is_text=True),
            Column("Run with", is_text=True, wraps=True),
            Column("Remark", is_text=True, wraps=True),
        ),
        rows=tuple(
            (
                Cell(row.name),
                Cell(row.run_with),
                Cell(row.remark) if row.remark else missing("nothing to add"),
            )
            for row in result.rows
        ),
    )
