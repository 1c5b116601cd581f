"""Blocks on a terminal or in a pipe: plain text that keeps every digit, whatever the width.

A table that is too wide for the console is split into several that each begin with the key columns;
nothing is ever cut. Only ASCII besides the frames, which rich replaces where they can't be encoded.
"""

import itertools
from collections.abc import Iterable

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from connect_loadgen.report.blocks import Block, Bullets, Cell, Plot, Prose, Table, Tone

__all__ = ["show", "show_all"]

_STYLE = {Tone.NEUTRAL: "", Tone.BETTER: "green", Tone.WORSE: "bold red"}
_MARK = {Tone.NEUTRAL: "", Tone.BETTER: "", Tone.WORSE: "! "}

# Text that may wrap needs no more than this, so that a table is split only where figures don't fit.
_NARROWEST = 12

# No console is wider; asked for the natural width, rich clips what it measures to this.
_UNBOUNDED = 10_000


def show_all(console: Console, shown: Iterable[Block | str]) -> None:
    """Print blocks, with an empty line behind each, and lines as they are."""
    for each in shown:
        if isinstance(each, str):
            console.print(each, markup=False, highlight=False, soft_wrap=True)
        else:
            show(console, each)
            console.print()


def show(console: Console, block: Block) -> None:
    """Print a block; a plot can't be, and only its description is."""
    match block:
        case Table():
            _say(console, block.title, style="bold")
            for part in _parts(console, block):
                console.print(_drawn(block, part))
            for note in (*block.notes, *(f"-  {reason}" for reason in block.reasons)):
                _say(console, note, style="dim")
        case Prose():
            _say(console, block.text, style="bold" if block.is_lead else "")
        case Bullets():
            for item in block.items:
                _say(console, f"* {item}", style="yellow" if block.is_alarm else "")
        case Plot():
            _say(console, f"{block.title}: {block.text}")


def _parts(console: Console, table: Table) -> list[list[int]]:
    """Return the columns of each part: as few parts as fit, and these as even as they come."""
    keys, others = list(range(table.keys)), list(range(table.keys, len(table.columns)))
    parts = [keys + others]
    for number in range(1, len(others) + 1):
        size, more = divmod(len(others), number)
        cuts = [index * size + min(index, more) for index in range(number + 1)]
        parts = [keys + others[begin:end] for begin, end in itertools.pairwise(cuts)]
        if all(_natural_width(console, table, part) <= console.width for part in parts):
            break
    return parts


def _natural_width(console: Console, table: Table, part: list[int]) -> int:
    options = console.options.update(max_width=_UNBOUNDED)
    return Measurement.get(console, options, _drawn(table, part, _NARROWEST)).maximum


def _drawn(table: Table, part: list[int], wrapped_width: int | None = None) -> RichTable:
    drawn = RichTable(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1),
    )
    wraps = any(table.columns[index].wraps for index in part)
    for column in (table.columns[index] for index in part):
        heading = f"{column.title}\n{column.unit}" if column.unit else column.title
        drawn.add_column(
            Text(heading),
            justify="left" if column.is_text else "right",
            no_wrap=not column.wraps,
            max_width=wrapped_width if column.wraps else None,
            vertical="top" if wraps else "bottom",
        )
    for row in table.rows:
        drawn.add_row(*(_written(row[index]) for index in part))
    return drawn


def _written(cell: Cell) -> Text:
    return Text(f"{_MARK[cell.tone]}{cell.text}", style=_STYLE[cell.tone])


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style))
