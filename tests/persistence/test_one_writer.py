"""One writer: who may take a journal over, and that whoever lost it writes nothing more."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from service.persistence.contract import Batch, JournalFencedError, JournalLockedError
from service.persistence.keyring import KeyRing
from service.persistence.sqlite import SqliteJournal
from tests.persistence.journal_conformance import CHANNEL, change, numbers, snapshot

KEY = bytes(range(32))
SECOND = 1_000_000_000


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = SECOND

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def open_at(path: Path, clock: Clock) -> SqliteJournal:
    return SqliteJournal(path, keys=KeyRing.of(KEY), strategy="full", lease=10.0, monotonic=clock)


def test_a_writer_that_gives_signs_of_life_is_not_replaced(tmp_path: Path, clock: Clock) -> None:
    first = open_at(tmp_path / "j.db", clock)
    for _ in range(3):
        clock.now += 9 * SECOND
        first.renew()
    clock.now += 9 * SECOND
    with pytest.raises(JournalLockedError, match="one writer"):
        open_at(tmp_path / "j.db", clock)
    first.close()


def test_a_commit_is_a_sign_of_life(tmp_path: Path, clock: Clock) -> None:
    first = open_at(tmp_path / "j.db", clock)
    clock.now += 9 * SECOND
    first.commit(Batch([change(1)]))
    clock.now += 9 * SECOND
    with pytest.raises(JournalLockedError, match="one writer"):
        open_at(tmp_path / "j.db", clock)
    first.close()


@pytest.mark.parametrize("asked", ["commit", "empty commit", "renew", "snapshot", "delete"])
def test_a_stale_writer_is_refused_for_good(tmp_path: Path, clock: Clock, asked: str) -> None:
    path = tmp_path / "j.db"
    stale = open_at(path, clock)
    stale.commit(Batch([change(1), change(2)]))
    clock.now += 11 * SECOND
    successor = open_at(path, clock)
    assert numbers(successor.read(CHANNEL)) == [1, 2]
    successor.commit(Batch([change(3)]))
    attempts: dict[str, Callable[[], object]] = {
        "commit": lambda: stale.commit(Batch([change(3)])),
        "empty commit": lambda: stale.commit(Batch()),
        "renew": stale.renew,
        "snapshot": lambda: stale.commit(Batch(snapshots=[snapshot(2)])),
        "delete": lambda: stale.delete_records(CHANNEL, 1),
    }
    for _ in range(2):
        with pytest.raises(JournalFencedError, match="taken over"):
            attempts[asked]()
    # Nor does it come back when its successor has gone.
    assert numbers(successor.read(CHANNEL)) == [1, 2, 3]
    successor.close()
    with pytest.raises(JournalFencedError):
        stale.commit(Batch([change(4)]))
    stale.close()
    last = open_at(path, clock)
    assert numbers(last.read(CHANNEL)) == [1, 2, 3]
    assert last.load_snapshot(CHANNEL) is None
    last.close()


def test_a_stale_writer_whose_connection_failed_is_refused_at_its_reopening(
    tmp_path: Path, clock: Clock
) -> None:
    stale = open_at(tmp_path / "j.db", clock)
    stale.commit(Batch([change(1)]))
    clock.now += 11 * SECOND
    successor = open_at(tmp_path / "j.db", clock)
    stale._abandon()
    with pytest.raises(JournalFencedError):
        stale.read(CHANNEL)
    stale.close()
    successor.close()


def test_after_a_crash_nobody_waits_for_the_lease(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from service.persistence.keyring import KeyRing\n"
        "from service.persistence.sqlite import SqliteJournal\n"
        "keys = KeyRing.of(bytes(range(32)))\n"
        "journal = SqliteJournal(Path(sys.argv[1]), keys=keys, strategy='full', lease=1e6)\n"
        "print('open', flush=True)\n"
        "time.sleep(1e6)\n"
    )
    writer = subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", script, str(tmp_path / "j.db")], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"open\n"
    keys = KeyRing.of(KEY)
    with pytest.raises(JournalLockedError):
        SqliteJournal(tmp_path / "j.db", keys=keys, strategy="full", lease=1e6)
    os.kill(writer.pid, signal.SIGKILL)
    writer.communicate()
    SqliteJournal(tmp_path / "j.db", keys=keys, strategy="full", lease=1e6).close()


def test_a_lost_lease_file_loses_no_safety(tmp_path: Path, clock: Clock) -> None:
    first = open_at(tmp_path / "j.db", clock)
    (tmp_path / "j.db-lease").unlink()
    second = open_at(tmp_path / "j.db", clock)
    with pytest.raises(JournalFencedError):
        first.commit(Batch([change(1)]))
    assert second.commit(Batch([change(1)])) == []
    first.close()
    second.close()
