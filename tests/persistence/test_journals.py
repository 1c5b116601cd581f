"""The backends against the conformance suite, against each other, and what is special to each."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.contract import (
    Batch,
    CommitFailedError,
    CorruptRecordError,
    Journal,
    JournalError,
    JournalLockedError,
    JournalVersionError,
    Record,
    RecordKind,
    Snapshot,
)
from connect_actor.persistence.log_rows import first_place, row_of
from connect_actor.persistence.memory import MemoryJournal
from connect_actor.persistence.sqlite import journal as journals
from connect_actor.persistence.sqlite.journal import SqliteJournal
from tests.persistence.journal_conformance import (
    CHANNEL,
    DurableJournalConformance,
    JournalConformance,
    change,
    numbers,
    snapshot,
)

KEY = bytes(range(32))


@pytest.fixture(autouse=True)
def eager_upkeep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let upkeep clean and checkpoint at once, in tiny stretches: it has something to do."""
    monkeypatch.setattr(journals, "_MIN_DEAD", 0)
    monkeypatch.setattr(journals, "_CLEAN_RECORDS", 3)
    monkeypatch.setattr(journals, "_CHECKPOINT_AFTER", 0)


def open_sqlite(path: Path, key: bytes = KEY, strategy: str = "full") -> SqliteJournal:
    # Some tests put copies of files there.
    return SqliteJournal(path, keys=KeyRing.of(key), strategy=strategy, moved=True)


class TestMemoryJournal(JournalConformance):
    def open(self) -> Journal:
        return MemoryJournal()


class TestSqliteJournal(DurableJournalConformance):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "journal.db"

    def open(self) -> Journal:
        return open_sqlite(self.path)

    def damage_record(self, channel: int, number: int, payload: bytes | None) -> None:
        place = place_of(self.path, channel, number)
        with sqlite3.connect(self.path) as connection:
            if payload is None:
                connection.execute("DELETE FROM log WHERE number = ?", (row_of(place),))
            else:
                overwrite(connection, place, payload)
        connection.close()


def place_of(path: Path, channel: int, number: int) -> int:
    """Return where a record lies in a closed journal."""
    journal = open_sqlite(path)
    place = journal._usable().index.tails[channel].place_of(number)
    journal.close()
    assert place is not None
    return place


def row_at(connection: sqlite3.Connection, place: int) -> tuple[bytes, bytes]:
    """Return the sealed directory and the sealed payloads of a record's row."""
    directory, payloads = connection.execute(
        "SELECT directory, payloads FROM log WHERE number = ?", (row_of(place),)
    ).fetchone()
    return directory, payloads


def overwrite(connection: sqlite3.Connection, place: int, content: bytes) -> None:
    """Put other content where a record lies, and cut off or fill up what is behind."""
    _, payloads = row_at(connection, place)
    begin = 16 + place - first_place(row_of(place))  # behind the seal's epoch and nonce
    damaged = (payloads[:begin] + content).ljust(len(payloads), b"\0")[: len(payloads)]
    connection.execute("UPDATE log SET payloads = ? WHERE number = ?", (damaged, row_of(place)))


# --- One writer ---------------------------------------------------------------------------------


def test_a_second_opening_is_refused(tmp_path: Path) -> None:
    first = open_sqlite(tmp_path / "j.db")
    with pytest.raises(JournalLockedError, match="one writer"):
        open_sqlite(tmp_path / "j.db")
    assert first.commit(Batch([change(1)])) == []
    first.close()
    open_sqlite(tmp_path / "j.db").close()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    journal = open_sqlite(tmp_path / "j.db")
    script = (
        "import sys; from pathlib import Path\n"
        "from connect_actor.persistence.contract import JournalLockedError\n"
        "from connect_actor.keys.keyring import KeyRing\n"
        "from connect_actor.persistence.sqlite.journal import SqliteJournal\n"
        "keys = KeyRing.of(bytes(range(32)))\n"
        "try: SqliteJournal(Path(sys.argv[1]), keys=keys, strategy='full')\n"
        "except JournalLockedError: sys.exit(7)\n"
    )
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", script, str(tmp_path / "j.db")], check=False
    )
    assert done.returncode == 7
    journal.close()


