"""Checkouts of revisions: the right tree runs, and nothing is left behind."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.checkouts import checked_out, find_revision, package_of, python_of, require_own
from connect_loadgen.service.process import ServiceError
from connect_loadgen.settings.load import ConfigurationError

PROJECT = """\
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "small"
version = "1"
[tool.hatch.build.targets.wheel]
packages = ["service/connect_actor"]
[tool.hatch.build.hooks.custom]
"""
HOOK = """\
from pathlib import Path
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

class Hook(BuildHookInterface):
    def initialize(self, version, build_data):
        Path(self.root, "built").write_text(version)
"""


def say(directory: Path, *command: str) -> str:
    done = subprocess.run(  # noqa: S603 - git and Python, on a repository of the test's
        command, cwd=directory, check=True, capture_output=True, text=True
    )
    return done.stdout


def git(repository: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    return say(repository, "git", *identity, *arguments)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A project whose "first" commit had its service at the top, and its "second" in a root."""
    place = tmp_path / "repository"
    place.mkdir()
    git(place, "init", "--quiet")
    (place / "pyproject.toml").write_text(PROJECT)
    (place / "hatch_build.py").write_text(HOOK)
    for name, package in (("first", "service"), ("second", "service/connect_actor")):
        (place / package).mkdir()
        (place / package / "__init__.py").write_text(f"NAME = {name!r}\n")
        git(place, "add", ".")
        git(place, "commit", "--quiet", f"--message={name}\n\nAnd why.")
    return place


def worktrees(repository: Path) -> int:
    return len(git(repository, "worktree", "list").splitlines())


def test_a_revision_is_found_by_any_name_that_git_knows(repository: Path) -> None:
    second, first = find_revision("HEAD", repository), find_revision("HEAD~1", repository)
    assert (first.subject, second.subject) == ("first", "second")
    assert second == find_revision(second.commit[:8], repository)


@pytest.mark.parametrize("name", ["nothing", "--all", ""])
def test_what_git_does_not_know_is_refused(name: str, repository: Path) -> None:
    with pytest.raises(ConfigurationError, match="git log"):
        find_revision(name, repository)


def test_each_commit_runs_from_its_own_checkout_and_all_are_removed(repository: Path) -> None:
    commits = [find_revision(name, repository).commit for name in ("HEAD~1", "HEAD", "HEAD")]
    with checked_out(commits, repository) as trees:
        assert list(trees) == commits[:2]
        assert worktrees(repository) == 3
        names = [package_of(tree) for tree in trees.values()]
        assert names == ["service", "connect_actor"]
        # From where another tree's service would come first.
        said = [
            say(repository, *python_of(tree), "-c", f"import {name}; print({name}.NAME)")
            for name, tree in zip(names, trees.values(), strict=True)
        ]
        assert said == ["first\n", "second\n"]
        assert [(tree / "built").read_text() for tree in trees.values()] == ["editable"] * 2
    assert worktrees(repository) == 1
    assert not any(tree.exists() for tree in trees.values())


def test_checkouts_are_removed_whatever_happens(repository: Path) -> None:
    commit = find_revision("HEAD", repository).commit
    with pytest.raises(KeyboardInterrupt), checked_out([commit], repository) as trees:
        raise KeyboardInterrupt
    with (
        pytest.raises(ConfigurationError, match="worktree add"),
        checked_out([commit, "0" * 40], repository),
    ):
        pass
    assert worktrees(repository) == 1
    assert not trees[commit].exists()


def test_a_service_of_another_tree_is_not_measured(repository: Path) -> None:
    commits = [find_revision(name, repository).commit for name in ("HEAD~1", "HEAD")]
    with checked_out(commits, repository) as trees:
        first, second = trees.values()
        require_own(python_of(first), first)
        with pytest.raises(ServiceError, match="would be measured instead"):
            require_own(python_of(first), second)
