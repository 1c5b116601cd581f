"""Rotation of master keys: online, then bit by bit, until the old key opens nothing."""

import sqlite3
from pathlib import Path

import pytest

from connect_actor.keys.keyring import KeyRing, MasterKey
from connect_actor.persistence.contract import (
    Batch,
    CommitFailedError,
    Journal,
    JournalVersionError,
    Record,
    RecordKind,
    Snapshot,
)
from connect_actor.persistence.sqlite.journal import SqliteJournal
from tests.persistence.journal_conformance import CHANNEL, change, snapshot

OLD, NEW = bytes(range(32)), bytes(32)
LOGGED, SNAPPED, STATED = 1, 2, 3


def open_with(path: Path, *keys: bytes) -> SqliteJournal:
    return SqliteJournal(path, keys=KeyRing.of(*keys), strategy="full")


def fill(journal: Journal) -> None:
    """A channel of records, one with a snapshot only, one with whole states behind a snapshot."""
    journal.commit(Batch([change(1, LOGGED), change(2, LOGGED)]))
    journal.commit(Batch([change(1, SNAPPED)], [snapshot(1, channel=SNAPPED)]))
    journal.commit(Batch([change(1, STATED)], [snapshot(1, channel=STATED)]))
    journal.commit(Batch([Record(STATED, 2, RecordKind.STATE, b"a whole state")]))


def content(journal: Journal) -> list[object]:
    return [journal.recover(channel) for channel in (LOGGED, SNAPPED, STATED)]


def reseal(journal: Journal) -> int:
    steps = 1
    while journal.upkeep():
        steps += 1
    return steps


def key_ids(path: Path) -> set[bytes]:
    with sqlite3.connect(path) as connection:
        found = {row[0] for row in connection.execute("SELECT key_id FROM writers")}
    connection.close()
    return found


def test_a_rotation_changes_nothing_that_is_read(tmp_path: Path) -> None:
    journal = open_with(tmp_path / "j.db", OLD)
    fill(journal)
    before = content(journal)
    journal.use_keys(KeyRing.of(NEW, OLD))
    assert content(journal) == before
    journal.commit(Batch([change(3, LOGGED)]))
    assert reseal(journal) > 1
    after = content(journal)
    assert after[1:] == before[1:]
    journal.close()
    journal = open_with(tmp_path / "j.db", NEW)
    assert content(journal) == after
    journal.close()


def test_owners_outlive_a_rotation(tmp_path: Path) -> None:
    owner = bytes(16)
    journal = open_with(tmp_path / "j.db", OLD)
    channels = range(1, 2_001)
    journal.commit(
        Batch([change(1, channel) for channel in channels], (), [(c, owner) for c in channels])
    )
    journal.use_keys(KeyRing.of(NEW, OLD))
    reseal(journal)
    journal.close()
    journal = open_with(tmp_path / "j.db", NEW)
    assert {journal.recover(channel).owner for channel in channels} == {owner}
    assert journal.owned(owner) == len(channels)
    journal.close()


def test_what_is_written_after_a_rotation_needs_the_new_key(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = open_with(path, OLD)
    journal.use_keys(KeyRing.of(NEW, OLD))
    journal.commit(Batch([change(1)]))
    journal.close()
    with pytest.raises(JournalVersionError, match=MasterKey(NEW).id.hex()):
        open_with(path, OLD)


def test_the_old_key_is_needed_until_all_is_sealed_anew_and_opens_nothing_then(
    tmp_path: Path,
) -> None:
    path = tmp_path / "j.db"
    journal = open_with(path, OLD)
    fill(journal)
    journal.close()
    with pytest.raises(JournalVersionError, match=MasterKey(OLD).id.hex()):
        open_with(path, NEW)
    journal = open_with(path, NEW, OLD)
    assert key_ids(path) == {MasterKey(OLD).id, MasterKey(NEW).id}
    reseal(journal)
    journal.close()
    assert key_ids(path) == {MasterKey(NEW).id}
    with pytest.raises(JournalVersionError):
        open_with(path, OLD)
    open_with(path, NEW).close()


def test_keys_that_lack_one_that_is_needed_are_refused_and_change_nothing(tmp_path: Path) -> None:
    journal = open_with(tmp_path / "j.db", OLD)
    fill(journal)
    before = content(journal)
    with pytest.raises(JournalVersionError, match="not given"):
        journal.use_keys(KeyRing.of(NEW))
    journal.commit(Batch([change(3, LOGGED)]))
    journal.close()
    journal = open_with(tmp_path / "j.db", OLD)
    assert content(journal)[1:] == before[1:]
    journal.close()


def test_a_rotation_goes_on_where_a_restart_has_interrupted_it(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = open_with(path, OLD)
    for number in range(1, 40):
        journal.commit(Batch([change(number)]))
    journal.use_keys(KeyRing.of(NEW, OLD))
    assert journal.upkeep()
    journal.close()
    journal = open_with(path, NEW, OLD)
    reseal(journal)
    journal.close()
    journal = open_with(path, NEW)
    assert journal.recover(CHANNEL).records[-1] == change(39)
    journal.close()


def test_what_is_damaged_keeps_its_key(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = open_with(path, OLD)
    fill(journal)
    journal.close()
    with sqlite3.connect(path) as connection:
        connection.execute(
            "UPDATE snapshots SET payload = zeroblob(100) WHERE channel = ?", (SNAPPED,)
        )
    connection.close()
    journal = open_with(path, NEW, OLD)
    reseal(journal)
    journal.close()
    assert MasterKey(OLD).id in key_ids(path)
    journal = open_with(path, NEW, OLD)
    assert journal.recover(STATED).records
    journal.close()


def test_of_a_full_disk_it_is_said_which(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = open_with(path, OLD)
    for number in range(1, 200):
        journal.commit(Batch([change(number)], [snapshot(number)] if number == 1 else []))
    journal.close()
    journal = open_with(path, NEW, OLD)
    connection = journal._usable().connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(CommitFailedError, match=f"the disk that holds {tmp_path} is full"):
        # What is sealed anew lies where it lay, so something has to be added.
        journal.commit(Batch([Record(CHANNEL, 200, RecordKind.CHANGE, bytes(100_000))]))
    assert reseal(journal) > 1
    journal.close()
    assert open_with(path, NEW).highest_sequence_number(CHANNEL) == 199


def test_a_master_key_never_shows() -> None:
    key = MasterKey(OLD)
    for shown in (repr(key), str(KeyRing([key]).keys)):
        assert OLD.hex() not in shown
        assert repr(OLD)[2:20] not in shown
        assert key.id.hex() not in OLD.hex()


def test_a_snapshot_that_is_newer_seals_with_a_key_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = open_with(path, OLD)
    state = Record(STATED, 2, RecordKind.STATE, b"a whole state")
    journal.commit(Batch([change(1, STATED), state], [Snapshot(STATED, 1, 1, b"s")]))
    assert journal.recover(STATED).records == [state]
    third = Record(STATED, 3, RecordKind.STATE, b"another")
    journal.commit(Batch([third], [Snapshot(STATED, 3, 1, b"s")]))
    fourth = Record(STATED, 4, RecordKind.STATE, b"one more")
    journal.commit(Batch([fourth]))
    journal.close()
    journal = open_with(path, OLD)
    assert journal.recover(STATED).records == [fourth]
    journal.close()
