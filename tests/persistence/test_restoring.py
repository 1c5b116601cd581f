"""Backups, and that restoring one never lets a channel go on from an older state."""

import errno
import os
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence import backup
from connect_actor.persistence.backup import back_up
from connect_actor.persistence.contract import (
    Batch,
    CorruptRecordError,
    JournalError,
    JournalLockedError,
    JournalVersionError,
    Record,
    RecordKind,
)
from connect_actor.persistence.inspection import inspect_journal
from connect_actor.persistence.sqlite import journal as journals
from connect_actor.persistence.sqlite import restoring, schema
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.persistence.sqlite.lease import WriterLease, look_at_lease
from connect_actor.persistence.sqlite.restoring import Restored, finish_restore, restore
from connect_actor.persistence.verification import verify
from tests.persistence.journal_conformance import change, numbers, snapshot

KEYS = KeyRing.of(bytes(range(32)))
A, B, C = 1, 2, 3
OWNER = bytes(16)
MADE_AT = 1_700_000_000_000_000_000
IDENTITY = "identity.sealed"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / IDENTITY).write_bytes(b"an identity")
    return tmp_path / "data" / "journal.db"


def open_at(path: Path, keys: KeyRing = KEYS, *, moved: bool = False) -> SqliteJournal:
    return SqliteJournal(path, keys=keys, strategy="full", lease=1e6, moved=moved)


def write(path: Path, *batches: Batch) -> None:
    journal = open_at(path)
    for batch in batches:
        assert journal.commit(batch) == []
    journal.close()


def first(path: Path) -> None:
    """A has records, B a snapshot only."""
    write(
        path,
        Batch([change(1, A), change(2, A)], owners=[(A, OWNER)]),
        Batch([change(1, B)], [snapshot(1, channel=B)]),
    )


def back_up_of(path: Path, name: str = "backup") -> Path:
    target = path.parent.parent / name
    back_up(path, target, beside=[IDENTITY], made_at=MADE_AT)
    return target / path.name


def restored(source: Path, path: Path, *, promised: bool = False) -> Restored:
    return restore(source, path, KEYS, beside=[IDENTITY], nothing_written_since=promised)


def whole(path: Path, *channels: int) -> dict[int, bool]:
    """Tell for each channel whether it is served."""
    journal = open_at(path)
    served = {}
    for channel in channels:
        try:
            served[channel] = journal.recover(channel).highest_sequence_number > 0
        except CorruptRecordError:
            served[channel] = False
            assert journal.commit(Batch([change(1, channel)])) != []
    journal.close()
    return served


# --- Backing up -----------------------------------------------------------------------------------


def test_a_backup_holds_what_is_committed_while_the_writer_goes_on(path: Path) -> None:
    journal = open_at(path)
    journal.commit(Batch([change(1, A)]))
    copy = back_up_of(path)
    assert journal.commit(Batch([change(2, A)])) == []
    # Nobody holds the WAL any more.
    journal._checkpoint()
    assert path.with_name("journal.db-wal").stat().st_size == 0
    assert numbers(journal.recover(A).records) == [1, 2]
    journal.close()
    assert sorted(file.name for file in copy.parent.iterdir()) == [IDENTITY, "journal.db"]
    assert (copy.parent / IDENTITY).read_bytes() == b"an identity"
    assert {file.stat().st_mode & 0o077 for file in [copy.parent, *copy.parent.iterdir()]} == {0}
    connection = sqlite3.connect(copy)
    assert connection.execute("SELECT made_at FROM backup").fetchall() == [(MADE_AT,)]
    assert connection.execute("SELECT max(number) FROM log").fetchall() == [(1,)]
    connection.close()