# --- Format, key and strategy -------------------------------------------------------------------


def test_the_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    journal = open_sqlite(tmp_path / "j.db")
    journal.commit(Batch([change(1)]))
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o077 == 0
    journal.close()


def test_another_master_key_is_refused_with_advice(tmp_path: Path) -> None:
    open_sqlite(tmp_path / "j.db").close()
    with pytest.raises(JournalVersionError, match="sealing_key_file"):
        open_sqlite(tmp_path / "j.db", key=bytes(32))


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    open_sqlite(tmp_path / "j.db").close()
    with sqlite3.connect(tmp_path / "j.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalVersionError, match="format 99"):
        open_sqlite(tmp_path / "j.db")


@pytest.mark.parametrize("content", [b"not a database at all, but long enough to look at" * 50])
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "j.db").write_bytes(content)
    with pytest.raises(JournalVersionError, match="not a journal"):
        open_sqlite(tmp_path / "j.db")


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "j.db") as connection:
        connection.execute("CREATE TABLE other (x)")
    connection.close()
    with pytest.raises(JournalVersionError, match="not a journal"):
        open_sqlite(tmp_path / "j.db")


def test_a_journal_remembers_which_strategy_wrote_it(tmp_path: Path) -> None:
    previous = []
    for strategy in ("full", "differential", "cached"):
        journal = open_sqlite(tmp_path / "j.db", strategy=strategy)
        previous.append(journal.previous_strategy)
        journal.close()
    assert previous == [None, "full", "differential"]


# --- Sealing ------------------------------------------------------------------------------------


def test_no_payload_is_on_disk_in_clear(tmp_path: Path) -> None:
    journal = open_sqlite(tmp_path / "j.db")
    secret = b"a very recognisable secret"
    journal.commit(
        Batch([Record(CHANNEL, 1, RecordKind.STATE, secret)], [Snapshot(CHANNEL, 1, 1, secret)])
    )
    for _ in range(2):
        for file in tmp_path.iterdir():
            assert secret not in file.read_bytes()
            assert KEY not in file.read_bytes()
        journal.close()


def test_what_is_moved_to_another_row_is_noticed(tmp_path: Path) -> None:
    journal = open_sqlite(tmp_path / "j.db")
    # Rows of the same shape: nothing but the seal can tell.
    for number in (1, 2):
        journal.commit(Batch([change(number), change(number, 12)]))
    journal.commit(Batch([change(1, 13)]))
    journal.close()
    with sqlite3.connect(tmp_path / "j.db") as connection:
        rows = dict(connection.execute("SELECT number, payloads FROM log WHERE number < 3"))
        for number, payloads in ((1, rows[2]), (2, rows[1])):
            connection.execute("UPDATE log SET payloads = ? WHERE number = ?", (payloads, number))
    connection.close()
    journal = open_sqlite(tmp_path / "j.db")
    for channel in (CHANNEL, 12):
        with pytest.raises(CorruptRecordError):
            journal.recover(channel)
    assert list(journal.recover(13).records) == [change(1, 13)]
    journal.close()


def test_payloads_of_a_commit_that_failed_do_not_fit_the_next_ones_directory(
    tmp_path: Path,
) -> None:
    path, earlier = tmp_path / "j.db", tmp_path / "earlier.db"
    open_sqlite(path).close()
    shutil.copy(path, earlier)
    for file, number in ((path, 1), (earlier, 1)):
        journal = open_sqlite(file)
        journal.commit(Batch([change(number)]))
        journal.close()
    with sqlite3.connect(earlier) as connection:
        _, payloads = row_at(connection, first_place(1))
    connection.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE log SET payloads = ?", (payloads,))
    connection.close()
    journal = open_sqlite(path)
    with pytest.raises(CorruptRecordError):
        journal.recover(CHANNEL)
    journal.close()


