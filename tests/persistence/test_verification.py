"""Verification: it finds every fault that there is, and none that there is not."""

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from connect_actor.keys.keyring import KeyRing, MasterKey
from connect_actor.persistence.contract import (
    Batch,
    JournalError,
    JournalVersionError,
    Record,
    RecordKind,
)
from connect_actor.persistence.inspection import inspect_channel, inspect_journal
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.persistence.verification import Verification, verify
from tests.support.channels import NOW
from tests.support.stored_channels import StoredChannel

KEYS = KeyRing.of(bytes(range(32)))
FIRST, SECOND, THIRD = 1, 2, 3


def open_at(path: Path, keys: KeyRing = KEYS) -> SqliteJournal:
    return SqliteJournal(path, keys=keys, strategy="differential")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Rows 1 to 3 establish a channel each, 4 and 5 are the first's, 6 the second's.

    The first has an owner and a dead record in row 4, the third only its snapshot.
    """
    path = tmp_path / "j.db"
    journal = open_at(path)
    first = StoredChannel(journal, FIRST, owner=bytes(16))
    second, _ = (StoredChannel(journal, channel) for channel in (SECOND, THIRD))
    first.send()
    first.snap()
    first.send()
    second.send()
    journal.close()
    return path


def verified(path: Path, limit: int | None = None) -> Verification:
    return verify(path, KEYS, limit=limit)


def test_a_sound_journal_is_whole(path: Path) -> None:
    found = verified(path)
    assert found.whole
    assert (found.rows, found.records) == (7, 6)
    assert (found.snapshots_seen, found.channels_seen, found.channels_served) == (3, 3, 3)
    assert (found.last_row, found.acknowledged_row) == (7, 7)
    assert found.key_ids == [KEYS.sealing.id.hex()]


def test_a_journal_is_verified_while_it_is_written(path: Path) -> None:
    journal = open_at(path)
    channel = StoredChannel(journal, 4)
    for sent in range(3):
        found = verified(path)
        assert found.whole
        assert (found.rows, found.channels_seen) == (8 + sent, 4)
        channel.send()
    journal.close()
    assert verified(path).whole


def flipped(table: str, column: str, where: str) -> Callable[[sqlite3.Connection], None]:
    def damage(connection: sqlite3.Connection) -> None:
        select = f"SELECT rowid, {column} FROM {table} WHERE {where}"  # noqa: S608 - ours
        update = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"  # noqa: S608 - ours
        for row, blob in connection.execute(select).fetchall():
            connection.execute(update, (blob[:-1] + bytes([blob[-1] ^ 1]), row))

    return damage


def executed(statement: str) -> Callable[[sqlite3.Connection], None]:
    def damage(connection: sqlite3.Connection) -> None:
        connection.execute(statement)

    return damage


@pytest.mark.parametrize(
    ("damage", "log", "snapshots", "channels", "file"),
    [
        (flipped("log", "payloads", "number = 6"), 1, 0, 1, 0),
        # Dead: no channel needs it, and it is found all the same.
        (flipped("log", "payloads", "number = 4"), 1, 0, 0, 0),
        (flipped("log", "payloads", "number = 1"), 1, 0, 0, 0),
        # It may have been anybody's: only the second is known to have gone on.
        (flipped("log", "directory", "number = 6"), 1, 0, 2, 0),
        (flipped("log", "directory", "number = 7"), 1, 0, 3, 0),
        (executed("DELETE FROM log WHERE number IN (3, 4)"), 1, 0, 1, 0),
        (executed("DELETE FROM log WHERE number = 7"), 0, 0, 3, 1),
        (executed("UPDATE log SET payloads = 'text' WHERE number = 6"), 1, 0, 1, 0),
        # Every channel has a later record, but what vouched for one's snapshot is gone.
        (executed("UPDATE log SET directory = zeroblob(5) WHERE number = 2"), 1, 0, 1, 0),
        (flipped("snapshots", "payload", "channel = 3"), 0, 1, 1, 0),
        (flipped("snapshots", "payload", "1"), 0, 3, 3, 0),
        (executed("DELETE FROM snapshots WHERE channel = 2"), 0, 0, 1, 0),
        (executed("DELETE FROM snapshots WHERE channel = 1"), 0, 0, 1, 0),
        (executed("UPDATE snapshots SET taken_at = 1 WHERE channel = 1"), 0, 1, 1, 0),
        (executed("UPDATE owners SET owner = x'00'"), 0, 0, 1, 0),
        (flipped("owners", "seal", "channel = 1"), 0, 0, 1, 0),
        (executed("DELETE FROM owners"), 0, 0, 1, 0),
        (executed("UPDATE owners SET life = life + 1"), 0, 0, 1, 0),
        (executed("UPDATE snapshots SET life = life + 1 WHERE channel = 3"), 0, 1, 1, 0),
        # What is before a row that is missing vouches for nobody: the first has gone on behind it.
        (executed("DELETE FROM log WHERE number < 3"), 1, 0, 1, 0),
    ],
)
def test_every_fault_is_found_with_whom_it_concerns(
    path: Path,
    damage: Callable[[sqlite3.Connection], None],
    log: int,
    snapshots: int,
    channels: int,
    file: int,
) -> None:
    with sqlite3.connect(path) as connection:
        damage(connection)
    connection.close()
    found = verified(path)
    assert not found.whole
    counts = (found.log.count, found.snapshots.count, found.channels.count, found.file.count)
    assert counts == (log, snapshots, channels, file)
    for part in (found.log, found.snapshots, found.channels, found.file):
        assert len(part.described) == part.count


def test_what_verify_refuses_is_what_a_service_refuses(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        flipped("log", "directory", "number = 6")(connection)
    connection.close()
    refused = {description.split(":")[0] for description in verified(path).channels.described}
    figures = inspect_journal(path, KEYS)
    assert figures.channels_damaged == len(refused)
    journal = open_at(path)
    for channel in (FIRST, SECOND, THIRD):
        try:
            journal.recover(channel)
        except JournalError:
            assert f"channel {channel}" in refused
        else:
            assert f"channel {channel}" not in refused
    journal.close()


def test_records_that_open_but_make_no_session_are_damage(path: Path) -> None:
    journal = open_at(path)
    journal.commit(Batch([Record(FIRST, 4, RecordKind.CHANGE, b"\xff\xff")]))
    journal.commit(Batch([Record(9, 1, RecordKind.ESTABLISHED, b"")]))
    journal.close()
    found = verified(path)
    assert found.channels.count == 2
    assert (found.log.count, found.snapshots.count, found.file.count) == (0, 0, 0)


def test_only_so_many_faults_are_described_and_all_are_counted(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        flipped("snapshots", "payload", "1")(connection)
    connection.close()
    found = verified(path, limit=1)
    assert (found.snapshots.count, len(found.snapshots.described)) == (3, 1)


def test_a_page_that_is_destroyed_ends_in_a_finding_not_in_a_crash(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'log'"
        ).fetchone()
    connection.close()
    content = bytearray(path.read_bytes())
    content[(page - 1) * 8_192 : page * 8_192] = b"\xee" * 8_192
    path.write_bytes(content)
    found = verified(path)
    assert found.file.count == 1
    assert not found.whole
    with pytest.raises(JournalError, match="can't be read"):
        inspect_journal(path, KEYS)


@pytest.mark.parametrize("content", [b"", b"something else" * 1_000])
def test_what_is_no_journal_is_not_verified(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "j.db"
    path.write_bytes(content)
    with pytest.raises(JournalVersionError, match=r"not a journal"):
        verified(path)
    assert path.read_bytes() == content


def test_a_missing_key_is_named(path: Path) -> None:
    with pytest.raises(JournalVersionError, match=KEYS.sealing.id.hex()):
        verify(path, KeyRing.of(bytes(32)), limit=None)


def test_looking_at_nothing_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="can't be opened"):
        verified(tmp_path / "j.db")
    assert list(tmp_path.iterdir()) == []


# --- Figures --------------------------------------------------------------------------------------


def test_figures_say_what_the_journal_says(path: Path) -> None:
    figures = inspect_journal(path, KEYS)
    assert (figures.rows, figures.last_row, figures.snapshots, figures.channels) == (7, 7, 3, 3)
    assert (figures.records_live, figures.entries_dead) == (2, 5)
    assert (figures.channels_damaged, figures.channels_given_up) == (0, 0)
    assert not figures.distrusted
    assert figures.backup_made_at is None
    assert [(use.epochs, use.rows, use.snapshots, use.owners) for use in figures.keys] == [
        (1, 7, 3, 1)
    ]
    assert set(figures.files) == {"j.db", "j.db-wal", "j.db-shm", "j.db-lease"}
    assert not figures.lease.held


def test_figures_show_who_writes(path: Path) -> None:
    journal = open_at(path)
    lease = inspect_journal(path, KEYS).lease
    assert (lease.held, lease.epoch, lease.head) == (True, 2, 7)
    assert lease.silent is not None
    journal.close()
    lease = inspect_journal(path, KEYS).lease
    assert (lease.held, lease.epoch, lease.head) == (False, 2, 7)


def test_figures_follow_a_rotation(path: Path) -> None:
    keys = KeyRing([MasterKey(bytes(32)), *KEYS.keys])
    journal = open_at(path, keys)
    StoredChannel(journal, 4)
    shares = [(use.rows, use.snapshots, use.owners) for use in inspect_journal(path, keys).keys]
    assert shares == [(7, 3, 1), (1, 1, 0)]
    while journal.upkeep():
        pass
    journal.close()
    (use,) = inspect_journal(path, keys).keys
    assert (use.rows, use.snapshots, use.owners) == (8, 4, 1)
    assert use.key_id == keys.sealing.id.hex()


def test_a_channel_is_shown_as_it_would_be_recovered(path: Path) -> None:
    found = inspect_channel(path, KEYS, FIRST)
    assert found is not None
    recovery, session = found
    assert recovery.highest_sequence_number == 3
    assert recovery.snapshot is not None
    assert (recovery.snapshot.sequence_number, recovery.snapshot.taken_at) == (2, NOW)
    assert session.ratchet.sending is not None
    assert session.ratchet.sending.next_index == 2
    assert inspect_channel(path, KEYS, 99) is None


def test_a_channel_whose_snapshot_is_gone_is_shown_as_damaged(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM snapshots WHERE channel = ?", (SECOND,))
    connection.close()
    with pytest.raises(JournalError, match=f"channel {SECOND}"):
        inspect_channel(path, KEYS, SECOND)