def test_commits_during_a_backup_neither_wait_for_it_nor_show_in_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first(path)
    journal = open_at(path)
    between = iter(range(3, 10_000))

    class Copy:
        """A connection to the copy, with a commit to the journal at every few of its steps."""

        def __init__(self, connection: sqlite3.Connection) -> None:
            self.connection = connection
            self.execute = connection.execute
            self.close = connection.close

        def set_progress_handler(self, handler: Callable[[], int], steps: int) -> None:
            assert steps > 1
            self.connection.set_progress_handler(lambda: commit() or handler(), 20)

    def commit() -> int:
        assert journal.commit(Batch([change(next(between), A)])) == []
        return 0

    connected = schema.connect
    with monkeypatch.context() as patched:
        patched.setattr(backup, "connect", lambda path: Copy(connected(path)))
        made = back_up(path, path.parent.parent / "backup", beside=[IDENTITY], made_at=MADE_AT)
    highest = journal.highest_sequence_number(A)
    assert highest > made.head
    journal.close()
    copy = path.parent.parent / "backup" / path.name
    assert verify(copy, KEYS, limit=None).last_row == made.head
    found = inspect_journal(copy, KEYS)
    assert (found.rows, found.distrusted, found.channels_damaged) == (made.head, False, 0)


def test_a_backup_overwrites_nothing(path: Path) -> None:
    first(path)
    copy = back_up_of(path)
    before = copy.read_bytes()
    with pytest.raises(JournalError, match="overwrites nothing"):
        back_up_of(path)
    assert copy.read_bytes() == before


@pytest.mark.parametrize("fault", ["no journal", "no journal at all", "backup", "damaged"])
def test_a_backup_that_fails_leaves_nothing(path: Path, fault: str) -> None:
    first(path)
    match fault:
        case "no journal":
            path.write_bytes(b"something else" * 100)
        case "no journal at all":
            path.unlink()
        case "backup":
            shutil.copyfile(back_up_of(path, "another"), path)
        case "damaged":
            content = bytearray(path.read_bytes())
            content[8_192 + 8 : 8_192 + 40] = bytes(32)
            path.write_bytes(content)
    before = sorted(path.parent.parent.iterdir())
    with pytest.raises(JournalError):
        back_up_of(path)
    assert sorted(path.parent.parent.iterdir()) == before


def test_a_journal_that_has_lost_its_end_is_not_backed_up(path: Path) -> None:
    first(path)
    old = path.read_bytes()
    write(path, Batch([change(3, A)]))
    path.write_bytes(old)
    with pytest.raises(JournalError, match="ends with row 2, but row 3 was acknowledged"):
        back_up_of(path)


def test_a_backup_put_in_place_by_hand_is_refused_by_every_writer(path: Path) -> None:
    first(path)
    copy = back_up_of(path)
    for file in (copy, path):
        shutil.copyfile(copy, path)
        with pytest.raises(JournalVersionError, match="connect-actor restore"):
            open_at(file)


def test_what_was_deleted_is_not_in_a_backup(path: Path) -> None:
    first(path)
    with sqlite3.connect(path) as connection:
        (blob,) = connection.execute("SELECT payload FROM snapshots").fetchone()
    connection.close()
    journal = open_at(path)
    reader = journal._reader
    assert reader is not None
    reader.connection.execute("PRAGMA secure_delete = OFF")
    highest = journal.highest_sequence_number(B)
    journal.commit(Batch([Record(B, highest + 1, RecordKind.CLOSED, b"")]))
    journal.close()
    assert blob[16:] in path.read_bytes()
    assert blob[16:] not in back_up_of(path).read_bytes()


# --- Restoring ------------------------------------------------------------------------------------


def test_channels_go_on_if_nothing_was_written_since(path: Path) -> None:
    first(path)
    copy = back_up_of(path)
    open_at(path).close()  # an opening alone writes no record
    done = restored(copy, path)
    assert (done.go_on, done.channels) == (True, 2)
    assert whole(path, A, B) == {A: True, B: True}
    journal = open_at(path)
    assert journal.owner(A) == OWNER
    journal.close()
    write(path, Batch([change(3, A)]))
    assert verify(path, KEYS, limit=None).file.count == 0


