"""Which package of the service may import which: the order of the rooms, from the ground up.

A room imports what its line names, and only rooms above it, so there is no circle. What holds for
libraries is the second table: gRPC, SQL and actors each stay in the rooms that are made of them.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[2] / "service" / "connect_actor"

ROOMS = {
    "errors": "",
    "clock": "",
    "files": "",
    "reply": "",
    "v1": "",
    "stored": "",
    "network": "",
    "observe": "network",
    "protocol": "errors v1 stored",
    "keys": "files protocol",
    "persistence": "errors files observe protocol keys",
    "access": "errors files reply network",
    "actors": "errors v1 reply observe protocol persistence access",
    "rpc": "errors v1 reply network observe protocol access actors",
    "workers": "errors v1 reply network observe protocol actors rpc",
    "settings": "files network protocol persistence",
    "process": "errors clock files network observe protocol keys persistence access actors rpc"
    " workers settings",
    "operator": "network protocol keys persistence access rpc workers settings process",
    "client": "errors v1 network protocol rpc",
    "cli": "process",
}

LIBRARIES = {
    "grpc": "network access rpc client",
    "pykka": "observe actors rpc",
    "sqlite3": "persistence",
    "cryptography": "protocol persistence access",
    "nacl": "protocol",
    "pydantic": "settings",
    "prometheus_client": "observe persistence actors rpc process",
    "structlog": "observe",
}

SINGLE = {"setting_sources": "settings"}
"""Modules of the top level that belong to a room of another name."""

Import = tuple[str, str]
"""The module that imports, below its package, and what it imports."""


def imports(root: Path) -> Iterator[Import]:
    """Yield every import of a package, wherever in a module it stands."""
    package = root.name
    for path in sorted(root.rglob("*.py")):
        module = ".".join(path.relative_to(root).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module == package:
                names = [f"{package}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = ["." * node.level + (node.module or "")]
            else:
                continue
            for name in names:
                yield module, name


def room_of(module: str) -> str:
    """Return the room of a module, by its name below the package."""
    first = module.partition(".")[0]
    return SINGLE.get(first, first)


def forbidden(root: Path) -> list[Import]:
    """Return the imports of a package that the tables above forbid."""
    found = []
    for module, imported in imports(root):
        room, (first, _, below) = room_of(module), imported.partition(".")
        if first == root.name:
            target = room_of(below)
            allowed = target in (room, "") or target in ROOMS.get(room, "").split()
        else:
            allowed = room in LIBRARIES.get(first, room).split() or room in ("v1", "stored")
        # A relative import begins with a dot; there are none.
        if not (first and allowed):
            found.append((module, imported))
    return found


def test_a_room_imports_only_rooms_above_it() -> None:
    above: set[str] = set()
    for room, imported in ROOMS.items():
        assert above.issuperset(imported.split()), room
        above.add(room)


def test_the_service_keeps_to_the_tables() -> None:
    assert forbidden(SERVICE) == []


def test_every_room_is_in_the_table() -> None:
    rooms = {room_of(path.stem) for path in SERVICE.iterdir() if path.suffix in ("", ".py")}
    assert rooms - {"__init__", "__pycache__"} == set(ROOMS)


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("protocol/session.py", "from connect_actor.actors.router import Router"),
        ("protocol/session.py", "import grpc"),
        ("persistence/sqlite.py", "from connect_actor.rpc import status"),
        ("rpc/calls.py", "def late() -> None:\n    import sqlite3"),
        ("network/peers.py", "from connect_actor import errors"),
        ("settings.py", "from connect_actor.keys.sources import KeySource"),
        ("setting_sources.py", "import cryptography.x509"),
        ("attic/old.py", "from connect_actor import errors"),
        ("access/gate.py", "from connect_actor.actors.work import charge"),
        ("access/gate.py", "from .quotas import Rates"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, module: str, line: str) -> None:
    root = tmp_path / "connect_actor"
    path = root / module
    path.parent.mkdir(parents=True)
    path.write_text(f'"""A module."""\n\n{line}\n')
    assert len(forbidden(root)) == 1


def test_an_allowed_import_is_not(tmp_path: Path) -> None:
    root = tmp_path / "connect_actor"
    (root / "rpc").mkdir(parents=True)
    (root / "rpc" / "calls.py").write_text(
        "import asyncio\nimport grpc\nfrom connect_actor import errors\n"
        "from connect_actor.actors.router import Router\n"
    )
    assert forbidden(root) == []
