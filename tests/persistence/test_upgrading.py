"""A journal of format 2 is brought up when it is opened; what it can't prove is refused."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.backup import back_up
from connect_actor.persistence.contract import (
    MAX_SEQUENCE_NUMBER,
    Batch,
    CorruptRecordError,
    JournalError,
    JournalVersionError,
    Record,
    RecordKind,
    Snapshot,
)
from connect_actor.persistence.inspection import inspect_journal
from connect_actor.persistence.log_rows import (
    SNAPSHOT_NOTE,
    STATE_SEALED_BEFORE,
    RowWriter,
    stamp_of,
)
from connect_actor.persistence.sealing import (
    canary_context,
    owner_context,
    snapshot_context,
    state_context,
)
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.persistence.verification import verify
from tests.persistence.journal_conformance import change
from tests.support.former_seals import FormerSealer

KEYS = KeyRing.of(bytes(range(32)))
OWNER = bytes(16)
RECORDS, SNAPPED, OWNED, STATED, GIVEN_UP = 1, 2, 3, 4, 5
SALT = bytes([7]) * 32
STATE_KEY = bytes([9]) * 32

OLD_SCHEMA = """
CREATE TABLE writers (
    epoch INTEGER PRIMARY KEY, strategy TEXT NOT NULL, opened_at INTEGER NOT NULL,
    key_id BLOB NOT NULL, salt BLOB NOT NULL, canary BLOB NOT NULL
);
CREATE TABLE log (number INTEGER PRIMARY KEY, directory BLOB NOT NULL, payloads BLOB NOT NULL);
CREATE TABLE snapshots (
    channel INTEGER NOT NULL, sequence_number INTEGER NOT NULL, taken_at INTEGER NOT NULL,
    payload BLOB NOT NULL, UNIQUE (channel, sequence_number)
);
CREATE TABLE marks (
    channel INTEGER PRIMARY KEY, deleted_to INTEGER NOT NULL, highest INTEGER NOT NULL
);
CREATE TABLE owners (channel INTEGER PRIMARY KEY, owner BLOB NOT NULL, seal BLOB NOT NULL);
CREATE TABLE backup (head INTEGER NOT NULL, made_at INTEGER NOT NULL);
"""


def write_old(path: Path) -> None:
    """Write a journal as the release before wrote it."""
    sealer = FormerSealer(3, KEYS.sealing, SALT, "full")

    def row(*records: Record, snapshots: tuple[Snapshot, ...] = ()) -> None:
        (number,) = connection.execute("SELECT coalesce(max(number), 0) + 1 FROM log").fetchone()
        writer = RowWriter(number)
        for channel, sequence_number, kind, payload in records:
            if kind is RecordKind.STATE:
                context = state_context(channel, sequence_number)
                sealed = sealer.seal(payload, context, AESGCM(STATE_KEY))
                writer.add(channel, sequence_number, STATE_SEALED_BEFORE, sealed)
            else:
                writer.add(channel, sequence_number, kind, payload)
        for snapshot in snapshots:
            channel, taken_at = snapshot.channel, snapshot.taken_at
            writer.note(channel, snapshot.sequence_number, SNAPSHOT_NOTE, stamp_of(taken_at))
            context = snapshot_context(channel, snapshot.sequence_number, taken_at)
            connection.execute(
                "INSERT INTO snapshots VALUES (?, ?, ?, ?)",
                (
                    channel,
                    snapshot.sequence_number,
                    taken_at,
                    sealer.seal(STATE_KEY + snapshot.payload, context),
                ),
            )
        writer.finish()
        ((number, directory, payloads),) = writer.rows
        connection.execute(
            "INSERT INTO log VALUES (?, ?, ?)",
            (number, *sealer.seal_row(number, directory, payloads)),
        )

    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(OLD_SCHEMA)
        connection.execute("PRAGMA application_id = 0x434F4E41")
        connection.execute("PRAGMA user_version = 2")
        connection.execute(
            "INSERT INTO writers VALUES (3, 'full', 1, ?, ?, ?)",
            (KEYS.sealing.id, SALT, sealer.seal(b"connect-actor canary", canary_context(3))),
        )
        row(change(1, RECORDS), change(2, RECORDS), change(1, OWNED))
        row(change(1, SNAPPED), snapshots=(Snapshot(SNAPPED, 1, 10, b"snapped"),))
        row(
            change(1, STATED),
            Record(STATED, 2, RecordKind.STATE, b"a whole state"),
            snapshots=(Snapshot(STATED, 1, 20, b"stated"),),
        )
        row(change(2, OWNED))
        connection.execute("INSERT INTO marks VALUES (?, 0, ?)", (GIVEN_UP, MAX_SEQUENCE_NUMBER))
        connection.execute(
            "INSERT INTO owners VALUES (?, ?, ?)",
            (OWNED, OWNER, sealer.seal(OWNER, owner_context(OWNED, 0))),
        )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_old(tmp_path / "j.db")
    return tmp_path / "j.db"


def open_at(path: Path) -> SqliteJournal:
    return SqliteJournal(path, keys=KEYS, strategy="differential")


def execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def test_everything_comes_along(path: Path) -> None:
    journal = open_at(path)
    assert journal.previous_strategy == "full"
    for _ in range(2):
        assert journal.recover(RECORDS).records == [change(1, RECORDS), change(2, RECORDS)]
        assert journal.recover(SNAPPED).snapshot == Snapshot(SNAPPED, 1, 10, b"snapped")
        assert journal.recover(OWNED).owner == OWNER
        assert journal.owned(OWNER) == 1
        stated = journal.recover(STATED)
        assert stated.snapshot == Snapshot(STATED, 1, 20, b"stated")
        assert [record.payload for record in stated.records] == [b"a whole state"]
        with pytest.raises(CorruptRecordError, match="establish a new channel"):
            journal.recover(GIVEN_UP)
        journal.close()
        found = verify(path, KEYS, limit=None)
        assert (found.log.count, found.snapshots.count, found.file.count) == (0, 0, 0)
        assert found.channels_given_up == 1
        journal = open_at(path)
    assert journal.commit(Batch([change(3, RECORDS), change(2, SNAPPED)])) == []
    assert journal.owner(RECORDS) == b""
    journal.close()
    figures = inspect_journal(path, KEYS)
    # The epochs go on counting: a writer of the old release that wakes up is not the newest one.
    assert figures.epochs[0].number == 4
    back_up(path, path.with_name("backup"), beside=[], made_at=1)


def test_nothing_that_was_brought_up_vouches_for_a_channel(path: Path) -> None:
    open_at(path).close()
    journal = open_at(path)
    journal.commit(Batch([change(3, RECORDS)]))
    journal.commit(Batch([change(2, SNAPPED)]))
    journal.close()
    execute(path, "DELETE FROM log WHERE number = (SELECT max(number) - 1 FROM log)")
    journal = open_at(path)
    for refused in (RECORDS, OWNED, STATED):
        with pytest.raises(CorruptRecordError, match="newest records"):
            journal.recover(refused)
    assert journal.recover(SNAPPED).highest_sequence_number == 2
    journal.close()


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM log WHERE number = 2",
        "UPDATE log SET directory = zeroblob(50) WHERE number = 2",
        "DELETE FROM writers",
        "UPDATE writers SET canary = zeroblob(50)",
        "UPDATE writers SET salt = zeroblob(32)",
        "INSERT INTO backup VALUES (4, 1)",
    ],
)
def test_one_that_is_damaged_as_a_whole_is_left_as_it_is(path: Path, damage: str) -> None:
    execute(path, damage)
    before = path.read_bytes()
    with pytest.raises(JournalVersionError, match=r"format 2|which is not given"):
        open_at(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
        assert len(connection.execute("SELECT * FROM sqlite_schema").fetchall()) == 7
    assert len(before) == path.stat().st_size


@pytest.mark.parametrize(
    ("damage", "refused"),
    [
        ("UPDATE snapshots SET taken_at = 7 WHERE channel = 2", {SNAPPED}),
        ("UPDATE snapshots SET payload = zeroblob(80) WHERE channel = 2", {SNAPPED}),
        ("DELETE FROM snapshots WHERE channel = 4", {STATED}),
        ("UPDATE log SET payloads = zeroblob(80) WHERE number = 4", {OWNED}),
        ("UPDATE owners SET seal = zeroblob(80)", {OWNED}),
        ("UPDATE owners SET owner = zeroblob(8)", {OWNED}),
        # Marks of deletion were not sealed: this one would have taken the channel back.
        ("INSERT INTO marks VALUES (4, 4611686018427387904, 0)", set()),
        ("INSERT INTO marks VALUES (1, 2, 2)", set()),
    ],
)
def test_a_channel_that_was_refused_is_given_up(path: Path, damage: str, refused: set[int]) -> None:
    execute(path, damage)
    journal = open_at(path)
    found = set()
    for channel in (RECORDS, SNAPPED, OWNED, STATED):
        try:
            assert journal.recover(channel).highest_sequence_number == (channel != SNAPPED) + 1
        except CorruptRecordError:
            found.add(channel)
    assert found == refused
    journal.close()


def test_an_end_that_is_missing_is_noticed(path: Path) -> None:
    shutil.copyfile(path, path.with_name("copy.db"))
    journal = open_at(path)
    journal.commit(Batch([change(3, RECORDS)]))
    journal.close()
    path.with_name("copy.db").replace(path)
    with pytest.raises(JournalVersionError, match="missing or damaged"):
        open_at(path)


def test_the_old_number_makes_no_old_journal_of_a_new_one(path: Path) -> None:
    open_at(path).close()
    write_old(path.with_name("old.db"))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ATTACH ? AS old", (str(path.with_name("old.db")),))
        with connection:
            # The old tables, with the new epochs and rows in them.
            writers = connection.execute(
                "SELECT epoch, strategy, opened_at, key_id, salt, canary FROM writers"
            ).fetchall()
            log = connection.execute("SELECT * FROM log").fetchall()
            connection.execute("DELETE FROM old.writers")
            connection.execute("DELETE FROM old.log")
            connection.executemany("INSERT INTO old.writers VALUES (?, ?, ?, ?, ?, ?)", writers)
            connection.executemany("INSERT INTO old.log VALUES (?, ?, ?)", log)
    with pytest.raises(JournalVersionError, match="not of format 2"):
        open_at(path.with_name("old.db"))


def test_who_looks_at_an_old_one_is_told_what_to_do(path: Path) -> None:
    for look in (
        lambda: verify(path, KEYS, limit=None),
        lambda: inspect_journal(path, KEYS),
        lambda: back_up(path, path.with_name("backup"), beside=[], made_at=1),
    ):
        with pytest.raises(JournalVersionError, match=r"has format 2.*start its service once"):
            look()


def test_it_is_brought_up_at_once_or_not_at_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise JournalError("on purpose")

    with monkeypatch.context() as patched:
        patched.setattr(SqliteJournal, "_make_durable", fail)
        patched.setattr("connect_actor.persistence.sqlite.upgrading.require_format", fail)
        with pytest.raises(JournalError, match="on purpose"):
            open_at(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (2,)
    test_everything_comes_along(path)
