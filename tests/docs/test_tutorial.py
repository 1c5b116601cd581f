"""The tutorial's commands and programs run as printed, in a shorter form where they load."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import PATIENCE, Start

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs" / "tutorial").glob("*.md")))

_INDENTED = re.compile(r"^ {4}(.*)$", re.MULTILINE)
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own programs
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def commands(program: str) -> list[list[str]]:
    found = []
    for page in PAGES:
        for line in _INDENTED.findall(page.read_text()):
            words = shlex.split(line, comments=True)
            if words and words[0] == f".venv/bin/{program}":
                found.append(words[1:])
    return found


def program(page: str, number: int) -> str:
    found: list[str] = _PYTHON.findall((ROOT / page).read_text())
    return found[number]


@pytest.mark.parametrize("words", commands("loadgen"), ids=" ".join)
def test_every_command_of_loadgen_is_understood(words: list[str]) -> None:
    # A command without --dry-run only parses its flags.
    last = "--dry-run" if words[0] in {"compare", "run"} else "--help"
    done = run("-m", "connect_loadgen.cli", *words, last)
    assert done.returncode == 0, done.stderr


def test_the_tutorials_comparison_runs_and_prints_the_columns_that_it_explains(
    tmp_path: Path,
) -> None:
    short = ["--rounds", "1", "--duration-seconds", "0.5", "--warm-up-seconds", "0.1"]
    words = ["compare", "--quick", "--channels", "20", *short, "--output", str(tmp_path)]
    done = run("-m", "connect_loadgen.cli", *words)
    assert done.returncode in {0, 5}, done.stderr  # 5: the generator was the limit
    assert (tmp_path / "compare.json").exists()
    assert (tmp_path / "compare.html").exists()
    for column in ("Throughput", "p99", "CPU", "Record", "Disk writes", "Recovery"):
        assert column in done.stdout


def test_the_tutorials_client_says_hello_both_ways(start: Start, tmp_path: Path) -> None:
    text = program("docs/tutorial/client.md", 0)
    text = text.replace("127.0.0.1:50051", start().ready["listen"])
    (tmp_path / "hello.py").write_text(text)
    done = run(str(tmp_path / "hello.py"))
    assert (done.stdout, done.returncode) == ("hello, peer\nhello, service\n", 0), done.stderr


@pytest.mark.parametrize("number", [1, 2])
def test_the_tutorials_other_steps_run_in_the_same_program(
    number: int, start: Start, tmp_path: Path
) -> None:
    hello = program("docs/tutorial/client.md", 0).replace(
        "127.0.0.1:50051", start().ready["listen"]
    )
    step = program("docs/tutorial/client.md", number)
    imports = "\n".join(line for line in step.splitlines() if line.startswith("from "))
    body = "\n".join(
        f"        {line}" for line in step.splitlines() if not line.startswith("from ")
    )
    text = hello.replace(
        "        await channel.close()\n", f"{body}\n        await channel.close()\n"
    )
    (tmp_path / "step.py").write_text(f"{imports}\n{text}")
    done = run(str(tmp_path / "step.py"))
    assert done.returncode == 0, done.stderr