def go_on(path: Path) -> None:
    write(path, Batch([change(3, A)]))


def lose(path: Path) -> None:
    path.unlink()


def lose_all(path: Path) -> None:
    shutil.rmtree(path.parent)


def lose_lease(path: Path) -> None:
    path.with_name("journal.db-lease").unlink()


def set_back(path: Path) -> None:
    """The very journal of the backup, but it is an old copy itself."""
    content = path.read_bytes()
    go_on(path)
    path.write_bytes(content)


def damage(path: Path) -> None:
    path.write_bytes(bytes(10_000))


def another(path: Path) -> None:
    lose_all(path)
    path.parent.mkdir()
    first(path)


@pytest.mark.parametrize(
    ("happened", "because"),
    [
        (go_on, "row 3 was written since"),
        (set_back, "row 3 was written since"),
        (lose, "no journal was there"),
        (lose_all, "no journal was there"),
        (damage, "no journal was there"),
        (lose_lease, "the lease can't tell"),
        (another, "not the one of the backup"),
    ],
)
@pytest.mark.parametrize("lease", ["kept", "lost"])
def test_all_channels_are_given_up_if_anything_can_have_been_written(
    path: Path, happened: Callable[[Path], None], because: str, lease: str
) -> None:
    first(path)
    copy = back_up_of(path)
    happened(path)
    done = restored(copy, path)
    assert (done.go_on, done.channels) == (False, 2)
    assert because in done.reason
    if lease == "lost":
        lose_lease(path)
    for _ in range(2):
        assert whole(path, A, B) == {A: False, B: False}
    # The journal itself is sound: new channels live on, it is cleaned, and it can be verified.
    write(path, Batch([change(1, C)], [snapshot(1, channel=C)]))
    assert whole(path, C) == {C: True}
    found = verify(path, KEYS, limit=None)
    assert found.channels_given_up == 2
    assert (found.log.count, found.snapshots.count, found.file.count) == (0, 0, 0)
    assert (path.parent / IDENTITY).read_bytes() == b"an identity"


def test_nothing_of_a_channel_that_was_given_up_stays_but_its_number(path: Path) -> None:
    first(path)
    copy = back_up_of(path)
    go_on(path)
    restored(copy, path)
    connection = sqlite3.connect(path)
    for table in ("snapshots", "owners"):
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)  # noqa: S608
    journal = open_at(path)
    with pytest.raises(CorruptRecordError, match="may have gone on after the backup"):
        journal.recover(A)
    journal.close()
    rows = connection.execute("SELECT number, length(directory) FROM log").fetchall()
    assert [length for _, length in rows] == [32, 32 + 2 * 21]
    assert rows[0][0] > 2**32
    connection.close()


def test_a_journal_that_has_gone_another_way_to_the_same_row_proves_nothing(path: Path) -> None:
    first(path)
    before = path.read_bytes()
    go_on(path)
    copy = back_up_of(path)
    path.write_bytes(before)
    lose_lease(path)
    go_on(path)
    done = restored(copy, path)
    assert not done.go_on
    assert "not the one of the backup" in done.reason


def test_the_lease_of_another_journal_says_nothing_of_the_restored_one(path: Path) -> None:
    first(path)
    copy = back_up_of(path)
    another(path)
    go_on(path)
    assert restored(copy, path, promised=True).go_on
    assert whole(path, A, B) == {A: True, B: True}


@pytest.mark.parametrize("happened", [lose_all, lose_lease, damage])
def test_the_operators_word_lets_channels_go_on(
    path: Path, happened: Callable[[Path], None]
) -> None:
    first(path)
    copy = back_up_of(path)
    happened(path)
    done = restored(copy, path, promised=True)
    assert done.go_on
    assert whole(path, A, B) == {A: True, B: True}


