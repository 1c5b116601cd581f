"""Backups, and that restoring one never lets a channel go on from an older state."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from service.persistence import backup, restoring, sqlite_file
from service.persistence.backup import back_up
from service.persistence.contract import (
    Batch,
    CorruptRecordError,
    JournalError,
    JournalLockedError,
    JournalVersionError,
    SnapshotCriteria,
)
from service.persistence.keyring import KeyRing
from service.persistence.lease import look_at_lease
from service.persistence.restoring import Restored, restore
from service.persistence.sqlite import SqliteJournal
from service.persistence.verification import verify
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


def open_at(path: Path, keys: KeyRing = KEYS) -> SqliteJournal:
    return SqliteJournal(path, keys=keys, strategy="full", lease=1e6)


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
    assert numbers(journal.read(A)) == [1, 2]
    journal.close()
    assert sorted(file.name for file in copy.parent.iterdir()) == [IDENTITY, "journal.db"]
    assert (copy.parent / IDENTITY).read_bytes() == b"an identity"
    assert {file.stat().st_mode & 0o077 for file in [copy.parent, *copy.parent.iterdir()]} == {0}
    connection = sqlite3.connect(copy)
    assert connection.execute("SELECT head, made_at FROM backup").fetchall() == [(1, MADE_AT)]
    connection.close()


def test_commits_during_a_backup_neither_wait_for_it_nor_show_in_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first(path)
    journal = open_at(path)
    between = iter(range(3, 100))

    class Source:
        """A connection that copies a page at a time, with a commit after each."""

        def __init__(self, origin: sqlite3.Connection) -> None:
            self.origin = origin

        def backup(self, target: sqlite3.Connection, *, pages: int) -> None:
            assert pages > 1
            self.origin.backup(target, pages=1, progress=lambda *_: commit())

        def close(self) -> None:
            self.origin.close()

    def commit() -> None:
        assert journal.commit(Batch([change(next(between), A)])) == []

    opened = sqlite_file.open_for_reading
    monkeypatch.setattr(backup, "open_for_reading", lambda path: Source(opened(path)))
    copy = back_up_of(path)
    assert journal.highest_sequence_number(A) > 5
    journal.close()
    connection = sqlite3.connect(copy)
    assert connection.execute("SELECT head FROM backup").fetchall() == [(2,)]
    assert connection.execute("SELECT max(number) FROM log").fetchall() == [(2,)]
    connection.close()


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
    journal.delete_snapshots(B, SnapshotCriteria())
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
    ((number, directory),) = connection.execute("SELECT number, length(directory) FROM log")
    assert number > 2**32
    assert directory == 32  # an empty one, sealed
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
    if os.fork() == 0:
        open_at(path).commit(Batch([change(3, A)]))
        os._exit(0)
    os.wait()
    lose_lease(path)
    assert path.with_name("journal.db-wal").stat().st_size > 0
    with pytest.raises(JournalError, match="row 3 was written since"):
        restored(copy, path, promised=True)
    done = restored(copy, path)
    assert not done.go_on
    assert done.kept is not None
    journal = open_at(done.kept / path.name)
    assert numbers(journal.read(A)) == [1, 2, 3]
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
    exchange = restoring._exchange
    refused = []

    def begin() -> None:
        with pytest.raises(JournalLockedError) as refusal:
            open_at(path)
        refused.append(refusal)

    def exchange_meanwhile(
        source: Path, draft: Path, target: Path, beside: Sequence[str], now: int
    ) -> Path | None:
        begin()
        kept = exchange(source, draft, target, beside, now)
        begin()
        return kept

    monkeypatch.setattr(restoring, "_exchange", exchange_meanwhile)
    assert restored(copy, path).go_on
    assert len(refused) == 2
    open_at(path).close()


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
