"""Git revisions checked out beside each other, and how the service is started from one of them.

The interpreter and the libraries are ours, as they are installed now; only the project's own
packages come from the revision. An editable install of another tree, and the current directory,
would come before them if nothing were done about it: that is looked at, not hoped for.
"""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from connect_loadgen.service.process import ServiceError
from connect_loadgen.settings.load import ConfigurationError

__all__ = [
    "REPOSITORY",
    "Revision",
    "checked_out",
    "find_revision",
    "package_of",
    "python_of",
    "require_own",
]

REPOSITORY = Path(__file__).parents[1]

_BUILD_HOOKS = ("-m", "hatchling", "build", "--target", "wheel:editable", "--hooks-only")


@dataclass(frozen=True, slots=True)
class Revision:
    """A commit."""

    commit: str
    """Its whole hash."""
    subject: str
    """The first line of its message."""


def find_revision(name: str, repository: Path = REPOSITORY) -> Revision:
    """Return the commit that git knows by this name.

    Raises:
        ConfigurationError: it knows none.
    """
    found = _run(("git", "log", "-1", "--format=%H %s", "--end-of-options", name, "--"), repository)
    commit, _, subject = found.strip().partition(" ")
    return Revision(commit, subject)


@contextmanager
def checked_out(
    commits: Sequence[str], repository: Path = REPOSITORY
) -> Iterator[Mapping[str, Path]]:
    """Check out each commit in a directory of its own, hook built; remove them all at the end.

    Args:
        commits: whole hashes.
        repository: where they are.

    Raises:
        ConfigurationError: one can't be checked out, or its hooks can't be built.
    """
    trees: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix="ladder-") as place:
        try:
            for commit in dict.fromkeys(commits):
                trees[commit] = Path(place, commit)
                _run(("git", "worktree", "add", "--detach", str(trees[commit]), commit), repository)
                # As the revision says, so that a hook that changed is the revision's, too.
                _run((sys.executable, *_BUILD_HOOKS), trees[commit])
            yield trees
        finally:
            for tree in trees.values():
                # One that git did not finish is not there to be removed.
                subprocess.run(  # noqa: S603 - git, on directories of ours
                    ("git", "worktree", "remove", "--force", str(tree)),  # noqa: S607
                    cwd=repository,
                    capture_output=True,
                    check=False,
                )


def package_of(tree: Path) -> str:
    """Return the name of the service's import package in ``tree``."""
    return "connect_actor" if Path(tree, "service", "connect_actor").is_dir() else "service"


def python_of(tree: Path) -> tuple[str, ...]:
    """Return the command that is this interpreter with the packages of ``tree``.

    What it starts inherits them: they are in its environment.
    """
    # Without the safe path, python -m puts the current directory before everything else.
    root = tree if package_of(tree) == "service" else tree / "service"
    return ("env", f"PYTHONPATH={root}", "PYTHONSAFEPATH=1", sys.executable)


def require_own(python: Sequence[str], tree: Path) -> None:
    """See that an interpreter takes the service from ``tree``.

    Raises:
        ConfigurationError: it can't import the service.
        ServiceError: it takes it from elsewhere.
    """
    tell = f"import {package_of(tree)} as package; print(package.__file__)"
    origin = _run((*python, "-c", tell), Path.cwd()).strip()
    if not Path(origin).resolve().is_relative_to(tree.resolve()):
        raise ServiceError(f"{origin} would be measured instead of what is in {tree}")


def _run(command: Sequence[str], directory: Path) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - git and Python, on what the user named
            command, cwd=directory, capture_output=True, text=True, check=True
        )
    except subprocess.CalledProcessError as error:
        last = error.stderr.strip().rpartition("\n")[2]
        raise ConfigurationError(f"{' '.join(command)}: {last}") from None
    except OSError as error:
        raise ConfigurationError(f"{command[0]}: {error.strerror}") from None
    return done.stdout
