"""The two programs as they are installed: their version, what they load, what they need."""

import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest

from connect_loadgen.cli import _LIBRARIES
from tests.support.process import PATIENCE

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# The libraries of the extra, by what is imported of them.
IMPORTED = {"hdrhistogram": "hdrh"}


def start(module: str, *arguments: str, first: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program's ``main``; its last line on standard error names the modules it has loaded."""
    program = (
        f"import sys; sys.argv[1:] = {list(arguments)!r}\n"
        f"{first}\n"
        f"from {module} import main\n"
        "try: code = main()\n"
        "except SystemExit as end: code = end.code\n"
        "print(*sys.modules, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def loaded(done: subprocess.CompletedProcess[str]) -> set[str]:
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("module", "name"), [("connect_actor.cli", "connect-actor"), ("connect_loadgen.cli", "loadgen")]
)
def test_each_program_says_its_version(module: str, name: str) -> None:
    done = start(module, "--version")
    assert done.returncode == 0
    assert done.stdout == f"{name} {PROJECT['version']}\n"


@pytest.mark.parametrize(
    "arguments", [("run", "--help"), ("compare", "--help"), ("soak", "--help")]
)
def test_loadgens_help_does_not_load_matplotlib(arguments: tuple[str, ...]) -> None:
    modules = loaded(start("connect_loadgen.cli", *arguments))
    assert "connect_loadgen.cli" in modules
    assert modules.isdisjoint({"matplotlib", "numpy"})


def test_loadgens_list_of_commands_loads_none_of_them() -> None:
    modules = loaded(start("connect_loadgen.cli", "--help"))
    assert modules.isdisjoint({"connect_loadgen.commands", "grpc", *_LIBRARIES})


@pytest.mark.parametrize("arguments", [("--help",), ("token", "alice"), ("token", "--help")])
def test_what_needs_no_service_loads_no_grpc(arguments: tuple[str, ...]) -> None:
    modules = loaded(start("connect_actor.cli", *arguments))
    assert "connect_actor.cli" in modules
    assert modules.isdisjoint({"grpc", "pydantic", "cryptography", "google.protobuf"})


@pytest.mark.parametrize(
    "module", ["connect_actor.process.app", "connect_actor.client", "connect_actor.process.serve"]
)
def test_service_and_client_work_without_loadgens_extra(module: str) -> None:
    blocked = (*_LIBRARIES, "loadgen")
    done = start(
        "builtins",
        first=f"sys.modules.update(dict.fromkeys({blocked!r}))\n"
        f"import {module}, builtins; builtins.main = int",
    )
    assert module in loaded(done)


def test_without_its_extra_loadgen_says_what_to_install() -> None:
    hide = (
        "import importlib.util; real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda n: None if n in ('rich', 'matplotlib') else real(n)"
    )
    done = start("connect_loadgen.cli", "run", first=hide)
    assert done.returncode == 2
    assert done.stderr.splitlines()[:-1] == [
        "loadgen: matplotlib, rich not installed: pip install 'connect-actor[loadgen]'"
    ]


def test_loadgen_asks_for_exactly_what_its_extra_installs() -> None:
    extra = {
        name.split(">")[0].split("<")[0] for name in PROJECT["optional-dependencies"]["loadgen"]
    }
    assert {IMPORTED.get(name, name) for name in extra} == set(_LIBRARIES)
    needed = [line for line in requires("connect-actor") or () if "extra ==" not in line]
    assert not any(line.lower().startswith(tuple(extra)) for line in needed)