def test_recovery_reads_no_more_than_the_last_whole_state_and_what_follows(tmp_path: Path) -> None:
    journal = open_sqlite(tmp_path / "j.db")
    states = [Record(CHANNEL, number, RecordKind.STATE, b"s") for number in (1, 2, 4)]
    journal.commit(Batch([*states[:2], change(3), states[2], change(5)]))
    recovery = journal.recover(CHANNEL)
    assert list(recovery.records) == [states[2], change(5)]
    assert recovery.highest_sequence_number == 5
    journal.close()


def test_a_row_that_cannot_be_read_is_never_cleaned_away(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = open_sqlite(path)
    journal.commit(Batch([change(1), change(1, 12)]))
    for number in range(2, 6):
        journal.commit(Batch([change(number, 12)]))
    journal.close()
    with sqlite3.connect(path) as connection:
        overwrite(connection, first_place(1), b"damaged")
    connection.close()
    for _ in range(2):
        journal = open_sqlite(path)
        highest = journal.highest_sequence_number(12)
        journal.commit(Batch([change(highest + 1, 12)], [snapshot(highest + 1, channel=12)]))
        while journal.upkeep():
            pass
        with pytest.raises(CorruptRecordError):
            journal.recover(CHANNEL)
        assert journal.recover(12).highest_sequence_number == highest + 1
        journal.close()


def test_no_sealing_key_and_nonce_come_twice_even_from_a_restored_backup(tmp_path: Path) -> None:
    path, backup = tmp_path / "j.db", tmp_path / "backup.db"
    open_sqlite(path).close()
    shutil.copy(path, backup)
    sealed: list[bytes] = []
    for start in (path, backup):
        shutil.copy(start, tmp_path / "live.db")
        journal = open_sqlite(tmp_path / "live.db")
        journal.commit(Batch([change(1)]))
        journal.close()
        with sqlite3.connect(tmp_path / "live.db") as connection:
            sealed += [row_at(connection, first_place(1))[0]]
        connection.close()
        (tmp_path / "live.db").unlink()
        (tmp_path / "live.db-lease").unlink()
    first, second = sealed
    # The same epoch number, counter, context and payload: key and nonce differ.
    assert first[:9] == second[:9]
    assert first[9:] != second[9:]


def test_the_newest_save_is_that_of_a_snapshot_that_opens(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    journal = open_sqlite(path)
    for channel in range(1, 5):
        journal.commit(Batch([change(1, channel)], [snapshot(1, 1_000 + channel, channel)]))
    journal.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE snapshots SET taken_at = 9999 WHERE channel = 4")
    connection.close()
    journal = open_sqlite(path)
    assert journal.newest_save() == 1_003
    journal.close()


# --- Damage to the log itself ----------------------------------------------------------------


@pytest.mark.parametrize("how", ["flipped", "gone", "swapped"])
def test_after_a_damaged_directory_only_what_is_proved_whole_is_served(
    tmp_path: Path, how: str
) -> None:
    """Rows: A's first, B's first, the damaged one, A's next; C has a snapshot, and no record."""
    path = tmp_path / "j.db"
    journal = open_sqlite(path)
    whole, unsure, lost, idle = 1, 2, 3, 4
    journal.commit(Batch([change(1, idle)], [snapshot(1, channel=idle)]))
    journal.commit(Batch([change(1, whole)]))
    journal.commit(Batch([change(1, unsure)]))
    journal.commit(Batch([change(1, lost)]))
    journal.commit(Batch([change(2, whole)]))
    journal.close()
    with sqlite3.connect(path) as connection:
        if how == "gone":
            connection.execute("DELETE FROM log WHERE number = 4")
        else:
            rows = dict(connection.execute("SELECT number, directory FROM log"))
            damaged = rows[3] if how == "swapped" else rows[4][:-1] + bytes([rows[4][-1] ^ 1])
            connection.execute("UPDATE log SET directory = ? WHERE number = 4", (damaged,))
    connection.close()
    for _ in range(2):  # what is done meanwhile must not make anyone forget
        journal = open_sqlite(path)
        for channel in (unsure, idle):
            for look in (journal.recover, journal.saved_at):
                with pytest.raises(CorruptRecordError, match="newest records may be"):
                    look(channel)
        with pytest.raises(CorruptRecordError, match="may be among what was lost"):
            journal.highest_sequence_number(lost)
        recovery = journal.recover(whole)
        number = recovery.highest_sequence_number
        assert number == 2 or recovery.snapshot is not None
        assert (journal.saved_at(whole) > 0) is (recovery.snapshot is not None)
        rejections = journal.commit(Batch([change(2, unsure), change(number + 1, whole)]))
        assert [rejection.entry for rejection in rejections] == [change(2, unsure)]
        journal.commit(Batch([change(number + 2, whole)], [snapshot(number + 2, channel=whole)]))
        while journal.upkeep():
            pass
        journal.commit(Batch([change(number + 3, whole)]))
        journal.close()


@pytest.mark.parametrize("row", [1, 2, 3])
def test_every_flipped_byte_of_a_row_is_noticed(tmp_path: Path, row: int) -> None:
    path = tmp_path / "j.db"
    journal = open_sqlite(path)
    for number in (1, 2, 3):
        journal.commit(Batch([change(number), change(number, 12)]))
    written = {channel: journal.recover(channel).records for channel in (CHANNEL, 12)}
    journal.close()
    intact = path.read_bytes()
    with sqlite3.connect(path) as connection:
        parts = connection.execute(
            "SELECT directory, payloads FROM log WHERE number = ?", (row,)
        ).fetchone()
    connection.close()
    for column, part in zip(("directory", "payloads"), parts, strict=True):
        for position in range(len(part)):
            path.write_bytes(intact)
            flipped = part[:position] + bytes([part[position] ^ 0x40]) + part[position + 1 :]
            with sqlite3.connect(path) as connection:
                connection.execute(
                    f"UPDATE log SET {column} = ? WHERE number = ?",  # noqa: S608 - our own names
                    (flipped, row),
                )
            connection.close()
            journal = open_sqlite(path)
            refused = 0
            for channel in (CHANNEL, 12):
                try:
                    assert list(journal.recover(channel).records) == written[channel]
                except CorruptRecordError:
                    refused += 1
            assert refused >= 1, (column, position)
            journal.close()


# --- Failing commits and crashes ----------------------------------------------------------------


class _Failing:
    """A connection that fails one statement, by what it begins with."""

    def __init__(
        self, connection: sqlite3.Connection, statement: str, code: int = sqlite3.SQLITE_IOERR
    ) -> None:
        self._connection = connection
        self._statement = statement
        self._code = code

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - stands in for a connection
        attribute = getattr(self._connection, name)
        if name not in ("execute", "executemany"):
            return attribute

        def run(statement: str, *values: object) -> Any:  # noqa: ANN401 - as above
            if statement.startswith(self._statement):
                error = sqlite3.OperationalError("disk I/O error, on purpose")
                error.sqlite_errorcode = self._code
                raise error
            return attribute(statement, *values)

        return run


@pytest.mark.parametrize(
    ("statement", "snapshots"),
    [
        ("BEGIN", [snapshot(2)]),
        ("INSERT INTO log", [snapshot(2)]),
        ("DELETE FROM snapshots", [snapshot(2)]),
        ("INSERT INTO snapshots", [snapshot(2)]),
        ("COMMIT", [snapshot(2)]),
        ("INSERT INTO log", []),
    ],
)
def test_after_a_failed_commit_the_journal_says_what_is_durable(
    tmp_path: Path, statement: str, snapshots: list[Snapshot], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_sqlite(tmp_path / "j.db")
    journal.commit(Batch([change(1)]))
    reader = journal._usable()
    monkeypatch.setattr(reader, "connection", _Failing(reader.connection, statement))
    with pytest.raises(CommitFailedError):
        journal.commit(Batch([change(2)], snapshots))
    assert numbers(journal.recover(CHANNEL).records) == [1]
    assert journal.recover(CHANNEL).snapshot is None
    assert journal.commit(Batch([change(2)])) == []
    journal.close()
    assert numbers(open_sqlite(tmp_path / "j.db").recover(CHANNEL).records) == [1, 2]


def test_records_alone_are_committed_by_one_statement(tmp_path: Path) -> None:
    journal = open_sqlite(tmp_path / "j.db")
    journal.commit(Batch([change(1)]))
    connection = journal._usable().connection
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    journal.commit(Batch([change(2), change(3)]))
    connection.set_trace_callback(None)
    assert [statement.split()[0] for statement in statements] == ["INSERT"]
    assert numbers(journal.recover(CHANNEL).records) == [1, 2, 3]
    journal.close()


_WRITER = """
import sys
from pathlib import Path
from connect_actor.persistence.contract import Batch, Record, RecordKind, Snapshot
from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.sqlite.journal import SqliteJournal
journal = SqliteJournal(Path(sys.argv[1]), keys=KeyRing.of(bytes(range(32))), strategy="full")
number = journal.highest_sequence_number(1)
while True:
    first, number = number + 1, number + 3
    records = [Record(1, n, RecordKind.CHANGE, b"%d" % n) for n in range(first, number + 1)]
    snapshots = [Snapshot(1, number, number, b"s%d" % number)] if number % 15 == 0 else []
    journal.commit(Batch(records, snapshots))
    print(number, flush=True)
    journal.upkeep()
"""


def test_what_was_acknowledged_survives_kill_9_whole(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    for kill in range(5):
        writer = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        for _ in range(20 + 7 * kill):
            acknowledged = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.communicate()[0].split()
        acknowledged = int(rest[-1]) if rest and rest[-1].isdigit() else acknowledged
        journal = open_sqlite(path)
        highest = journal.highest_sequence_number(1)
        assert highest >= acknowledged
        assert highest % 3 == 0  # no batch in part
        recovery = journal.recover(1)
        covered = recovery.snapshot.sequence_number if recovery.snapshot else 0
        assert numbers(list(recovery.records)) == list(range(covered + 1, highest + 1))
        assert [r.payload for r in recovery.records] == [
            b"%d" % number for number in range(covered + 1, highest + 1)
        ]
        journal.close()


# --- Space --------------------------------------------------------------------------------------


def test_the_log_holds_no_more_than_twice_what_is_live(tmp_path: Path) -> None:
    journal = open_sqlite(tmp_path / "j.db")
    number = 0
    journal.commit(Batch([change(1, 77)]))  # an idle channel must not hold the log back
    for _ in range(60):
        journal.commit(Batch([change(number + n) for n in range(1, 11)], [snapshot(number + 10)]))
        number += 10
        while journal.upkeep():
            pass
    assert numbers(journal.recover(77).records) == [1]
    journal.commit(Batch())
    journal.close()
    with sqlite3.connect(tmp_path / "j.db") as connection:
        assert connection.execute("SELECT count(*) FROM log").fetchone()[0] <= 2
        assert connection.execute("SELECT count(*) FROM snapshots").fetchone()[0] == 1
    connection.close()
    assert numbers(open_sqlite(tmp_path / "j.db").recover(77).records) == [1]


def test_a_forgotten_channel_costs_no_memory(tmp_path: Path) -> None:
    journal = open_sqlite(tmp_path / "j.db")
    journal.commit(Batch([change(1)], [snapshot(1)]))
    journal.forget(CHANNEL)
    assert not journal._usable().index.tails
    assert journal.highest_sequence_number(CHANNEL) == 1
    journal.close()


def test_listing_channels_takes_no_more_than_a_stretch_of_an_index(tmp_path: Path) -> None:
    journal = open_sqlite(tmp_path / "j.db")
    connection = journal._usable().connection
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    journal.channels(CHANNEL, 5)
    connection.set_trace_callback(None)
    (statement,) = statements
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}").fetchall()
    assert [step[3].partition(" USING ")[0] for step in plan] == ["SEARCH snapshots"]
    assert "USING COVERING INDEX" in plan[0][3]
    journal.close()


@pytest.mark.parametrize(
    ("code", "error"),
    [(sqlite3.SQLITE_CORRUPT, CorruptRecordError), (sqlite3.SQLITE_IOERR, JournalError)],
)
def test_a_list_of_channels_that_can_not_be_read_is_an_error(
    tmp_path: Path, code: int, error: type[JournalError], monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = open_sqlite(tmp_path / "j.db")
    reader = journal._usable()
    failing = _Failing(reader.connection, "SELECT DISTINCT channel", code)
    monkeypatch.setattr(reader, "connection", failing)
    with pytest.raises(JournalError) as raised:
        journal.channels(-1, 5)
    assert raised.type is error
    monkeypatch.undo()
    journal.close()


def test_a_time_that_is_none_is_damage(tmp_path: Path) -> None:
    journal = open_sqlite(tmp_path / "j.db")
    journal.commit(Batch([change(1)], [snapshot(1)]))
    journal._usable().connection.execute("UPDATE snapshots SET taken_at = 'soon'")
    with pytest.raises(CorruptRecordError, match="the time of its snapshot"):
        journal.saved_at(CHANNEL)
    journal.close()


def test_looking_at_a_channel_keeps_nothing_of_it_in_memory(tmp_path: Path) -> None:
    journal = open_sqlite(tmp_path / "j.db")
    journal.commit(Batch([change(1)], [snapshot(1)]))
    journal.forget(CHANNEL)
    assert journal.channels(-1, 5) == [CHANNEL]
    assert journal.saved_at(CHANNEL) == 1_001
    assert not journal._usable().index.tails
    journal.close()


# --- Backends against each other ----------------------------------------------------------------


class JournalsInLockstep(RuleBasedStateMachine):
    """Both backends do the same things, with crashes and upkeep at any time for one of them."""

    channels = st.integers(1, 3)

    def __init__(self) -> None:
        super().__init__()
        import tempfile  # noqa: PLC0415 - a state machine gets no fixtures

        self.directory = tempfile.mkdtemp()
        self.memory = MemoryJournal()
        self.sqlite = open_sqlite(Path(self.directory) / "j.db")
        self.clock = 0

    @rule(records=st.lists(st.tuples(channels, st.sampled_from([0, 0, 0, 0, 1, -1])), max_size=6))
    def append(self, records: list[tuple[int, int]]) -> None:
        heights: dict[int, int] = {}
        batch = []
        for channel, error in records:
            height = heights.get(channel, self.memory.highest_sequence_number(channel))
            heights[channel] = height + 1
            batch.append(change(height + 1 + error, channel))
        assert self.memory.commit(Batch(batch)) == self.sqlite.commit(Batch(batch))

    @rule(channel=channels, back=st.integers(0, 3))
    def save_snapshot(self, channel: int, back: int) -> None:
        number = self.memory.highest_sequence_number(channel) - back
        if number > 0:
            self.clock += 1
            batch = Batch(snapshots=[snapshot(number, self.clock, channel)])
            self.memory.commit(batch)
            self.sqlite.commit(batch)

    @rule(channel=channels)
    def close_channel(self, channel: int) -> None:
        number = self.memory.highest_sequence_number(channel) + 1
        batch = Batch([Record(channel, number, RecordKind.CLOSED, b"")])
        assert self.memory.commit(batch) == self.sqlite.commit(batch) == []

    @rule()
    def upkeep(self) -> None:
        self.sqlite.upkeep()

    @rule(channel=channels)
    def forget(self, channel: int) -> None:
        self.sqlite.forget(channel)

    @precondition(lambda self: self.clock >= 0)
    @rule()
    def reopen(self) -> None:
        self.sqlite.close()
        self.sqlite = open_sqlite(Path(self.directory) / "j.db")

    @invariant()
    def both_recover_the_same(self) -> None:
        for channel in (1, 2, 3):
            assert self.sqlite.recover(channel) == self.memory.recover(channel)
            highest = self.memory.highest_sequence_number(channel)
            assert self.sqlite.highest_sequence_number(channel) == highest
            assert self.sqlite.saved_at(channel) == self.memory.saved_at(channel)

    @invariant()
    def both_list_the_same(self) -> None:
        for after in (-1, 1, 2, 3):
            assert self.sqlite.channels(after, 2) == self.memory.channels(after, 2)

    def teardown(self) -> None:
        self.sqlite.close()
        shutil.rmtree(self.directory)


TestJournalsInLockstep = JournalsInLockstep.TestCase
TestJournalsInLockstep.settings = settings(max_examples=60, stateful_step_count=30)