@pytest.mark.parametrize("happened", [go_on, set_back])
def test_the_operators_word_does_not_count_against_what_is_there(
    path: Path, happened: Callable[[Path], None]
) -> None:
    first(path)
    copy = back_up_of(path)
    happened(path)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="row 3 was written since"):
        restored(copy, path, promised=True)
    assert path.read_bytes() == before
    assert not path.with_name("journal.db.restoring").exists()


def test_the_word_does_not_count_if_only_the_lease_knows_better(path: Path) -> None:
    first(path)
    copy = back_up_of(path)
    go_on(path)
    path.unlink()
    with pytest.raises(JournalError, match="row 3 was written since"):
        restored(copy, path, promised=True)


def test_the_wal_of_a_journal_whose_writer_was_killed_counts_and_is_kept(path: Path) -> None:
    first(path)
    copy = back_up_of(path)
    child = os.fork()
    if child == 0:
        open_at(path).commit(Batch([change(3, A)]))
        os._exit(0)
    os.waitpid(child, 0)
    lose_lease(path)
    assert path.with_name("journal.db-wal").stat().st_size > 0
    with pytest.raises(JournalError, match="row 3 was written since"):
        restored(copy, path, promised=True)
    done = restored(copy, path)
    assert not done.go_on
    assert done.kept is not None
    journal = open_at(done.kept / path.name)
    assert numbers(journal.recover(A).records) == [1, 2, 3]
    journal.close()


def test_what_was_there_is_kept(path: Path) -> None:
    first(path)
    copy = back_up_of(path)
    go_on(path)
    (path.parent / IDENTITY).write_bytes(b"another identity")
    done = restored(copy, path)
    assert done.kept is not None
    assert (done.kept / IDENTITY).read_bytes() == b"another identity"
    assert whole(done.kept / path.name, A, B) == {A: True, B: True}
    again = restored(copy, path)
    assert again.kept not in (None, done.kept)


def test_a_journal_too_damaged_to_be_opened_is_kept_with_its_wal(path: Path) -> None:
    first(path)
    copy = back_up_of(path)
    path.write_bytes(bytes(10_000))
    wal = path.with_name("journal.db-wal")
    wal.write_bytes(b"of the damaged one")
    done = restored(copy, path)
    assert done.kept is not None
    assert (done.kept / path.name).read_bytes() == bytes(10_000)
    assert (done.kept / wal.name).read_bytes() == b"of the damaged one"
    assert not wal.exists()
    assert whole(path, A) == {A: False}


def test_a_journal_in_use_is_not_replaced(path: Path) -> None:
    first(path)
    copy = back_up_of(path)
    journal = open_at(path)
    with pytest.raises(JournalLockedError, match="end its process first"):
        restored(copy, path)
    # Nor if the sign of it is lost.
    lose_lease(path)
    with pytest.raises(JournalLockedError, match="open in another process"):
        restored(copy, path)
    assert journal.commit(Batch([change(3, A)])) == []
    journal.close()


