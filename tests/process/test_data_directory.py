"""Who may enter the data directory."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from connect_actor.process.paths import IDENTITY_FILE, journal_file, make_private
from tests.support.process import Start


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


@pytest.fixture(params=[0o022, 0o000], autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_a_service_makes_a_directory_that_only_its_user_may_enter(
    start: Start, tmp_path: Path
) -> None:
    service = start(f"--data-dir={tmp_path / 'new' / 'data'}")
    assert service.signal(signal.SIGTERM) == 0
    assert mode(tmp_path / "new" / "data") == 0o700
    files = list((tmp_path / "new" / "data").iterdir())
    assert {file.name for file in files} >= {IDENTITY_FILE, "sealing.key", "journal.db"}
    assert [file.name for file in files if mode(file) & 0o077] == []


@pytest.mark.parametrize("held", [None, IDENTITY_FILE, journal_file(0, 1), journal_file(2, 4)])
@pytest.mark.parametrize("before", [0o755, 0o777, 0o750, 0o701])
def test_a_data_directory_of_ones_own_that_others_may_enter_is_tightened(
    tmp_path: Path, held: str | None, before: int, caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if held is not None:
        (data / held).touch()
    data.chmod(before)
    make_private(data)
    assert mode(data) == 0o700
    assert "its mode is 0700 now" in caplog.text


@pytest.mark.parametrize("before", [0o755, 0o1777])
def test_a_directory_that_holds_something_else_is_only_warned_of(
    tmp_path: Path, before: int, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "others.txt").touch()
    tmp_path.chmod(before)
    make_private(tmp_path)
    assert mode(tmp_path) == before
    assert "have its owner run chmod 700" in caplog.text


def test_a_directory_of_another_user_is_only_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o777)
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    make_private(tmp_path)
    assert mode(tmp_path) == 0o777
    assert "have its owner run chmod 700" in caplog.text


def test_a_private_directory_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tmp_path.chmod(0o500)
    make_private(tmp_path)
    assert mode(tmp_path) == 0o500
    assert not caplog.text
    tmp_path.chmod(0o700)
