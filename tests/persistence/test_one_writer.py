"""One writer: who may take a journal over, and that whoever lost it writes nothing more."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.contract import Batch, JournalFencedError, JournalLockedError
from connect_actor.persistence.sqlite import journal as journals
from connect_actor.persistence.sqlite import lease
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.persistence.sqlite.lease import lease_path, look_at_lease
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


@pytest.mark.parametrize("asked", ["commit", "empty commit", "renew", "snapshot"])
def test_a_stale_writer_is_refused_for_good(tmp_path: Path, clock: Clock, asked: str) -> None:
    path = tmp_path / "j.db"
    stale = open_at(path, clock)
    stale.commit(Batch([change(1), change(2)]))
    clock.now += 11 * SECOND
    successor = open_at(path, clock)
    assert numbers(successor.recover(CHANNEL).records) == [1, 2]
    successor.commit(Batch([change(3)]))
    attempts: dict[str, Callable[[], object]] = {
        "commit": lambda: stale.commit(Batch([change(3)])),
        "empty commit": lambda: stale.commit(Batch()),
        "renew": stale.renew,
        "snapshot": lambda: stale.commit(Batch(snapshots=[snapshot(2)])),
    }
    for _ in range(2):
        with pytest.raises(JournalFencedError, match="taken over"):
            attempts[asked]()
    # Nor does it come back when its successor has gone.
    assert numbers(successor.recover(CHANNEL).records) == [1, 2, 3]
    successor.close()
    with pytest.raises(JournalFencedError):
        stale.commit(Batch([change(4)]))
    stale.close()
    last = open_at(path, clock)
    assert numbers(last.recover(CHANNEL).records) == [1, 2, 3]
    assert last.recover(CHANNEL).snapshot is None
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
        stale.recover(CHANNEL)
    stale.close()
    successor.close()


def test_after_a_crash_nobody_waits_for_the_lease(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path\n"
        "from connect_actor.keys.keyring import KeyRing\n"
        "from connect_actor.persistence.sqlite.journal import SqliteJournal\n"
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


# --- A lease that is written late ----------------------------------------------------------------


@pytest.mark.parametrize("moment", ["commit", "renewal", "cleaning"])
@pytest.mark.parametrize("successors", [1, 2])
def test_a_lease_that_a_replaced_writer_writes_late_fences_nobody(
    tmp_path: Path, clock: Clock, moment: str, successors: int
) -> None:
    path = tmp_path / "j.db"
    stale = open_at(path, clock)
    stale.commit(Batch([change(1)]))
    renew = stale._lease.renew
    opened: list[SqliteJournal] = []

    def stopped(head: int) -> None:
        for _ in range(successors):
            clock.now += 11 * SECOND
            opened.append(open_at(path, clock))
        opened[-1].commit(Batch([change(1, 12), change(2, 12)]))
        renew(head)

    stale._lease.renew = stopped  # type: ignore[method-assign] # where it is stopped
    if moment == "commit":
        stale.commit(Batch([change(2)]))
    elif moment == "cleaning":
        stale._clean(stale._usable())
    else:
        stale.renew()
    stale._lease.renew = renew  # type: ignore[method-assign] # as it was
    valid = opened[-1]
    for ask in (stale.renew, lambda: stale.commit(Batch())):
        with pytest.raises(JournalFencedError):
            ask()
    with pytest.raises(JournalLockedError, match="one writer"):
        open_at(path, clock)
    valid.renew()
    assert valid.commit(Batch()) == []
    assert valid.commit(Batch([change(3, 12)])) == []
    view = look_at_lease(lease_path(path), clock)
    assert (view.epoch, view.head) == (1 + successors, last_number(path))
    for journal in (stale, *opened):
        journal.close()


def test_a_writer_whose_lease_was_written_over_is_replaced_if_it_stops_then(
    tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "j.db"
    stale = open_at(path, clock)
    clock.now += 11 * SECOND
    stopped = open_at(path, clock)
    stale._lease.renew(0)
    clock.now += 11 * SECOND
    # Its time begins with the first that looks: nobody knows when it gave its last sign of life.
    with pytest.raises(JournalLockedError, match="one writer"):
        open_at(path, clock)
    clock.now += 11 * SECOND
    open_at(path, clock).close()
    for journal in (stale, stopped):
        journal.close()


def test_a_takeover_that_fails_fences_nobody(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j.db"
    first = open_at(path, clock)
    clock.now += 11 * SECOND
    with monkeypatch.context() as broken:
        broken.setattr(journals, "last_row", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            open_at(path, clock)
    first.renew()
    assert first.commit(Batch([change(1)])) == []
    first.close()


# --- A writer that is stopped while it holds SQLite's locks ---------------------------------------


def last_number(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        number: int = connection.execute("SELECT max(number) FROM log").fetchone()[0]
    return number


_STOPPED = """
import fcntl, os, signal, sys
from pathlib import Path
from connect_actor.persistence.sqlite import journal as sqlite
from connect_actor.persistence.contract import Batch, Record, RecordKind
from connect_actor.keys.keyring import KeyRing

def stop(*_):
    print("stopped", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)

path, where, lease = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
if where == "opening":
    sqlite.require_format = stop
