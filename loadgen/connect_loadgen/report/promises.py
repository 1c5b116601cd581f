"""A promise, the figure that it is judged by, and whether it was kept; and a table of them."""

from collections.abc import Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict

from connect_loadgen.experiment.numbers import figure
from connect_loadgen.report.blocks import Cell, Column, Table, Tone, missing

__all__ = ["OPERATIONS", "Promise", "promise_table", "verdict_on_all", "withhold_verdicts"]

OPERATIONS = "operations"
"""Unit of what went wrong: such a figure is true whatever load was put on."""

_VERDICTS = {
    True: Cell("kept", tone=Tone.BETTER),
    False: Cell("BROKEN", tone=Tone.WORSE),
    None: Cell("no verdict"),
}


class Promise(BaseModel):
    """One promise of the service, held against a measurement."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bound: str
    """What is promised, in words."""
    value: float | None
    """What was measured; null if it could not be had, which keeps no promise."""
    unit: str
    kept: bool | None
    """Null if there is no verdict: the run did not show what the promise is about."""
    remark: str = ""

    @property
    def is_broken(self) -> bool:
        """Whether it was shown to be broken."""
        return self.kept is False

    @classmethod
    def at_most(
        cls,
        bound: float,
        unit: str,
        name: str,
        value: float | None,
        *,
        remark: str = "",
        note: str = "",
    ) -> Self:
        """Return a promise that is kept by a value up to the bound; ``note`` explains the bound."""
        words = f"at most {figure(bound)}{note}" if bound else "none"
        kept = value is not None and value <= bound
        return cls(name=name, bound=words, value=value, unit=unit, kept=kept, remark=remark)

    @classmethod
    def at_least(
        cls, bound: float, unit: str, name: str, value: float | None, *, remark: str = ""
    ) -> Self:
        """Return a promise that is kept by a value from the bound on."""
        kept = value is not None and value >= bound
        words = f"at least {figure(bound)}"
        return cls(name=name, bound=words, value=value, unit=unit, kept=kept, remark=remark)


def withhold_verdicts(promises: Sequence[Promise]) -> list[Promise]:
    """Return the promises without their verdicts; an operation gone wrong stays one."""
    return [
        promise
        if promise.is_broken and promise.unit == OPERATIONS
        else promise.model_copy(update={"kept": None})
        for promise in promises
    ]


def verdict_on_all(promises: Sequence[Promise]) -> str:
    """Say in one clause how many were kept, or which were not."""
    broken = [promise.name for promise in promises if promise.is_broken]
    undecided = sum(promise.kept is None for promise in promises)
    if undecided and not broken:
        return f"No verdict on {undecided} of {len(promises)} promises"
    if not broken:
        return f"All {len(promises)} promises were kept"
    return f"{len(broken)} of {len(promises)} promises were broken: {'; '.join(broken)}"


def promise_table(promises: Sequence[Promise]) -> Table:
    """Return a row for each promise."""
    return Table(
        title="Promises",
        columns=(
            Column("What", is_text=True, wraps=True),
            Column("Promised", is_text=True, wraps=True),
            Column("Measured"),
            Column("Unit", is_text=True),
            Column("Verdict", is_text=True),
            Column("Remark", is_text=True, wraps=True),
        ),
        rows=tuple(
            (
                Cell(promise.name),
                Cell(promise.bound),
                missing("could not be measured")
                if promise.value is None
                else Cell(figure(promise.value), promise.value),
                Cell(promise.unit),
                _VERDICTS[promise.kept],
                Cell(promise.remark),
            )
            for promise in promises
        ),
    )
