"""Damage at rest: a journal that is not what was written, page by page, row by row, as a whole.

A channel is served as it was left or refused as damaged; the others are served; or else the whole
journal is refused at its opening, with a journal's error.
"""

import random
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from connect_actor.persistence.contract import (
    Batch,
    JournalError,
    JournalVersionError,
    Record,
    RecordKind,
    Snapshot,
)
from connect_actor.persistence.sqlite import journal as journals
from tests.faults.conftest import SEED, THOROUGH
from tests.faults.disk import Files, load, save
from tests.faults.error_loop import scratch
from tests.faults.witness import OPENING, Left, Verdict, judge, leave
from tests.support.journals import EAGER_UPKEEP, MASTER_KEY, sqlite_journal

pytestmark = pytest.mark.timeout(3_600 if THOROUGH else 600)

_CHANNELS = 3
_PAGE = 8_192

Try = Callable[[Files], Awaitable[Verdict]]


def cleaned(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove from a journal what no recovery needs."""
    for name, value in EAGER_UPKEEP.items():
        monkeypatch.setattr(journals, name, value)
    journal = sqlite_journal(directory / "journal.db")
    while journal.upkeep():
        pass
    journal.close()
    monkeypatch.undo()


@pytest.fixture
async def left(tmp_path: Path) -> Left:
    return await leave(tmp_path, _CHANNELS)


@pytest.fixture
def attempt(left: Left) -> Try:
    """Say what becomes of the channels if other files are in place of those that were left."""

    async def attempt(files: Files) -> Verdict:
        with scratch() as directory:
            save(files, Path(directory))
            return await judge(Path(directory), left.witnesses)

    return attempt


def allowed(verdict: Verdict) -> bool:
    return set(verdict) <= {"served", "refused", OPENING}


async def test_an_undamaged_journal_is_served(left: Left, attempt: Try) -> None:
    assert await attempt(left.files) == {"served": _CHANNELS}


# --- Pages ----------------------------------------------------------------------------------------


def damaged_pages(database: bytes, source: random.Random, flips: int) -> Iterator[bytes]:
    """Yield the database cut off at each page, with it zeroed, replaced, and with bits flipped."""
    for begin in range(0, len(database), _PAGE):
        rest = database[begin + _PAGE :]
        yield database[:begin]
        yield database[:begin] + bytes(_PAGE) + rest
        yield database[:begin] + source.randbytes(_PAGE) + rest
        other = source.randrange(len(database) // _PAGE) * _PAGE
        yield database[:begin] + database[other : other + _PAGE] + rest
        header = begin or 100
        for turn in range(flips):
            damaged = bytearray(database)
            at = header + source.randrange(40) if turn % 2 else begin + source.randrange(_PAGE)
            damaged[at] ^= 1 << source.randrange(8)
            yield bytes(damaged)


@pytest.fixture
async def verdicts(left: Left, attempt: Try) -> list[Verdict | Exception]:
    """Damage one page after the other."""
    found: list[Verdict | Exception] = []
    source = random.Random(SEED)
    pages = left.files["journal.db"]
    for damaged in damaged_pages(pages, source, 150 if THOROUGH else 8):
        try:
            found.append(await attempt({**left.files, "journal.db": damaged}))
        except (sqlite3.Error, TypeError) as error:
            found.append(error)
    told = Counter(
        type(verdict).__name__ if isinstance(verdict, Exception) else word
        for verdict in found
        for word in (verdict if isinstance(verdict, Counter) else ("escaped",))
    )
    print(f"seed {SEED}: {len(found)} damaged pages: {dict(told)}")  # noqa: T201
    return found


async def test_no_damaged_page_leads_to_a_wrong_message(
    verdicts: list[Verdict | Exception],
) -> None:
    served = [verdict for verdict in verdicts if isinstance(verdict, Counter)]
    assert not any(verdict["wrong"] for verdict in served)
    assert sum(verdict["served"] == _CHANNELS for verdict in served) > 0
    assert sum(0 < verdict["served"] < _CHANNELS for verdict in served) > 0


async def test_a_damaged_page_is_refused_for_what_it_is(
    verdicts: list[Verdict | Exception],
) -> None:
    # A page that can be read no more can't be written either, and one with another epoch on it
    # speaks of another writer, to whom this one gives way.
    told = {"served", "refused", OPENING, "WriteUncertainError", "WriteRejectedError", "unreadable"}
    assert [v for v in verdicts if isinstance(v, Exception) or not set(v) <= told] == []


# --- Rows -----------------------------------------------------------------------------------------

Damage = Callable[[sqlite3.Connection], object]

_NEWEST = "(channel, sequence_number) IN (SELECT channel, max(sequence_number) FROM snapshots"


def _swap(connection: sqlite3.Connection) -> None:
    rows = connection.execute("SELECT number, directory, payloads FROM log").fetchall()
    for (number, *_), (_, directory, payloads) in (rows[:2], rows[1::-1]):
        connection.execute(
            "UPDATE log SET directory = ?, payloads = ? WHERE number = ?",
            (directory, payloads, number),
        )


def _sql(statement: str) -> Damage:
    return lambda connection: connection.execute(statement)


ROWS: dict[str, Damage] = {
    "a row is missing": _sql("DELETE FROM log WHERE number = (SELECT min(number) + 1 FROM log)"),
    "two rows are swapped": _swap,
    "a row is cut off": _sql("UPDATE log SET payloads = substr(payloads, 1, 20)"),
    "a directory is cut off": _sql("UPDATE log SET directory = substr(directory, 1, 40)"),
    "payloads are exchanged": _sql("UPDATE log SET payloads = (SELECT max(payloads) FROM log)"),
    "a snapshot is damaged": _sql(
        f"UPDATE snapshots SET payload = zeroblob(100) WHERE {_NEWEST})"  # noqa: S608 - a constant
    ),
    "a snapshot has another's place": _sql(
        "UPDATE snapshots SET payload = (SELECT max(payload) FROM snapshots)"
    ),
    "a snapshot has another number": _sql(
        "UPDATE snapshots SET sequence_number = sequence_number + 100"
    ),
    "a snapshot has another time": _sql("UPDATE snapshots SET taken_at = taken_at + 1"),
    "a snapshot is no blob": _sql("UPDATE snapshots SET payload = 1"),
}

LOSSES: dict[str, Damage] = {
    "the newest snapshot of each channel is missing": _sql(
        f"DELETE FROM snapshots WHERE {_NEWEST} GROUP BY channel)"  # noqa: S608 - a constant
    ),
    "all snapshots are missing": _sql("DELETE FROM snapshots"),
    "an older snapshot has a newer one's place": _sql(
        "DELETE FROM snapshots WHERE (channel, sequence_number) NOT IN"
        " (SELECT channel, min(sequence_number) FROM snapshots GROUP BY channel)"
    ),
}


def damaged_rows(left: Left, damage: Damage) -> Files:
    with scratch() as directory:
        path = Path(directory, "journal.db")
        save(left.files, path.parent)
        connection = sqlite3.connect(path)
        with connection:
            damage(connection)
        connection.close()
        return {**left.files, "journal.db": path.read_bytes()}


@pytest.mark.parametrize("name", ROWS)
async def test_a_damaged_row_is_noticed(left: Left, attempt: Try, name: str) -> None:
    verdict = await attempt(damaged_rows(left, ROWS[name]))
    assert allowed(verdict), verdict


@pytest.mark.parametrize("name", LOSSES)
async def test_lost_snapshots_are_noticed(left: Left, attempt: Try, name: str) -> None:
    damaged = damaged_rows(left, LOSSES[name])
    verdict = await attempt(damaged)
    assert allowed(verdict), verdict
    # What was replaced is gone, so there may be no older one.
    assert verdict["refused"] > 0 or damaged == left.files


@pytest.mark.parametrize(
    "name",
    [
        "the newest snapshot of each channel is missing",
        "all snapshots are missing",
    ],
)
async def test_a_lost_snapshot_that_was_all_there_is_is_noticed(
    left: Left, attempt: Try, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned(tmp_path, monkeypatch)
    only = Left({**left.files, "journal.db": (tmp_path / "journal.db").read_bytes()}, ())
    verdict = await attempt(damaged_rows(only, LOSSES[name]))
    assert allowed(verdict), verdict


async def test_an_older_snapshot_that_was_put_back_is_noticed(
    left: Left, attempt: Try, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqlite3.connect(tmp_path / "journal.db") as connection:
        older = connection.execute(
            "SELECT * FROM snapshots WHERE (channel, sequence_number) IN"
            " (SELECT channel, min(sequence_number) FROM snapshots GROUP BY channel)"
        ).fetchall()
    connection.close()
    cleaned(tmp_path, monkeypatch)
    only = Left({**left.files, "journal.db": (tmp_path / "journal.db").read_bytes()}, ())

    def put_back(connection: sqlite3.Connection) -> None:
        connection.execute("DELETE FROM snapshots")
        connection.executemany("INSERT INTO snapshots VALUES (?, ?, ?, ?, ?)", older)

    verdict = await attempt(damaged_rows(only, put_back))
    assert allowed(verdict), verdict


def test_a_damaged_channel_in_a_batch_harms_no_other(tmp_path: Path) -> None:
    def record(channel: int, number: int) -> Record:
        return Record(channel, number, RecordKind.STATE, b"state")

    path = tmp_path / "journal.db"
    journal = sqlite_journal(path)
    journal.commit(Batch([record(1, 1)], [Snapshot(1, 1, 1, b"whole")]))
    journal.commit(Batch([record(2, 1)]))
    journal.commit(Batch([record(3, 1)]))
    journal.close()
    with sqlite3.connect(path) as connection:
        # Whose records these were can't be told: they may have been channel 1's newest.
        connection.execute("UPDATE log SET directory = zeroblob(50) WHERE number = 2")
    connection.close()
    journal = sqlite_journal(path)
    try:
        rejections = journal.commit(Batch([record(1, 2), record(3, 2)]))
        assert [rejection.entry for rejection in rejections] == [record(1, 2)]
        assert journal.highest_sequence_number(3) == 2
    finally:
        journal.close()


async def test_rows_of_another_journal_under_the_same_key_are_noticed(
    left: Left, attempt: Try, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = await leave(tmp_path / "other", _CHANNELS, seed=50)
    foreign = tmp_path / "foreign.db"
    foreign.write_bytes(other.files["journal.db"])

    def exchange(connection: sqlite3.Connection) -> None:
        connection.commit()
        connection.execute("ATTACH ? AS other", (str(foreign),))
        connection.execute("INSERT OR REPLACE INTO log SELECT * FROM other.log WHERE number = 3")

    verdict = await attempt(damaged_rows(left, exchange))
    assert allowed(verdict), verdict


# --- The whole ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"not a database at all, but long enough to look at" * 200, "not a journal"),
        (b"SQLite format 3\0" + bytes(100), "not a journal"),
    ],
)
def test_what_is_no_journal_is_refused(tmp_path: Path, content: bytes, advice: str) -> None:
    (tmp_path / "journal.db").write_bytes(content)
    with pytest.raises(JournalVersionError, match=advice):
        sqlite_journal(tmp_path / "journal.db")
    assert (tmp_path / "journal.db").read_bytes() == content


async def test_a_journal_of_another_key_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    left = await leave(tmp_path, 1)
    with pytest.raises(JournalVersionError, match="sealing_key_file"):
        sqlite_journal(tmp_path / "journal.db", key=bytes(32))
    assert await judge(tmp_path, left.witnesses, key=MASTER_KEY) == {"served": 1}


@pytest.mark.parametrize("pragma", ["user_version", "application_id"])
async def test_a_journal_of_another_format_is_refused_and_left_as_it_is(
    left: Left, pragma: str
) -> None:
    files = damaged_rows(left, _sql(f"PRAGMA {pragma} = 99"))
    with scratch() as directory:
        save(files, Path(directory))
        with pytest.raises(JournalVersionError):
            sqlite_journal(Path(directory, "journal.db"))
        assert load(Path(directory))["journal.db"] == files["journal.db"]


async def test_a_truncated_wal_is_noticed(tmp_path: Path) -> None:
    left = await leave(tmp_path, _CHANNELS, crashed=True)
    wal = left.files["journal.db-wal"]
    lengths = [*range(0, len(wal), len(wal) // (200 if THOROUGH else 15)), len(wal)]
    verdicts = []
    for length in lengths:
        with scratch() as directory:
            save({**left.files, "journal.db-wal": wal[:length]}, Path(directory))
            verdicts.append(await judge(Path(directory), left.witnesses))
    print(f"{len(verdicts)} lengths of the WAL: {dict(sum(verdicts, Counter()))}")  # noqa: T201
    assert verdicts[-1] == {"served": _CHANNELS}
    assert all(allowed(verdict) for verdict in verdicts)


def test_a_journal_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="can't be opened"):
        sqlite_journal(tmp_path)
