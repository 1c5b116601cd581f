"""What a journal does when part of its log is missing: refuse what it must, and no more."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.contract import (
    Batch,
    CorruptRecordError,
    JournalVersionError,
    RecordKind,
)
from connect_actor.persistence.log_index import LogIndex
from connect_actor.persistence.log_rows import stored_number
from connect_actor.persistence.sqlite import journal as journals
from connect_actor.persistence.sqlite.journal import SqliteJournal
from tests.persistence.journal_conformance import change, closed, numbers, snapshot

KEY = bytes(range(32))
OLD, NEW, OTHER = 1, 2, 3


def open_at(path: Path) -> SqliteJournal:
    # Files that are set back are other files: what else tells is what is tested here.
    return SqliteJournal(path, keys=KeyRing.of(KEY), strategy="full", moved=True)


def set_back(path: Path) -> None:
    """Leave a journal whose file is older than what its lease has seen: OLD may have gone on."""
    journal = open_at(path)
    journal.commit(Batch([change(1, OLD)], [snapshot(1, channel=OLD)]))
    journal.commit(Batch([change(1, OTHER)]))
    journal.close()
    copy = path.with_name("copy.db")
    shutil.copyfile(path, copy)
    journal = open_at(path)
    journal.commit(Batch([change(2, OLD)]))
    journal.close()
    copy.replace(path)


def test_a_new_channel_of_a_journal_that_was_set_back_outlives_its_passivation(
    tmp_path: Path,
) -> None:
    path = tmp_path / "j.db"
    set_back(path)
    journal = open_at(path)
    journal.commit(Batch([change(1, NEW)], [snapshot(1, channel=NEW)]))
    journal.commit(Batch([change(2, NEW)], [snapshot(2, channel=NEW)]))
    for _ in range(2):
        # No record of it is live any more, and nothing of it is in memory.
        journal.forget(NEW)
        assert journal.recover(NEW).highest_sequence_number == 2
        for refused in (OLD, OTHER):
            with pytest.raises(CorruptRecordError, match="newest records"):
                journal.recover(refused)
        journal.close()
        journal = open_at(path)
    assert journal.commit(Batch([change(3, NEW)])) == []
    journal.close()


def test_that_a_journal_was_set_back_is_known_without_its_lease_before_anything_is_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "j.db"
    set_back(path)
    open_at(path).close()
    (tmp_path / "j.db-lease").unlink()
    journal = open_at(path)
    for refused in (OLD, OTHER):
        with pytest.raises(CorruptRecordError, match="newest records"):
            journal.recover(refused)
    journal.close()


def test_a_refused_channel_takes_no_other_channels_record_with_it(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    set_back(path)
    journal = open_at(path)
    refused = [change(1, OLD), change(2, OLD), change(1, OTHER)]
    batch = Batch([*refused, change(1, NEW)], [snapshot(1, channel=OLD)])
    rejections = journal.commit(batch)
    assert [rejection.entry for rejection in rejections] == [*refused, *batch.snapshots]
    assert {rejection.highest for rejection in rejections} == {0}
    assert numbers(journal.recover(NEW).records) == [1]
    journal.close()


def test_a_row_that_is_lost_under_a_running_service_is_not_cleaned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j.db"
    journal = open_at(path)
    journal.commit(Batch([change(1, OLD)], [snapshot(1, channel=OLD)]))
    journal.commit(Batch([change(1, NEW), change(2, NEW), change(3, NEW)]))
    journal.commit(Batch([change(2, OLD)]))
    journal.commit(Batch([change(4, NEW)], [snapshot(4, channel=NEW)]))
    journal.commit(Batch([change(5, NEW)]))
    journal._usable().connection.execute("DELETE FROM log WHERE number = 3")
    monkeypatch.setattr(journals, "_MIN_DEAD", 0)
    while journal.upkeep():
        pass
    journal.close()
    journal = open_at(path)
    with pytest.raises(CorruptRecordError, match="newest records"):
        journal.recover(OLD)
    assert journal.recover(NEW).highest_sequence_number == 5
    journal.close()


@pytest.mark.parametrize("number", [2**42, 2**62, 2**63 - 1])
def test_a_row_that_no_log_comes_to_is_damage(tmp_path: Path, number: int) -> None:
    path = tmp_path / "j.db"
    open_at(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO log VALUES (?, x'', x'')", (number,))
    connection.close()
    with pytest.raises(JournalVersionError, match="is damaged"):
        open_at(path)


def test_a_journal_has_room_for_more_rows_than_32_bits_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j.db"
    journal = open_at(path)
    reader = journal._reader
    assert reader is not None
    reader.index.next_row = 2**40
    journal.commit(Batch([change(1, OLD)]))
    journal.commit(Batch([change(1, OTHER), closed(2, OTHER)]))
    assert numbers(journal.recover(OLD).records) == [1]
    monkeypatch.setattr(journals, "_MIN_DEAD", 0)
    while journal.upkeep():
        pass
    journal.close()
    journal = open_at(path)
    assert numbers(journal.recover(OLD).records) == [1]
    journal.close()


@pytest.mark.parametrize("column", ["key_id", "salt", "canary", "strategy"])
@pytest.mark.parametrize("value", ["NULL", "7", "x'00'"])
def test_who_wrote_it_is_damage_when_it_can_not_be_read(
    tmp_path: Path, column: str, value: str
) -> None:
    path = tmp_path / "j.db"
    open_at(path).close()
    connection = sqlite3.connect(path)
    # As a damaged page would have it, whatever the table declares.
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '')")
    connection.commit()
    connection.close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE writers SET {column} = {value}")  # noqa: S608 - our own names
    connection.close()
    with pytest.raises(JournalVersionError):
        open_at(path)


def test_a_channel_with_a_note_of_another_release_is_refused_and_others_are_not() -> None:
    index = LogIndex()
    deletion, number = 0x41, stored_number(7, 1)
    index.build(
        [
            (1, 1, number, int(RecordKind.CHANGE), 4),
            (2, 1, number, deletion, 0),
            (2, 2, number, int(RecordKind.CHANGE), 4),
        ],
        [],
    )
    assert set(index.damaged) == {1}
    assert set(index.tails) == {2}
