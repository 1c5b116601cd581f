"""The lab's rooms lie on floors, and no import runs back up."""

import ast
from pathlib import Path

import connect_loadgen

_FLOORS = (
    "program",
    "settings",
    "service",
    "drive",
    "experiment",
    "report",
    "probes",
    "crash",
    "experiments",
)
"""From the ground up; the modules beside the rooms (the command line) lie above all of them."""

_ROOT = Path(connect_loadgen.__file__).parent
_TOP = len(_FLOORS)


def _floor(parts: tuple[str, ...]) -> int:
    return _FLOORS.index(parts[0]) if parts and parts[0] in _FLOORS else _TOP


def _imported(path: Path) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{each.name}" for each in node.names]
        found.update(
            tuple(name.split(".")[1:]) for name in names if name.startswith("connect_loadgen.")
        )
    return found


def test_no_import_runs_back_up() -> None:
    wrong = [
        f"{path.relative_to(_ROOT)} imports {'.'.join(name)}"
        for path in sorted(_ROOT.rglob("*.py"))
        for name in _imported(path)
        if _floor(name) > _floor(path.relative_to(_ROOT).with_suffix("").parts)
    ]
    assert wrong == []


def test_every_room_has_its_floor() -> None:
    rooms = {path.parent.name for path in _ROOT.glob("*/__init__.py")}
    assert rooms >= set(_FLOORS)
