"""From what the sides showed to the rows of the table; rules on figures and nothing else."""

from collections.abc import Iterator, Mapping, Sequence

from connect_loadgen.experiment.model import Quantity, Row
from connect_loadgen.experiment.numbers import count, figure
from connect_loadgen.experiment.results import Ratio, Spread
from connect_loadgen.experiment.statistics import ratio_to, spread_of
from connect_loadgen.reach.results import RowResult, SideResult, Verdict

__all__ = ["judge"]


def judge(row: Row, found: Mapping[str, SideResult]) -> RowResult:
    """Hold the medians of a row against its goal.

    Rounds in which the generator was the limit, of the row's side or of what it is compared with,
    say nothing about the service and are left out.

    Args:
        row: what was to be measured.
        found: all rounds of the sides that it needs, by their names.
    """
    judged = _without_rounds_of_the_generator(row, found)
    measured = _spread(row.measured, judged)
    reference = None if row.reference is None else _spread(row.reference, judged)
    ratio = None if row.reference is None else _ratio(row.measured, row.reference, judged)
    verdict = _verdict(row, measured, ratio)
    faults = list(_faults(row, found))
    if verdict is Verdict.NOT_MEASURED and not faults:
        verdict = Verdict.NO_VERDICT
    return RowResult(
        name=row.name,
        what=row.what,
        unit=row.unit,
        measured=measured,
        compared_with=row.compared_with,
        reference=reference,
        ratio=ratio,
        goal=row.goal,
        verdict=verdict,
        run_with=row.run_with,
        remark="; ".join(faults or _remarks(row, found)),
    )


def _without_rounds_of_the_generator(
    row: Row, found: Mapping[str, SideResult]
) -> Mapping[str, SideResult]:
    sides = [found[name] for name in _sides_of(row) if found[name].failure is None]
    left_out = {
        number for side in sides for number, seen in enumerate(side.rounds) if seen.generator_bound
    }
    kept = {
        side.name: side.model_copy(
            update={
                "rounds": [
                    seen for number, seen in enumerate(side.rounds) if number not in left_out
                ]
            }
        )
        for side in sides
    }
    return {**found, **kept}


def _sides_of(row: Row) -> list[str]:
    """Return the sides whose figures are judged, each once."""
    needed = [row.measured] if row.reference is None else [row.measured, row.reference]
    return list(dict.fromkeys(quantity.side for quantity in needed))


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
    for side in _sides_of(row):
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
    for side in _sides_of(row):
        rounds = found[side].rounds
        bound = sum(seen.generator_bound for seen in rounds)
        if bound:
            remarks.append(
                f"the generator was the limit of {side} in {bound} of {len(rounds)} rounds,"
                " which are left out"
            )
    return remarks
