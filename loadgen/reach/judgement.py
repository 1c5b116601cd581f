"""From what the sides showed to the rows of the table; rules on figures and nothing else."""

from collections.abc import Iterator, Mapping, Sequence

from loadgen.reach.results import RowResult, SideResult, Verdict
from loadgen.reach.rows import Quantity, Row
from loadgen.report.numbers import count, figure
from loadgen.results import Ratio, Spread
from loadgen.statistics import ratio_to, spread_of

__all__ = ["judge"]


def judge(row: Row, found: Mapping[str, SideResult]) -> RowResult:
    """Hold the medians of a row against its goal.

    Args:
        row: what was to be measured.
        found: all rounds of the sides that it needs, by their names.
    """
    measured = _spread(row.measured, found)
    reference = None if row.reference is None else _spread(row.reference, found)
    ratio = None if row.reference is None else _ratio(row.measured, row.reference, found)
    faults = list(_faults(row, found))
    return RowResult(
        name=row.name,
        what=row.what,
        unit=row.unit,
        measured=measured,
        compared_with=row.compared_with,
        reference=reference,
        ratio=ratio,
        goal=row.goal,
        verdict=_verdict(row, measured, ratio),
        run_with=row.run_with,
        remark="; ".join(faults or _remarks(row, found)),
    )


def _verdict(row: Row, measured: Spread | None, ratio: Ratio | None) -> Verdict:
    if measured is None or (row.reference is not None and ratio is None):
        return Verdict.NOT_MEASURED
    if row.goal is None:
        return Verdict.NO_GOAL
    judged = ratio if row.goal.of == "ratio" else measured
    if judged is None:
        raise ValueError(f"row {row.name}: a ratio is set as goal, but nothing to compare with")
    return Verdict.REACHED if row.goal.is_reached_by(judged.median) else Verdict.NOT_REACHED


def _values(quantity: Quantity, found: Mapping[str, SideResult]) -> list[float | None]:
    side = found[quantity.side]
    if side.failure is not None:
        # Fewer rounds than the others: of no use, and of no ratio.
        return []
    return [seen.figures.get(quantity.figure) for seen in side.rounds]


def _spread(quantity: Quantity, found: Mapping[str, SideResult]) -> Spread | None:
    return spread_of(_values(quantity, found))


def _ratio(
    measured: Quantity, reference: Quantity, found: Mapping[str, SideResult]
) -> Ratio | None:
    values, baseline = _values(measured, found), _values(reference, found)
    return ratio_to(baseline, values) if len(values) == len(baseline) else None


def _faults(row: Row, found: Mapping[str, SideResult]) -> Iterator[str]:
    """Say why a row could not be measured."""
    needed = [row.measured] if row.reference is None else [row.measured, row.reference]
    for side in dict.fromkeys(quantity.side for quantity in needed):
        failure = found[side].failure
        if failure is not None:
            yield failure
    for quantity in needed:
        if found[quantity.side].failure is None and _spread(quantity, found) is None:
            yield f"{quantity.side} does not tell {quantity.figure}"
    if row.reference is not None and 0 in _values(row.reference, found):
        yield f"{row.reference.figure} of {row.reference.side} is 0, and nothing can be held to it"


def _written(value: float) -> str:
    # What was counted has no places.
    return count(value) if float(value).is_integer() else figure(value)


def _remarks(row: Row, found: Mapping[str, SideResult]) -> Sequence[str]:
    """Say what a reader has to know of a row that was measured."""
    remarks = []
    for beside in row.beside:
        spread = _spread(beside.quantity, found)
        if spread is not None:
            remarks.append(beside.words.format(_written(spread.median)))
    for side in dict.fromkeys(quantity.side for quantity in row.quantities()):
        rounds = found[side].rounds
        bound = sum(seen.generator_bound for seen in rounds)
        if bound:
            remarks.append(
                f"the generator may have been the limit of {side} in {bound} of {len(rounds)}"
                " rounds"
            )
    return remarks
