"""Whatever becomes of the file, a channel is served as it was acknowledged, or it is refused.

Random histories of commits, snapshots, closings, cleanings and openings, then damage and forgeries
of every sort, one at a time or several at once, by somebody who has every row of every earlier
moment but no key. And each table and column by itself: deleted, duplicated, moved, replaced by what
the same place held before, set to any value.
"""

import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence import admission, log_index, log_rows
from connect_actor.persistence.contract import (
    Batch,
    CorruptRecordError,
    JournalError,
    JournalVersionError,
    Record,
    RecordKind,
    Snapshot,
)
from connect_actor.persistence.sqlite import cleaning, owners
from connect_actor.persistence.sqlite import journal as journals
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.persistence.verification import verify

KEYS = KeyRing.of(bytes(range(32)))
CHANNELS = 6
OWNERS = [b"", bytes(16), bytes([1]) * 16]

Row = tuple[Any, ...]


@pytest.fixture(autouse=True)
def eager_upkeep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_MIN_DEAD", 0)
    monkeypatch.setattr(journals, "_CLEAN_RECORDS", 5)


def open_at(path: Path) -> SqliteJournal:
    # Its files are copied and put back at will.
    return SqliteJournal(path, keys=KEYS, strategy="differential", moved=True)


def tables_of(connection: sqlite3.Connection) -> list[str]:
    return [
        name
        for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
    ]


@dataclass
class Life:
    """What was acknowledged of a channel."""

    owner: bytes
    payloads: list[bytes] = field(default_factory=list)
    """Of its records, in order."""
    whole: list[bytes] = field(default_factory=list)
    """Payloads of whole states, by sequence number, as a snapshot has them."""


class Histories:
    """A journal, and the truth about it."""

    def __init__(self, path: Path, source: random.Random) -> None:
        self.path = path
        self.source = source
        self.journal = open_at(path)
        self.alive: dict[int, Life] = {}
        self.past: dict[str, list[Row]] = {}
        """Every row that a table has ever held, table by table."""
        self.time = 1_000_000

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self._step()
            self._remember()
        self.journal.close()

    def truth(self) -> dict[int, Life]:
        """Return what was acknowledged of the channels that have not ended: a copy."""
        return {
            channel: Life(life.owner, life.payloads[:], life.whole[:])
            for channel, life in self.alive.items()
        }

    def _step(self) -> None:
        source = self.source
        kind = source.randrange(20)
        if kind == 0:
            self.journal.close()
            self.journal = open_at(self.path)
        elif kind < 5:
            for _ in range(source.randint(1, 3)):
                self.journal.upkeep()
        elif kind == 5 and self.alive:
            channel = source.choice(sorted(self.alive))
            number = len(self.alive[channel].payloads)
            self.journal.commit(Batch([Record(channel, number + 1, RecordKind.CLOSED, b"")]))
            del self.alive[channel]
        else:
            channels = source.sample(range(1, CHANNELS + 1), source.randint(1, 2))
            self._commit(channels)

    def _commit(self, channels: list[int]) -> None:
        source = self.source
        records, snapshots, owners = [], [], []
        for channel in channels:
            life = self.alive.get(channel)
            begins = life is None
            if life is None:
                life = self.alive[channel] = Life(source.choice(OWNERS))
                if life.owner:
                    owners.append((channel, life.owner))
            for _ in range(1 if begins else source.randint(1, 2)):
                number = len(life.payloads) + 1
                payload = b"%d of %d at %d" % (number, channel, self.time)
                life.payloads.append(payload)
                life.whole.append(b"after " + payload)
                first = RecordKind.ESTABLISHED if begins else RecordKind.CHANGE
                records.append(Record(channel, number, first, payload))
            if begins or source.randrange(6) == 0:
                self.time += source.randint(1, 1_000)
                snapshots.append(Snapshot(channel, number, self.time, life.whole[-1]))
        assert self.journal.commit(Batch(records, snapshots, owners)) == []

    def _remember(self) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            for table in tables_of(connection):
                held = self.past.setdefault(table, [])
                known = set(held)
                rows = connection.execute(f"SELECT * FROM {table}")  # noqa: S608 - its own names
                held += [row for row in rows if row not in known]


