"""What reports are made of: tables, prose, lists, plots, in sections, on a page.

A block holds content and no form, so that a terminal and an HTML page show the same figures from
the same object. A figure that could not be had is ``missing(reason)``: a dash that says why, never
a 0 and never an empty cell.
"""

from dataclasses import dataclass
from enum import Enum

__all__ = [
    "Block",
    "Bullets",
    "Cell",
    "Column",
    "Page",
    "Plot",
    "Prose",
    "Section",
    "Table",
    "Tone",
    "missing",
]


class Tone(Enum):
    """How a figure stands; always shown by a mark too, never by colour alone."""

    NEUTRAL = "neutral"
    BETTER = "better"
    WORSE = "worse"


@dataclass(frozen=True, slots=True)
class Column:
    """Heading of one column."""

    title: str
    unit: str = ""
    meaning: str = ""
    """For a reader who was not there; shown on demand."""
    is_text: bool = False
    wraps: bool = False
    """Whether its text may run over several lines."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One entry of a table."""

    text: str
    sort_by: float | None = None
    """What the text stands for; text without a value sorts by itself."""
    tone: Tone = Tone.NEUTRAL
    reason: str = ""
    """Why there is no figure."""


def missing(reason: str) -> Cell:
    """Return the cell of a figure that could not be had, and why."""
    return Cell("-", reason=reason)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under headings; the first ``keys`` columns say what a row is about."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    keys: int = 1

    def __post_init__(self) -> None:
        """Refuse a row that does not fill its columns.

        Raises:
            ValueError: if there is one.
        """
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"{self.title}: a row of {len(row)} cells under {len(self.columns)} columns"
                )

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why figures are missing, each once, in the order of their cells."""
        reasons = (cell.reason for row in self.rows for cell in row if cell.reason)
        return tuple(dict.fromkeys(reasons))


@dataclass(frozen=True, slots=True)
class Prose:
    """A paragraph; ``is_lead`` if it is what a hurried reader must see."""

    text: str
    is_lead: bool = False


@dataclass(frozen=True, slots=True)
class Bullets:
    """Short statements; ``is_alarm`` if they say that something is not right."""

    items: tuple[str, ...]
    is_alarm: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawn plot."""

    title: str
    svg: str
    """An ``svg`` element that needs nothing from outside."""
    text: str
    """What can be seen in it, for who can't see it."""
    notes: tuple[str, ...] = ()


Block = Table | Prose | Bullets | Plot


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under a heading; ``anchor`` is the heading's address on the page."""

    anchor: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