keys = KeyRing.of(bytes(range(32)))
journal = sqlite.SqliteJournal(path, keys=keys, strategy="full", lease=lease)
journal.commit(Batch([Record(1, 1, RecordKind.CHANGE, b"durable")]))
if where == "transaction":
    with journal._transaction() as connection:
        connection.execute("INSERT INTO owners VALUES (5, 5, x'05', x'05')")
        stop()
if where == "read":
    connection = journal._usable().connection
    connection.execute("BEGIN")
    connection.execute("SELECT * FROM log").fetchone()
    journal.commit = None
    stop()
if where.isdigit():
    file = os.open(f"{path}-shm", os.O_RDWR)
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(where))
    stop()
"""

# SQLite's walformat: the locks of the WAL-index are bytes 120 to 127 of the -shm file.
WRITE_LOCK, CHECKPOINT_LOCK, RECOVER_LOCK, FIRST_READ_LOCK = 120, 121, 122, 123


@contextlib.contextmanager
def stopped_writer(path: Path, where: object, lease: float) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [str(path), str(where), str(lease)]
    with subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", _STOPPED, *arguments], stdout=subprocess.PIPE
    ) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"stopped\n"
            yield writer
        finally:
            writer.kill()


def replace(path: Path, lease: float) -> SqliteJournal:
    """Open a journal as soon as it can be."""
    for _ in range(1_000):
        try:
            return SqliteJournal(path, keys=KeyRing.of(KEY), strategy="full", lease=lease)
        except JournalLockedError as error:
            assert "one writer" in str(error)  # noqa: PT017 - every refusal but the last
            time.sleep(0.02)
    raise AssertionError("never replaced")


@pytest.mark.parametrize(
    "where",
    [
        "transaction",
        "read",
        "opening",
        WRITE_LOCK,
        CHECKPOINT_LOCK,
        RECOVER_LOCK,
        FIRST_READ_LOCK,
        FIRST_READ_LOCK + 1,
    ],
)
def test_a_writer_that_is_stopped_holding_a_lock_is_ended_after_its_lease(
    tmp_path: Path, where: object
) -> None:
    path = tmp_path / "j.db"
    with stopped_writer(path, where, 0.3) as writer:
        journal = replace(path, 0.3)
        durable = [] if where == "opening" else [1]
        assert numbers(journal.recover(1).records) == durable
        assert journal.commit(Batch([change(len(durable) + 1, 1)])) == []
        os.kill(writer.pid, signal.SIGCONT)
        # It never commits what it was stopped in, dead or fenced.
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT count(*) FROM owners").fetchone() == (0,)
        if where in {"transaction", "opening", WRITE_LOCK, CHECKPOINT_LOCK}:
            assert writer.wait() == -signal.SIGKILL
        journal.close()


def test_a_writer_whose_lease_is_valid_is_not_ended(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    with stopped_writer(path, "transaction", 1e6) as writer:
        with pytest.raises(JournalLockedError, match="one writer"):
            SqliteJournal(path, keys=KeyRing.of(KEY), strategy="full", lease=1e6)
        assert writer.poll() is None


def test_who_only_reads_is_not_ended(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    keys = KeyRing.of(KEY)
    journal = SqliteJournal(path, keys=keys, strategy="full", lease=0.1)
    journal.commit(Batch([change(1)]))
    journal._abandon()  # closing would make a checkpoint
    script = (
        "import os, signal, sqlite3, sys\n"
        "connection = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True)\n"
        "connection.execute('BEGIN').execute('SELECT * FROM log').fetchone()\n"
        "print('stopped', flush=True); os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    with subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE
    ) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == b"stopped\n"
        journal.close()
        with pytest.raises(JournalLockedError, match="is being read"):
            SqliteJournal(path, keys=keys, strategy="full", lease=0.1)
        assert reader.poll() is None
        reader.kill()


@pytest.mark.parametrize(
    ("hindrance", "advice"),
    [("another user", "end it by hand"), ("out of sight", "end it where it runs")],
)
def test_a_stopped_writer_that_can_not_be_ended_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hindrance: str, advice: str
) -> None:
    path = tmp_path / "j.db"

    def forbidden(_: int) -> int:
        raise PermissionError(1, "Operation not permitted")

    if hindrance == "another user":
        monkeypatch.setattr(os, "pidfd_open", forbidden)
    else:
        holders = lease._holders
        monkeypatch.setattr(
            lease, "_holders", lambda *held: ((byte, 0) for byte, _ in holders(*held))
        )
    with stopped_writer(path, "transaction", 0.0) as writer:
        with pytest.raises(JournalLockedError, match=advice):
            SqliteJournal(path, keys=KeyRing.of(KEY), strategy="full", lease=0.0)
        assert writer.poll() is None


def test_nothing_that_a_file_says_has_a_process_ended(tmp_path: Path) -> None:
    """A lease that was forged names no process, and the lock's holder is asked of the kernel."""
    path = tmp_path / "j.db"
    SqliteJournal(path, keys=KeyRing.of(KEY), strategy="full").close()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander:
        file = lease_path(path)
        content = file.read_bytes()[:16] + bystander.pid.to_bytes(8, "big") + bytes(16)
        file.write_bytes(content + zlib.crc32(content).to_bytes(4, "big"))
        (tmp_path / "j.db-lease.pid").write_text(str(bystander.pid))
        with stopped_writer(path, WRITE_LOCK, 0.0):
            replace(path, 0.0).close()
        assert bystander.poll() is None
        bystander.kill()
