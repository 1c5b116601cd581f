"""The metric table of docs/reference/metrics.md, row by row."""

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["TABLE", "Row", "documented"]

TABLE = Path(__file__).parents[2] / "docs" / "reference" / "metrics.md"


@dataclass(frozen=True)
class Row:
    name: str
    kind: str
    unit: str
    labels: frozenset[str]
    counts: str


def documented() -> list[Row]:
    rows = []
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]
        if len(cells) == 6 and re.fullmatch(r"`\w+`", cells[0]):
            labels = frozenset(re.findall(r"`(\w+)`", cells[3]))
            rows.append(Row(cells[0].strip("`"), cells[1], cells[2], labels, cells[4]))
    return rows
