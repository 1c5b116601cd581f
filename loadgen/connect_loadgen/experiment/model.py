"""What a row is: a figure of one side, held against a goal or against another side's figure."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from connect_loadgen.drive.load import Progress
from connect_loadgen.reach.results import Goal, Seen

__all__ = ["Beside", "Group", "Quantity", "Row", "Side"]


@dataclass(frozen=True, slots=True)
class Side:
    """One thing that is measured: a service under some load, or what it is compared with."""

    name: str
    measure: Callable[[Progress], Awaitable[Seen]]
    """Measures it once. Raises MeasureError, ServiceError, TransportError or MetricsError if it
    can't."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A figure of a side."""

    side: str
    figure: str


@dataclass(frozen=True, slots=True)
class Beside:
    """A figure that a row's remark tells, in words with ``{}`` in its place."""

    quantity: Quantity
    words: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table, before anything is measured."""

    name: str
    what: str
    measured: Quantity
    unit: str
    run_with: str
    """In one line: under what load, on what."""
    reference: Quantity | None = None
    compared_with: str = ""
    goal: Goal | None = None
    beside: tuple[Beside, ...] = ()

    def quantities(self) -> Iterator[Quantity]:
        """Return all figures that the row needs."""
        yield self.measured
        if self.reference is not None:
            yield self.reference
        yield from (each.quantity for each in self.beside)


@dataclass(frozen=True, slots=True)
class Group:
    """Rows whose sides take turns."""

    name: str
    sides: Sequence[Side]
    rows: Sequence[Row]
    most_rounds: int | None = None
    """Fewer rounds than the settings ask for, where a side takes minutes."""

    def needed_by(self, rows: Sequence[Row]) -> list[Side]:
        """Return the sides that these of its rows need."""
        names = {quantity.side for row in rows for quantity in row.quantities()}
        return [side for side in self.sides if side.name in names]