def judge(path: Path, alive: dict[int, Life]) -> tuple[Counter[str], list[str]]:
    """Open a journal and hold every channel against the truth: how many are what, and faults."""
    verdict = Counter[str]()
    faults = []
    for turn in range(2):
        try:
            journal = open_at(path)
        except JournalError:
            verdict["not opened"] += 1
            break
        for channel in range(1, CHANNELS + 1):
            word = _judge_channel(journal, channel, alive.get(channel))
            if word not in ("served", "refused", "none"):
                faults.append(f"channel {channel}: {word}")
            if turn == 0:
                verdict[word] += 1
        journal.close()
    return verdict, faults


def _judge_channel(journal: SqliteJournal, channel: int, life: Life | None) -> str:
    try:
        recovery = journal.recover(channel)
        owner = journal.owner(channel)
    except CorruptRecordError:
        return "refused"
    highest = recovery.highest_sequence_number
    if highest == 0:
        # Unknown: a new life may begin, with new keys; nothing of the old one is there to go on.
        return "none"
    if life is None:
        return f"has ended, and is served at {highest}"
    snapshot = recovery.snapshot
    covered = 0 if snapshot is None else snapshot.sequence_number
    wrong = {
        f"served at {highest} of {len(life.payloads)}": highest != len(life.payloads),
        f"served to {owner!r}": not recovery.owner == life.owner == owner,
        "served from another snapshot": snapshot is not None
        and snapshot.payload != life.whole[covered - 1],
        "served with other records": [record.payload for record in recovery.records]
        != life.payloads[covered:],
    }
    if any(wrong.values()):
        return ", ".join(word for word, is_so in wrong.items() if is_so)
    life.payloads.append(b"one more %d" % highest)
    life.whole.append(b"after one more %d" % highest)
    record = Record(channel, highest + 1, RecordKind.CHANGE, life.payloads[-1])
    return "served" if journal.commit(Batch([record])) == [] else "served, and not written to"


# --- Random histories, damaged at random ----------------------------------------------------------

Damage = Callable[[sqlite3.Connection, random.Random, dict[str, list[Row]]], None]


def _some_row(connection: sqlite3.Connection, source: random.Random, table: str) -> int | None:
    rows = [row for (row,) in connection.execute(f"SELECT rowid FROM {table}")]  # noqa: S608
    return source.choice(rows) if rows else None


def _a_row_is_gone(
    connection: sqlite3.Connection, source: random.Random, _: dict[str, list[Row]]
) -> None:
    table = source.choice(tables_of(connection))
    row = _some_row(connection, source, table)
    connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (row,))  # noqa: S608


def _rows_of_the_log_are_gone(
    connection: sqlite3.Connection, source: random.Random, _: dict[str, list[Row]]
) -> None:
    first = _some_row(connection, source, "log") or 1
    last = first + source.randint(0, 20)
    connection.execute("DELETE FROM log WHERE number BETWEEN ? AND ?", (first, last))


def _the_log_is_cut_in_front(
    connection: sqlite3.Connection, source: random.Random, _: dict[str, list[Row]]
) -> None:
    row = _some_row(connection, source, "log")
    connection.execute("DELETE FROM log WHERE number <= ?", (row,))


def _the_log_is_cut_behind(
    connection: sqlite3.Connection, source: random.Random, _: dict[str, list[Row]]
) -> None:
    row = _some_row(connection, source, "log")
    connection.execute("DELETE FROM log WHERE number >= ?", (row,))


def _a_bit_is_flipped(
    connection: sqlite3.Connection, source: random.Random, _: dict[str, list[Row]]
) -> None:
    table, column = source.choice(
        [("log", "directory"), ("log", "payloads"), ("snapshots", "payload")]
    )
    row = _some_row(connection, source, table)
    found = connection.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (row,)).fetchone()  # noqa: S608
    if found is not None:
        blob = bytearray(found[0])
        blob[source.randrange(len(blob))] ^= 1 << source.randrange(8)
        connection.execute(
            f"UPDATE {table} SET {column} = ? WHERE rowid = ?",  # noqa: S608
            (bytes(blob), row),
        )


def _older_rows_are_put_back(
    connection: sqlite3.Connection, source: random.Random, past: dict[str, list[Row]]
) -> None:
    table = source.choice(tables_of(connection))
    held = past.get(table)
    if not held:
        return
    begin = source.randrange(len(held))
    for row in held[begin : begin + source.choice([1, 1, 5])]:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", row)  # noqa: S608


