"""The model of an experiment: sides that take turns, and rows that hold their figures to bounds."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from connect_loadgen.drive.load import Progress
from connect_loadgen.experiment.bounds import Bound, Verdict
from connect_loadgen.experiment.numbers import Spread, count, figure, ratio_to, spread_of
from connect_loadgen.experiment.results import Round, Row, Side

__all__ = ["GENERATOR", "Asked", "Probe", "Quantity", "judge", "outcome", "promise", "withhold"]

GENERATOR = "the generator was the limit in"


@dataclass(frozen=True, slots=True)
class Probe:
    """Measures one side, once a round."""

    name: str
    measure: Callable[[Progress], Awaitable[Round]]
    """Raises MeasureError, ServiceError, TransportError or MetricsError if it can't."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A figure of a side; ``words`` with ``{}`` in its place, where a remark tells it."""

    side: str
    figure: str
    words: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """A row before anything is measured."""

    name: str
    text: str
    unit: str
    measured: Quantity
    reference: Quantity | None = None
    compared_with: str = ""
    bound: Bound | None = None
    subject: str = ""
    how: str = ""
    remark: str = ""
    beside: tuple[Quantity, ...] = ()
    """Figures that the remark tells."""
    more_is_better: bool | None = None

    @property
    def judged(self) -> tuple[Quantity, ...]:
        """The figures that are judged."""
        return (self.measured,) if self.reference is None else (self.measured, self.reference)

    @property
    def sides(self) -> set[str]:
        """The sides that the row needs."""
        return {each.side for each in (*self.judged, *self.beside)}


def judge(asked: Asked, found: Mapping[str, Side], *, is_complete: bool = True) -> Row:
    """Hold what the sides showed against the bound of a row.

    Rounds in which the generator was the limit, of the side or of what it is compared with, say
    nothing about the service and are left out.

    Args:
        asked: the row.
        found: the sides by their names; one that was not measured may be missing.
        is_complete: whether everything was measured; else what is missing was left out.
    """
    names = list(dict.fromkeys(each.side for each in asked.judged))
    sides = {name: found[name] for name in names if name in found}
    sound = [side for side in sides.values() if side.failure is None]
    bound_rounds = {
        number for side in sound for number, each in enumerate(side.rounds) if each.generator_bound
    }
    ran = max((len(side.rounds) for side in sound), default=0)

    def values(quantity: Quantity) -> list[float | None]:
        side = sides.get(quantity.side)
        if side is None or side.failure is not None:
            return []
        return [
            each.figures.get(quantity.figure)
            for number, each in enumerate(side.rounds)
            if number not in bound_rounds
        ]

    measured, reference, ratio = spread_of(values(asked.measured)), None, None
    if asked.reference is not None:
        base = values(asked.reference)
        reference = spread_of(base)
        if len(base) == len(values(asked.measured)):
            ratio = ratio_to(base, values(asked.measured))
    judged = ratio if asked.bound is not None and asked.bound.of == "ratio" else measured
    is_there = judged is not None and (asked.reference is None or ratio is not None)
    remarks = [asked.remark]
    if is_there and judged is not None:
        verdict = Verdict.NO_BOUND if asked.bound is None else asked.bound.judge(judged)
        remarks += _beside(asked, found)
        if bound_rounds:
            remarks.append(f"{GENERATOR} {len(bound_rounds)} of {ran} rounds, which are left out")
    elif ran and len(bound_rounds) == ran:
        verdict, remarks = Verdict.NO_VERDICT, [f"{GENERATOR} every round"]
    elif not ran and not is_complete and not any(side.failure for side in sides.values()):
        verdict, remarks = Verdict.LEFT_OUT, ["the command ended before it was measured"]
    else:
        verdict, remarks = Verdict.NOT_MEASURED, list(_faults(asked, sides, values))
    return Row(
        name=asked.name,
        subject=asked.subject,
        text=asked.text,
        unit=asked.unit,
        measured=measured,
        compared_with=asked.compared_with,
        reference=reference,
        ratio=ratio,
        bound=asked.bound,
        claimed="" if asked.bound is None else str(asked.bound),
        verdict=verdict,
        more_is_better=_direction(asked),
        rounds=ran - len(bound_rounds),
        how=asked.how,
        remark="; ".join(filter(None, remarks)),
    )


def promise(
    name: str,
    text: str,
    unit: str,
    value: float | Spread | None,
    bound: Bound,
    *,
    remark: str = "",
) -> Row:
    """Return a row that must hold: a value that is not known keeps no promise."""
    measured = (
        value
        if value is None or isinstance(value, Spread)
        else Spread(median=value, low=value, high=value)
    )
    of_ratio = bound.of == "ratio"
    return Row(
        name=name,
        text=text,
        unit=unit,
        measured=None if of_ratio else measured,
        ratio=measured if of_ratio else None,
        bound=bound,
        claimed=str(bound),
        verdict=Verdict.DOES_NOT_HOLD if measured is None else bound.judge(measured),
        is_promise=True,
        more_is_better=not bound.falls,
        rounds=1,
        remark=remark or ("could not be measured" if measured is None else ""),
    )


def outcome(rows: Sequence[Row]) -> str:
    """Say in one clause how many bounds hold, or which are broken."""
    broken = [row.text for row in rows if row.verdict is Verdict.DOES_NOT_HOLD]
    undecided = sum(row.verdict is Verdict.NO_VERDICT for row in rows)
    if broken:
        return f"{len(broken)} of {len(rows)} bounds are broken: {'; '.join(broken)}"
    if undecided:
        return f"no verdict on {undecided} of {len(rows)} bounds"
    return f"all {len(rows)} bounds hold"


def withhold(rows: Sequence[Row]) -> list[Row]:
    """Return the rows without their verdicts; an operation gone wrong stays one."""
    return [
        row
        if row.verdict is Verdict.DOES_NOT_HOLD and row.unit == "operations"
        else row.model_copy(update={"verdict": Verdict.NO_VERDICT})
        for row in rows
    ]


def _direction(asked: Asked) -> bool | None:
    if asked.more_is_better is not None or asked.bound is None:
        return asked.more_is_better
    is_range = asked.bound.low is not None and asked.bound.high is not None
    return None if is_range and asked.bound.of == "figure" else not asked.bound.falls


def _faults(
    asked: Asked,
    sides: Mapping[str, Side],
    values: Callable[[Quantity], Sequence[float | None]],
) -> Iterator[str]:
    """Say why a row could not be measured."""
    yield from (side.failure for side in sides.values() if side.failure is not None)
    for each in asked.judged:
        if each.side not in sides or sides[each.side].failure is None:
            known = values(each)
            if not known or None in known:
                yield f"{each.side} has no {each.figure}"
    if asked.reference is not None and 0 in values(asked.reference):
        yield f"{asked.reference.figure} of {asked.reference.side} is 0, so there is no ratio"


def _beside(asked: Asked, found: Mapping[str, Side]) -> Iterator[str]:
    for each in asked.beside:
        side = found.get(each.side)
        spread = spread_of(
            [] if side is None else [of.figures.get(each.figure) for of in side.rounds]
        )
        if spread is not None:
            value = spread.median
            # What was counted has no places.
            yield each.words.format(count(value) if value.is_integer() else figure(value))
