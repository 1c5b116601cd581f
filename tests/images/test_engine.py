"""Whose engine it is: what was there before is left alone, what was started is ended."""

import os
from pathlib import Path

import pytest

from tests.images.engine import CheckFailedError, engine

# Answers once its file is there.
DOCKER = "#!/bin/sh\ntest -e {running}\n"
STARTER = """#!/bin/sh
echo $1 >> {calls}
case $1 in
  up) touch {running} ;;
  env) echo "export DOCKER_HOST=unix:///nowhere" ;;
  down) rm {running} ;;
esac
"""


class FakeEngine:
    """An engine and its starter, as programs that only keep a note."""

    def __init__(self, directory: Path) -> None:
        self._calls = directory / "calls"
        self._running = directory / "running"
        for name, text in (("docker", DOCKER), ("starter", STARTER)):
            program = directory / name
            program.write_text(text.format(running=self._running, calls=self._calls))
            program.chmod(0o755)

    def begin(self) -> None:
        self._running.touch()

    @property
    def runs(self) -> bool:
        return self._running.exists()

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().split() if self._calls.exists() else []


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_LOCAL", str(tmp_path / "starter"))
    # Set here, so that what the starter says is taken back.
    monkeypatch.setenv("DOCKER_HOST", "")
    return FakeEngine(tmp_path)


def test_an_engine_that_was_started_is_ended(fake: FakeEngine) -> None:
    with engine():
        assert fake.runs
        assert os.environ["DOCKER_HOST"] == "unix:///nowhere"
    assert fake.calls == ["env", "up", "down"]
    assert not fake.runs


def test_it_is_ended_after_a_failure_too(fake: FakeEngine) -> None:
    with pytest.raises(CheckFailedError, match="a broken promise"), engine():
        raise CheckFailedError("a broken promise")
    assert not fake.runs


def test_an_engine_that_ran_before_is_left_running(fake: FakeEngine) -> None:
    fake.begin()
    with engine():
        pass
    assert fake.calls == []
    assert fake.runs


def test_so_is_one_that_only_the_starter_knows_of(fake: FakeEngine, tmp_path: Path) -> None:
    docker = tmp_path / "docker"
    docker.write_text(docker.read_text() + 'test -n "$DOCKER_HOST"\n')
    fake.begin()
    with engine():
        assert os.environ["DOCKER_HOST"] == "unix:///nowhere"
    assert fake.calls == ["env"]
    assert fake.runs


def test_without_an_engine_it_says_what_to_do(
    fake: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_LOCAL")
    with pytest.raises(CheckFailedError, match="DOCKER_LOCAL may name what starts one"), engine():
        pass
    assert fake.calls == []