def test_no_service_begins_during_a_restore(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first(path)
    copy = back_up_of(path)
    finish = restoring._finish
    refused = []

    def begin() -> None:
        with pytest.raises(JournalLockedError) as refusal:
            open_at(path)
        refused.append(refusal)

    def finish_meanwhile(target: Path, lease: WriterLease) -> None:
        begin()
        finish(target, lease)
        begin()

    monkeypatch.setattr(restoring, "_finish", finish_meanwhile)
    assert restored(copy, path).go_on
    monkeypatch.undo()
    # Before anything is done, and when all is.
    assert len(refused) == 4
    open_at(path).close()


def exchanged(path: Path, how: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Open a journal, and have something happen once its file has been opened."""
    connected = schema.connect

    def connect(opened: Path) -> sqlite3.Connection:
        connection = connected(opened)
        how()
        return connection

    with monkeypatch.context() as patched:
        patched.setattr(journals, "connect", connect)
        open_at(path).close()


def test_a_service_that_has_opened_what_is_exchanged_meanwhile_does_not_begin(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first(path)
    copy = path.with_name("copy.db")
    shutil.copyfile(path, copy)
    with pytest.raises(JournalLockedError, match="exchanged meanwhile"):
        exchanged(path, lambda: copy.rename(path), monkeypatch)
    # What lies there is a copy, of which somebody has to say that it may go on.
    open_at(path, moved=True).close()
    assert whole(path, A, B) == {A: True, B: True}


def test_no_restore_begins_while_a_service_opens_the_journal(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first(path)
    copy = back_up_of(path)

    def restore_meanwhile() -> None:
        with pytest.raises(JournalLockedError, match="end its process first"):
            restored(copy, path)

    exchanged(path, restore_meanwhile, monkeypatch)
    assert whole(path, A, B) == {A: True, B: True}


# --- A full disk ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["backup", "restore"])
@pytest.mark.parametrize("what", ["the journal", "the identity"])
def test_of_a_full_disk_it_is_said_which(
    path: Path, command: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first(path)
    copy = back_up_of(path, "earlier")
    connected = schema.connect

    def connect(opened: Path) -> sqlite3.Connection:
        connection = connected(opened)
        connection.execute("PRAGMA max_page_count = 2")
        return connection

    def copyfile(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if what == "the journal":
        monkeypatch.setattr(backup, "connect", connect)
    else:
        monkeypatch.setattr(shutil, "copyfile", copyfile)
    target = path.parent.parent if command == "backup" else path.parent
    before = {file.relative_to(target) for file in target.rglob("*")}
    with pytest.raises(JournalError, match=rf"the disk that holds {target.absolute()}\S* is full"):
        back_up_of(path) if command == "backup" else restored(copy, path)
    monkeypatch.undo()
    after = {file.relative_to(target) for file in target.rglob("*")}
    assert {name for name in after - before if not name.name.startswith("replaced-")} == set()
    assert whole(path, A, B) == {A: True, B: True}


# --- Killed at any step ---------------------------------------------------------------------------

# Whatever changes a file, or makes one durable.
STEPS = [
    (os, "link"),
    (os, "open"),
    (os, "fsync"),
    (os, "pwrite"),
    (os, "rmdir"),
    (os, "rename"),
    (os, "unlink"),
    (os, "mkdir"),
    (shutil, "copyfile"),
    (sqlite3, "connect"),
]


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do a work in another process, and kill it behind its n-th step; tell whether it was."""
    child = os.fork()
    if child == 0:
        done = 0

        def counted(call: Callable[..., Any]) -> Callable[..., Any]:
            def and_die(*given: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever it is
                nonlocal done
                result = call(*given, **named)
                done += 1
                if done == step:
                    os._exit(7)
                return result

            return and_die

        try:
            for module, name in STEPS:
                setattr(module, name, counted(getattr(module, name)))
            work()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def steps_of(path: Path, work: Callable[[], object]) -> Iterator[int]:
    """Have a work killed behind its first step, its second, and on, each from the same start."""
    home = path.parent.parent
    start = home.with_name(home.name + "-start")
    shutil.copytree(home, start)
    for step in count(1):
        if not killed_at(step, work):
            assert step > 10
            return
        yield step
        shutil.rmtree(home)
        shutil.copytree(start, home)


@pytest.mark.parametrize("since", ["nothing", "a record", "a record, killed"])
def test_a_killed_restore_leaves_the_journal_that_was_or_the_one_that_is_restored(
    path: Path, since: str
) -> None:
    first(path)
    copy = back_up_of(path)
    (path.parent / IDENTITY).write_bytes(b"the identity of now")
    child = -1 if since == "nothing" else os.fork()
    if child == 0:
        journal = open_at(path)
        journal.commit(Batch([change(3, A)]))
        if since == "a record":
            journal.close()
        # Else its records are in the write-ahead log only.
        os._exit(0)
    if since != "nothing":
        os.waitpid(child, 0)
    came_to = 2 if since == "nothing" else 3
    states = Counter[str]()
    for step in steps_of(path, lambda: restored(copy, path)):
        finish_restore(path)
        identity = (path.parent / IDENTITY).read_bytes()
        new = identity == b"an identity"
        # The directory of the test is a copy; what a restore has made says so itself.
        journal = open_at(path, moved=not new)
        if new and since != "nothing":
            for channel in (A, B):
                with pytest.raises(CorruptRecordError, match="may have gone on after the backup"):
                    journal.recover(channel)
        else:
            reached = [journal.recover(channel).highest_sequence_number for channel in (A, B)]
            assert reached == [came_to, 1], step
        journal.close()
        found = verify(path, KEYS, limit=None)
        assert (found.log.count, found.snapshots.count, found.file.count) == (0, 0, 0), step
        states["new" if new else "old"] += 1
        # And another one comes to its end.
        assert restored(copy, path).channels in (0, 2), step
    assert states["old"] > 10
    assert states["new"] > 3


def test_a_killed_backup_leaves_nothing_that_a_service_opens(path: Path) -> None:
    first(path)
    target = path.parent.parent / "backup"
    left = Counter[bool]()
    for step in steps_of(path, lambda: back_up_of(path)):
        for directory in (target, target.with_name("backup.incomplete")):
            files = list(directory.glob("journal.db*")) if directory.exists() else []
            for file in files:
                if file.name.endswith("-journal") or file.stat().st_size == 0:
                    continue
                left[file.name == path.name] += 1
                # By whatever name.
                opened = file.rename(directory / "opened.db")
                with pytest.raises(JournalVersionError, match="is a backup"):
                    open_at(opened)
                assert verify(opened, KEYS, limit=None).is_backup, step
    assert set(left) == {False, True}


def test_only_a_backup_is_restored(path: Path, tmp_path: Path) -> None:
    first(path)
    other = tmp_path / "other.db"
    shutil.copyfile(path, other)
    before = path.read_bytes()
    with pytest.raises(JournalVersionError, match="no backup"):
        restored(other, path)
    with pytest.raises(JournalError, match="can't be opened"):
        restored(tmp_path / "none.db", path)
    assert path.read_bytes() == before


def test_a_backup_is_not_restored_without_its_key(path: Path) -> None:
    first(path)
    copy = back_up_of(path)
    before = path.read_bytes()
    with pytest.raises(JournalVersionError, match="which is not given"):
        restore(copy, path, KeyRing.of(bytes(32)), beside=[IDENTITY], nothing_written_since=False)
    assert path.read_bytes() == before


def test_an_old_copy_of_the_lost_journal_in_the_place_of_the_restored_one_is_noticed(
    path: Path,
) -> None:
    first(path)
    copy = back_up_of(path)
    write(path, *(Batch([change(number, A)]) for number in range(3, 30)))
    lost = path.read_bytes()
    restored(copy, path)
    write(path, Batch([change(1, C)]))
    path.write_bytes(lost)
    with pytest.raises(JournalVersionError, match="is a copy"):
        open_at(path)
    # Nor is the operator's word enough.
    SqliteJournal(path, keys=KEYS, strategy="full", moved=True).close()
    assert whole(path, A, B) == {A: False, B: False}


def test_a_restored_backup_can_be_backed_up_and_restored_again(path: Path) -> None:
    first(path)
    go_on_from = back_up_of(path)
    go_on(path)
    restored(go_on_from, path)
    write(path, Batch([change(1, C)]))
    done = restored(back_up_of(path, "second"), path)
    assert (done.go_on, done.channels) == (True, 1)
    assert whole(path, A, B, C) == {A: False, B: False, C: True}
    assert look_at_lease(path.with_name("journal.db-lease")).head > 2**32


def test_what_a_killed_restore_has_left_is_in_nobodys_way(path: Path) -> None:
    first(path)
    copy = back_up_of(path)
    draft = path.with_name("journal.db.restoring")
    draft.write_bytes(b"half a journal")
    assert restored(copy, path).go_on
    assert not draft.exists()