def _an_ended_or_older_snapshot_is_put_back(
    connection: sqlite3.Connection, source: random.Random, past: dict[str, list[Row]]
) -> None:
    row = source.choice(past["snapshots"])
    connection.execute("DELETE FROM snapshots WHERE channel = ?", (row[0],))
    marks = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO snapshots VALUES ({marks})", row)  # noqa: S608


def _two_rows_are_swapped(
    connection: sqlite3.Connection, source: random.Random, _: dict[str, list[Row]]
) -> None:
    table, column = source.choice(
        [("log", "directory"), ("log", "payloads"), ("snapshots", "payload"), ("owners", "seal")]
    )
    first, second = (_some_row(connection, source, table) for _ in range(2))
    select = f"SELECT {column} FROM {table} WHERE rowid = ?"  # noqa: S608
    values = [connection.execute(select, (row,)).fetchone() for row in (first, second)]
    if None not in values:
        for row, (value,) in ((first, values[1]), (second, values[0])):
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, row))  # noqa: S608


DAMAGES: list[Damage] = [
    _a_row_is_gone,
    _rows_of_the_log_are_gone,
    _the_log_is_cut_in_front,
    _the_log_is_cut_behind,
    _a_bit_is_flipped,
    _older_rows_are_put_back,
    _an_ended_or_older_snapshot_is_put_back,
    _two_rows_are_swapped,
]


def damaged_at_random(
    directory: Path, source: random.Random, past: dict[str, list[Row]]
) -> list[str]:
    done = []
    with closing(sqlite3.connect(directory / "j.db")) as connection, connection:
        for _ in range(source.choice([1, 1, 2, 3])):
            damage = source.choice(DAMAGES)
            damage(connection, source, past)
            done.append(damage.__name__)
    return done


def attempts(
    directory: Path, seed: int, count: int = 25
) -> Iterator[tuple[Path, list[str], dict[int, Life]]]:
    """Write a history, and yield copies of it that are damaged, with what was done to them."""
    source = random.Random(seed)
    (directory / "written").mkdir(parents=True)
    written = Histories(directory / "written" / "j.db", source)
    written.run(source.randint(40, 160))
    for attempt in range(count):
        copy = directory / f"damaged-{attempt}"
        shutil.copytree(directory / "written", copy)
        done = damaged_at_random(copy, source, written.past)
        yield copy / "j.db", [f"seed {seed}, attempt {attempt}", *done], written.truth()
        shutil.rmtree(copy)


@pytest.mark.parametrize("seed", range(6))
def test_a_damaged_history_is_served_whole_or_refused(tmp_path: Path, seed: int) -> None:
    told = Counter[str]()
    for path, done, alive in attempts(tmp_path, seed):
        verdict, faults = judge(path, alive)
        assert faults == [], done
        told += verdict
    # A judgement that refuses everything would prove nothing.
    assert told["served"] > 0
    assert told["refused"] + told["not opened"] > 0


# --- Each rule broken: a property that finds none of these is blind -------------------------------


