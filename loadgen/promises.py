"""A promise, the figure that it is judged by, and whether it was kept; and a table of them."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from loadgen.report.blocks import Cell, Column, Table, Tone, missing
from loadgen.report.numbers import figure

__all__ = ["Promise", "promise_table"]


class Promise(BaseModel):
    """One promise of the service, held against a measurement."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bound: str
    """What is promised, in words."""
    value: float | None
    """What was measured; null if it could not be had, which keeps no promise."""
    unit: str
    kept: bool
    remark: str = ""


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
                Cell(
                    "kept" if promise.kept else "BROKEN",
                    tone=Tone.BETTER if promise.kept else Tone.WORSE,
                ),
                Cell(promise.remark),
            )
            for promise in promises
        ),
    )
