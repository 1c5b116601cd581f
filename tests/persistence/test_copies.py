"""A journal's file is told from its copies: two that run would use the same message keys."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.backup import back_up
from connect_actor.persistence.contract import Batch, JournalVersionError
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.persistence.sqlite.restoring import restore
from connect_actor.persistence.sqlite.schema import file_id, newest_epoch
from tests.persistence.journal_conformance import CHANNEL, change, numbers

KEYS = KeyRing.of(bytes(range(32)))
NAME = "journal.db"


def open_at(path: Path, *, moved: bool = False, keys: KeyRing = KEYS) -> SqliteJournal:
    return SqliteJournal(path, keys=keys, strategy="full", moved=moved)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    journal = open_at(directory / NAME)
    journal.commit(Batch([change(1)]))
    journal.close()
    return directory / NAME


def goes_on(path: Path) -> bool:
    journal = open_at(path)
    found = numbers(journal.recover(CHANNEL).records)
    journal.commit(Batch([change(found[-1] + 1)]))
    journal.close()
    return found[0] == 1


def epochs_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return newest_epoch(connection)


def copied(path: Path) -> Path:
    shutil.copytree(path.parent, path.parent.with_name("copy"))
    return path.parent.with_name("copy") / path.name


def copied_without_its_lease(path: Path) -> Path:
    copy = copied(path)
    (copy.parent / f"{NAME}-lease").unlink()
    return copy


def copied_while_it_is_open(path: Path) -> Path:
    journal = open_at(path)
    journal.commit(Batch([change(2)]))
    copy = copied(path)
    journal.close()
    return copy


def put_back(path: Path) -> Path:
    """Bring a directory back under its own name, as a tool does that backs up files."""
    copy = copied(path)
    shutil.rmtree(path.parent)
    copy.parent.rename(path.parent)
    return path


def put_back_alone(path: Path) -> Path:
    copy = copied(path)
    copy.replace(path)
    return path


def copied_a_second_time(path: Path) -> Path:
    copy = copied(path)
    open_at(copy, moved=True).close()
    shutil.copytree(copy.parent, path.parent.with_name("second"))
    return path.parent.with_name("second") / NAME


@pytest.mark.parametrize(
    "how",
    [
        copied,
        copied_without_its_lease,
        copied_while_it_is_open,
        put_back,
        put_back_alone,
        copied_a_second_time,
    ],
)
def test_a_copy_is_refused_until_its_operator_answers_for_it(
    path: Path, how: Callable[[Path], Path]
) -> None:
    copy = how(path)
    before = epochs_in(copy)
    for _ in range(2):
        with pytest.raises(JournalVersionError, match="restore --nothing-written-since"):
            open_at(copy)
    assert epochs_in(copy) == before
    open_at(copy, moved=True).close()
    assert goes_on(copy)
    assert goes_on(copy)


def test_the_file_that_was_copied_goes_on(path: Path) -> None:
    copied(path)
    assert goes_on(path)


def renamed(path: Path) -> Path:
    path.parent.rename(path.parent.with_name("renamed"))
    return path.parent.with_name("renamed") / NAME


def reached_by_another_way(path: Path) -> Path:
    path.parent.with_name("link").symlink_to(path.parent)
    return path.parent.with_name("link") / NAME


def restored(path: Path) -> Path:
    backup = path.parent.with_name("backup")
    back_up(path, backup, beside=[], made_at=1)
    assert restore(backup / NAME, path, KEYS, beside=[], nothing_written_since=False).go_on
    return path


def rotated(path: Path) -> Path:
    journal = open_at(path)
    journal.use_keys(KeyRing.of(bytes(32), KEYS.sealing.secret))
    journal.use_keys(KEYS_BACK)
    while journal.upkeep():
        pass
    journal.close()
    return path


KEYS_BACK = KeyRing.of(KEYS.sealing.secret, bytes(32))


def reopened_after_a_failure(path: Path) -> Path:
    journal = open_at(path)
    journal._abandon()
    journal.commit(Batch([change(2)]))
    journal.close()
    return path


@pytest.mark.parametrize(
    "how", [renamed, reached_by_another_way, restored, rotated, reopened_after_a_failure]
)
def test_what_is_no_copy_goes_on(path: Path, how: Callable[[Path], Path]) -> None:
    same = how(path)
    assert goes_on(same)
    assert goes_on(same)


def test_a_restored_backup_whose_channels_were_given_up_is_no_copy(path: Path) -> None:
    backup = path.parent.with_name("backup")
    back_up(path, backup, beside=[], made_at=1)
    assert goes_on(path)
    assert not restore(backup / NAME, path, KEYS, beside=[], nothing_written_since=False).go_on
    for _ in range(2):
        open_at(path).close()


def test_a_file_that_is_exchanged_under_a_service_is_not_written(path: Path) -> None:
    journal = open_at(path)
    copied(path).replace(path)
    journal._abandon()  # as after a failed transaction
    with pytest.raises(JournalVersionError, match="is a copy"):
        journal.commit(Batch([change(2)]))
    journal.close()


def test_a_file_whose_inode_has_the_number_of_a_removed_one_is_another(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    first, number = file_id(path), path.stat().st_ino
    path.unlink()
    path.touch()
    if path.stat().st_ino != number or not first[8:].strip(b"\0"):
        pytest.skip("this file system does not use numbers again, or has no generations")
    assert file_id(path) != first