def _everything_vouches(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(cleaning, "MOVED", 0)


def _the_log_begins_where_it_begins(patched: pytest.MonkeyPatch) -> None:
    def first_row(connection: sqlite3.Connection, *_: object) -> int:
        return int(connection.execute("SELECT min(number) FROM log").fetchone()[0] or 1)

    patched.setattr(journals, "first_row", first_row)


def _all_lives_are_one(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(admission, "draw_life", lambda _, owned: log_rows.OWNED * owned)


def _nobody_looks_for_an_owner_that_is_missing(patched: pytest.MonkeyPatch) -> None:
    def of(*given: Any) -> bytes:  # noqa: ANN401 - as the original
        try:
            return honest(*given)
        except CorruptRecordError as error:
            if "missing" in str(error):
                return b""
            raise

    honest = owners.OwnerTable.of
    patched.setattr(owners.OwnerTable, "of", of)


def _any_snapshot_is_the_newest(patched: pytest.MonkeyPatch) -> None:
    patched.setattr(log_index, "stamp_of", lambda _: 0)
    patched.setattr(journals, "stamp_of", lambda _: 0)
    build = log_index.LogIndex.build

    def blind(self: log_index.LogIndex, log: Any, snapshots: Any) -> None:  # noqa: ANN401
        build(self, log, snapshots)
        for channel, reason in list(self.damaged.items()):
            if "not the one" in reason:
                del self.damaged[channel]

    patched.setattr(log_index.LogIndex, "build", blind)


MUTANTS = [
    _everything_vouches,
    _the_log_begins_where_it_begins,
    _all_lives_are_one,
    _nobody_looks_for_an_owner_that_is_missing,
    _any_snapshot_is_the_newest,
]


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_rule_that_is_broken_is_found_out(
    tmp_path: Path, mutant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    assert any(
        judge(path, alive)[1]
        for seed in range(100, 140)
        for path, _, alive in attempts(tmp_path / str(seed), seed)
    )


# --- Each table and column ------------------------------------------------------------------------

VALUES = [None, -1, 0, 1, 2, 2**62, 2**63 - 1, b"", bytes(28), "text"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Histories:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(journals, "_MIN_DEAD", 0)
        patched.setattr(journals, "_CLEAN_RECORDS", 5)
        made = Histories(tmp_path_factory.mktemp("written") / "j.db", random.Random(7))
        made.run(150)
    return made


COLUMNS = [
    (table, column)
    for table, columns in {
        "writers": "epoch strategy opened_at key_id first_row salt previous canary",
        "beginning": "kind seal",
        "log": "number directory payloads",
        "snapshots": "channel sequence_number life taken_at payload",
        "owners": "channel life owner seal",
        "backup": "made_at",
    }.items()
    for column in columns.split()
]


def test_every_column_is_among_them(written: Histories) -> None:
    with closing(sqlite3.connect(written.path)) as connection:
        columns = {
            (table, column)
            for table in tables_of(connection)
            for _, column, *_ in connection.execute(f"PRAGMA table_info({table})")
        }
    assert columns == set(COLUMNS)


Forgery = Callable[[sqlite3.Connection], object]


def set_to(table: str, column: str, value: object, row: int) -> Forgery:
    update = f"UPDATE OR REPLACE {table} SET {column} = ? WHERE rowid = ?"  # noqa: S608
    return lambda connection: connection.execute(update, (value, row))


def put(table: str, row: Row) -> Forgery:
    marks = ", ".join("?" * len(row))
    return lambda connection: connection.execute(
        f"INSERT OR REPLACE INTO {table} VALUES ({marks})",  # noqa: S608
        row,
    )


def gone(table: str, row: int) -> Forgery:
    delete = f"DELETE FROM {table} WHERE rowid = ?"  # noqa: S608
    return lambda connection: connection.execute(delete, (row,))


def swapped(table: str, column: str, first: int, second: int) -> Forgery:
    def swap(connection: sqlite3.Connection) -> None:
        select = f"SELECT {column} FROM {table} WHERE rowid = ?"  # noqa: S608
        one, two = (connection.execute(select, (row,)).fetchone()[0] for row in (first, second))
        # Out of each other's way, where no two may be the same.
        set_to(table, column, -7 if isinstance(one, int) else b"-", first)(connection)
        rowid = -7 if connection.execute(select, (first,)).fetchone() is None else first
        set_to(table, column, one, second)(connection)
        set_to(table, column, two, rowid)(connection)

    return swap


def forgeries(
    connection: sqlite3.Connection, table: str, column: str, past: list[Row]
) -> Iterator[tuple[str, Forgery]]:
    """Yield what can be done to a column, named, for the first, a middle and the last row."""
    rows = [row for (row,) in connection.execute(f"SELECT rowid FROM {table}")]  # noqa: S608
    names = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")]
    position = names.index(column)
    for row in sorted({rows[0], rows[len(rows) // 2], rows[-1]} if rows else ()):
        current = connection.execute(f"SELECT * FROM {table} WHERE rowid = ?", (row,)).fetchone()  # noqa: S608
        for value in VALUES + [held[position] for held in past[:: max(len(past) // 8, 1)]]:
            yield f"{row} := {value!r}"[:60], set_to(table, column, value, row)
        for value in (-1, 3, 2**40):
            # A copy of the row that differs in this column alone.
            copy = (*current[:position], value, *current[position + 1 :])
            yield f"{row} again, with {value}", put(table, copy)
        yield f"{row} gone", gone(table, row)
        for other in rows[:: max(len(rows) // 4, 1)]:
            if other != row:
                yield f"{row} and {other} swapped", swapped(table, column, row, other)
    for held in past[:: max(len(past) // 15, 1)]:
        yield "an older row put back", put(table, held)


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_forged_column_takes_no_channel_back(
    written: Histories, tmp_path: Path, table: str, column: str
) -> None:
    told = Counter[str]()
    with closing(sqlite3.connect(written.path)) as connection:
        planned = list(forgeries(connection, table, column, written.past[table]))
    for number, (name, forge) in enumerate(planned):
        copy = tmp_path / str(number)
        shutil.copytree(written.path.parent, copy)
        try:
            with closing(sqlite3.connect(copy / "j.db")) as connection, connection:
                forge(connection)
        except (sqlite3.IntegrityError, OverflowError):
            continue
        verdict, faults = judge(copy / "j.db", written.truth())
        assert faults == [], name
        told += verdict
        shutil.rmtree(copy)
    assert told["served"] + told["refused"] + told["not opened"] > 0 or table == "backup"


@pytest.mark.parametrize("value", [0, 1, 2, 4, 99, -1])
@pytest.mark.parametrize("pragma", ["user_version", "application_id"])
def test_a_file_of_another_number_is_not_opened(
    written: Histories, tmp_path: Path, pragma: str, value: int
) -> None:
    shutil.copytree(written.path.parent, tmp_path / "copy")
    path = tmp_path / "copy" / "j.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA {pragma} = {value}")
    before = path.read_bytes()
    with pytest.raises(JournalVersionError):
        open_at(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON log BEGIN DELETE FROM log WHERE number = new.number; END",
        "CREATE VIEW v AS SELECT * FROM log",
        "CREATE TABLE t (x)",
        "CREATE INDEX i ON log (directory)",
        "DROP TABLE owners",
        "ALTER TABLE snapshots ADD COLUMN x",
    ],
)
def test_a_file_with_other_tables_is_not_opened(
    written: Histories, tmp_path: Path, statement: str
) -> None:
    shutil.copytree(written.path.parent, tmp_path / "copy")
    path = tmp_path / "copy" / "j.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(statement)
    with pytest.raises(JournalVersionError, match="which tables it has"):
        open_at(path)


def test_what_a_failed_commit_has_left_never_passes_for_what_was_written_after_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "j.db"
    journal = open_at(path)
    journal.commit(Batch([Record(1, 1, RecordKind.CHANGE, b"first")]))
    connection = journal._usable().connection
    # As a disk does that fails at the commit: the file holds the row, and then it doesn't.
    journal.commit(Batch([Record(1, 2, RecordKind.CHANGE, b"never acknowledged")]))
    left = connection.execute("SELECT * FROM log WHERE number = 2").fetchone()
    connection.execute("DELETE FROM log WHERE number = 2")
    journal._abandon()
    journal._lease.renew(1)
    journal.commit(Batch([Record(1, 2, RecordKind.CHANGE, b"acknowledged")]))
    journal.close()
    with closing(sqlite3.connect(path)) as forged, forged:
        forged.execute("INSERT OR REPLACE INTO log VALUES (?, ?, ?)", left)
    journal = open_at(path)
    with pytest.raises(CorruptRecordError):
        journal.recover(1)
    journal.close()
    assert "failed" in verify(path, KEYS, limit=None).log.described[0]


def test_epochs_of_another_copy_of_the_journal_do_not_fit_in(tmp_path: Path) -> None:
    """Two copies of a directory go on, each by itself; one's rows don't pass for the other's."""
    for name in ("one", "two"):
        if name == "two":
            shutil.copytree(tmp_path / "start", tmp_path / name)
        else:
            (tmp_path / "start").mkdir()
            open_at(tmp_path / "start" / "j.db").close()
            shutil.copytree(tmp_path / "start", tmp_path / name)
        for number in range(1, 5):
            journal = open_at(tmp_path / name / "j.db")
            payload = name.encode()
            journal.commit(Batch([Record(1, number, RecordKind.CHANGE, payload)]))
            journal.close()
    path = tmp_path / "one" / "j.db"
    with closing(sqlite3.connect(path)) as forged:
        forged.execute("ATTACH ? AS two", (str(tmp_path / "two" / "j.db"),))
        with forged:
            for table, column in (("writers", "epoch"), ("log", "number")):
                last = forged.execute(f"SELECT max({column}) FROM {table}").fetchone()  # noqa: S608
                forged.execute(
                    f"INSERT OR REPLACE INTO {table} SELECT * FROM two.{table} WHERE {column} = ?",  # noqa: S608
                    last,
                )
    with pytest.raises(JournalVersionError, match="who wrote it"):
        open_at(path)
