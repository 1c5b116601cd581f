"""`make setup`: with a Python that records what it is asked to do."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Passes the check of its version unless it is old; an environment's python is this same program.
PYTHON = """#!/bin/sh
echo "$(basename "$0") $*" >> "$PYTHON_LOG"
case "$1 $2" in
    "-c "*) exit $OLD;;
    "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && exit $BREAKS_VENV;;
    "-m pip") exit $BREAKS_PIP;;
esac
"""


class Checkout:
    """A directory with what `make setup` looks at, and a PATH of its own."""

    def __init__(self, directory: Path) -> None:
        self.programs = directory / "programs"
        self.programs.mkdir()
        for name in ("sh", "test", "rm", "cat", "cp", "mkdir", "basename", "make", "pwd"):
            found = shutil.which(name)
            assert found is not None, name
            (self.programs / name).symlink_to(found)
        self.log = directory / "log"
        self.place = directory / "a checkout, é"
        for name in (
            "Makefile",
            "requirements-dev.lock",
            "pyproject.toml",
            "hatch_build.py",
            "service/connect_actor/observe/_allocation_hook.c",
            "service/connect_actor/protocol/_message_step.c",
        ):
            (self.place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.place / name)

    def has(self, name: str) -> None:
        program = self.programs / name
        program.write_text(PYTHON)
        program.chmod(0o755)

    def setup(self, **breaks: int) -> subprocess.CompletedProcess[str]:
        """Run it; the log holds what this run asked of any python."""
        self.log.write_text("")
        answers = {"OLD": 0, "BREAKS_VENV": 0, "BREAKS_PIP": 0} | breaks
        return subprocess.run(
            ["make", "setup"],  # noqa: S607 - from the PATH given
            cwd=self.place,
            env={
                "PATH": str(self.programs),
                "PYTHON_LOG": str(self.log),
                "LANG": os.environ.get("LANG", "C.UTF-8"),
                **{name: str(code) for name, code in answers.items()},
            },
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def asked(self) -> list[str]:
        """What was asked of any python, without the arguments behind the second."""
        return [" ".join(line.split()[:3]) for line in self.log.read_text().splitlines()]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


MADE = ["-m venv", "-m pip", "-m pip"]


def steps(asked: list[str]) -> list[str]:
    return [" ".join(line.split()[1:]) for line in asked if "-m" in line]


@pytest.mark.parametrize("name", ["python3.11", "python3.12", "python3.13", "python3", "python"])
def test_any_python_that_is_new_enough_is_taken(checkout: Checkout, name: str) -> None:
    checkout.has(name)
    assert checkout.setup().returncode == 0
    assert steps(checkout.asked) == MADE
    assert f"{name} -m venv" in checkout.asked


def test_a_python_that_is_too_old_or_lacks_venv_is_passed_over(checkout: Checkout) -> None:
    checkout.has("python3")
    (checkout.programs / "python3.12").write_text("#!/bin/sh\nexit 1\n")
    (checkout.programs / "python3.12").chmod(0o755)
    assert checkout.setup().returncode == 0
    assert "python3 -m venv" in checkout.asked


@pytest.mark.parametrize("there", [[], ["python3"]], ids=["no python", "an old one"])
def test_without_a_python_one_line_says_what_to_install(
    checkout: Checkout, there: list[str]
) -> None:
    for name in there:
        checkout.has(name)
    done = checkout.setup(OLD=1)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1
    assert said[0].startswith("needs Python 3.11 or later with venv and pip: apt install")
    assert not (checkout.place / ".venv").exists()


def test_what_is_ready_is_not_made_again(checkout: Checkout) -> None:
    checkout.has("python3")
    checkout.setup()
    assert checkout.setup().returncode == 0
    assert checkout.asked == []


@pytest.mark.parametrize("broken", ["BREAKS_VENV", "BREAKS_PIP"])
def test_an_interrupted_environment_is_made_anew(checkout: Checkout, broken: str) -> None:
    checkout.has("python3")
    assert checkout.setup(**{broken: 1}).returncode != 0
    remains = checkout.place / ".venv" / "remains"
    remains.touch()
    assert checkout.setup().returncode == 0
    assert steps(checkout.asked) == MADE
    assert not remains.exists()


def test_an_update_that_was_interrupted_is_made_anew(checkout: Checkout) -> None:
    checkout.has("python3")
    checkout.setup()
    lock = checkout.place / "requirements-dev.lock"
    later = (checkout.place / ".venv" / ".ready").stat().st_mtime + 10
    os.utime(lock, (later, later))
    assert checkout.setup(BREAKS_PIP=1).returncode != 0
    assert steps(checkout.asked) == ["-m pip"]
    assert checkout.setup().returncode == 0
    assert steps(checkout.asked) == MADE


def test_an_environment_whose_python_has_gone_is_made_anew(checkout: Checkout) -> None:
    checkout.has("python3")
    checkout.setup()
    python = checkout.place / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nonexistent/python3")
    assert checkout.setup().returncode == 0
    assert steps(checkout.asked) == MADE


def test_an_environment_of_another_place_is_made_anew(checkout: Checkout) -> None:
    checkout.has("python3")
    checkout.setup()
    checkout.place = checkout.place.rename(checkout.place.with_name("moved"))
    assert checkout.setup().returncode == 0
    assert steps(checkout.asked) == MADE
