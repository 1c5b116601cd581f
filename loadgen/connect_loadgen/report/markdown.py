"""A page as Markdown, for the documents of a repository: the same blocks, without their plots."""

from collections.abc import Iterator

from connect_loadgen.report.blocks import Block, Bullets, Cell, Column, Page, Plot, Prose, Table

__all__ = ["render_markdown"]


def render_markdown(page: Page) -> str:
    """Return the page as Markdown; the same page gives the same text."""
    return "\n\n".join(_parts(page)) + "\n"


def _parts(page: Page) -> Iterator[str]:
    yield f"# {page.title}"
    yield page.subtitle
    for section in page.sections:
        yield f"## {section.title}"
        yield from (_written(block) for block in section.blocks)


def _written(block: Block) -> str:
    match block:
        case Table():
            return _table(block)
        case Prose():
            return block.text
        case Bullets():
            return "\n".join(f"- {item}" for item in block.items)
        case Plot():
            return f"{block.title}: {block.text}"


def _table(table: Table) -> str:
    lines = [
        _row([_heading(column) for column in table.columns]),
        _row(["---" if column.is_text else "---:" for column in table.columns]),
        *(_row([_cell(cell) for cell in row]) for row in table.rows),
    ]
    notes = [*table.notes, *(f"-: {reason}" for reason in table.reasons)]
    return "\n".join([*lines, *(f"\n{note}" for note in notes)])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _heading(column: Column) -> str:
    return f"{column.title}, {column.unit}" if column.unit else column.title


def _cell(cell: Cell) -> str:
    # A bar would begin another column.
    return cell.text.replace("|", "\\|")
