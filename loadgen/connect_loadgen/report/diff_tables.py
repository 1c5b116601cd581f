"""The tables of two results beside each other."""

from collections.abc import Iterator, Sequence

from connect_loadgen.experiment.difference import Change, Diff, Difference
from connect_loadgen.experiment.numbers import figure, ratio, ratio_with_spread, with_spread
from connect_loadgen.experiment.results import Ratio, Spread
from connect_loadgen.report.blocks import Block, Bullets, Cell, Column, Prose, Table, Tone, missing

__all__ = ["diff_blocks"]


def diff_blocks(diff: Diff) -> Iterator[Block]:
    """Yield all that is to be shown."""
    if diff.is_nothing:
        return
    for title, differences in (
        ("Settings that differ", diff.settings),
        ("Machine, versions and revision that differ", diff.environment),
    ):
        if differences:
            yield _difference_table(title, differences)
        else:
            yield Prose(f"{title}: none.")
    if diff.changes:
        yield _change_table(diff.changes, diff.threshold)
    if diff.notes:
        yield Bullets(tuple(diff.notes), is_alarm=True)


def _difference_table(title: str, differences: Sequence[Difference]) -> Table:
    return Table(
        title=title,
        columns=tuple(Column(name, is_text=True) for name in ("What", "Before", "After")),
        rows=tuple((Cell(d.name), Cell(d.before), Cell(d.after)) for d in differences),
    )


def _change_table(changes: Sequence[Change], threshold: float) -> Table:
    return Table(
        title="Figures: median [lowest, highest]",
        columns=(
            Column("Variant", is_text=True),
            Column("Figure", is_text=True),
            Column("Unit", is_text=True),
            Column("Before"),
            Column("After"),
            Column("After / before"),
        ),
        rows=tuple(_row(change) for change in changes),
        notes=(f"! is worse by more than {threshold:.0%}, and by more than rounds alike differ.",),
        keys=2,
    )


def _row(change: Change) -> tuple[Cell, ...]:
    tone = Tone.WORSE if change.is_worse else Tone.NEUTRAL
    return (
        Cell(change.variant),
        Cell(change.figure.title),
        Cell(change.figure.unit),
        Cell(_spread(change.before), change.before.median),
        Cell(_spread(change.after), change.after.median),
        missing("before it was 0")
        if change.ratio is None
        else Cell(_ratio(change.ratio), change.ratio.median, tone),
    )


def _spread(value: Spread) -> str:
    return figure(value.median) if value.low == value.high else with_spread(value)


def _ratio(value: Ratio) -> str:
    return ratio(value.median) if value.low == value.high else ratio_with_spread(value)
