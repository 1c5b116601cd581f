"""What recoveries of many channels share: each row of the log is opened once for all of them."""

from pathlib import Path

import pytest

from connect_actor.persistence import opened_rows
from connect_actor.persistence.contract import Batch, CorruptRecordError
from connect_actor.persistence.opened_rows import OpenedRows
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.persistence.sqlite.reader import SqliteReader
from tests.persistence.journal_conformance import change, snapshot
from tests.support.journals import EAGER_UPKEEP, sqlite_journal

CHANNELS = range(1, 51)
COMMITS = 20


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of all rows that are opened, as they are."""
    numbers: list[int] = []
    original = SqliteReader.open_payloads

    def noted(reader: SqliteReader, number: int, directory: bytes, payloads: bytes) -> bytes:
        numbers.append(number)
        return original(reader, number, directory, payloads)

    monkeypatch.setattr(SqliteReader, "open_payloads", noted)
    return numbers


@pytest.fixture
def journal(tmp_path: Path) -> SqliteJournal:
    """Return a journal, opened anew, in which each row holds a record of every channel."""
    written = sqlite_journal(tmp_path / "j.db")
    for number in range(1, COMMITS + 1):
        assert written.commit(Batch([change(number, channel) for channel in CHANNELS])) == []
    written.close()
    return sqlite_journal(tmp_path / "j.db")


def recover_all(journal: SqliteJournal) -> None:
    for channel in CHANNELS:
        recovery = journal.recover(channel)
        assert list(recovery.records) == [change(n, channel) for n in range(1, COMMITS + 1)]


def test_a_row_is_opened_once_for_all_channels_that_are_recovered(
    journal: SqliteJournal, opened: list[int]
) -> None:
    recover_all(journal)
    assert len(opened) == len(set(opened)) == COMMITS
    journal.close()


def test_opened_rows_go_when_nobody_has_used_them_between_two_steps_of_upkeep(
    journal: SqliteJournal, opened: list[int]
) -> None:
    recover_all(journal)
    journal.upkeep()
    recover_all(journal)
    journal.upkeep()
    assert len(opened) == COMMITS
    journal.upkeep()
    recover_all(journal)
    assert len(opened) == 2 * COMMITS
    journal.close()


def test_rows_that_have_been_cleaned_away_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[int]
) -> None:
    for name, value in EAGER_UPKEEP.items():
        monkeypatch.setattr(f"connect_actor.persistence.sqlite.journal.{name}", value)
    journal = sqlite_journal(tmp_path / "j.db")
    journal.commit(Batch([change(1, 1), change(1, 2)]))
    for number in range(2, 8):
        journal.commit(Batch([change(number, 2)], [snapshot(number, channel=2)]))
    assert list(journal.recover(1).records) == [change(1, 1)]
    assert opened == [1]
    rows = journal._usable().opened_rows
    assert rows.get(1) is not None
    journal.upkeep()
    assert rows.get(1) is None
    # It has been appended anew.
    assert list(journal.recover(1).records) == [change(1, 1)]
    assert opened[-1] > 1
    journal.close()


def test_a_row_that_is_damaged_is_refused_to_every_channel(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(reader: SqliteReader, number: int, directory: bytes, payloads: bytes) -> bytes:
        del reader, directory, payloads
        raise CorruptRecordError(f"row {number} is damaged")

    monkeypatch.setattr(SqliteReader, "open_payloads", refuse)
    for channel in CHANNELS:
        with pytest.raises(CorruptRecordError, match=f"channel {channel}: record {COMMITS}"):
            journal.recover(channel)
    journal.close()


def test_opened_rows_are_kept_up_to_the_limit_and_the_first_ones_go_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opened_rows, "MAX_BYTES", 10)
    rows = OpenedRows()
    rows.keep(1, bytes(4))
    rows.keep(2, bytes(6))
    assert [rows.get(number) for number in (1, 2)] == [bytes(4), bytes(6)]
    rows.keep(3, b"x")
    assert [rows.get(number) for number in (1, 2, 3)] == [None, bytes(6), b"x"]
    rows.keep(4, bytes(11))
    assert [rows.get(number) for number in (2, 3, 4)] == [bytes(6), b"x", None]


def test_records_of_rows_beyond_the_limit_are_read_all_the_same(
    journal: SqliteJournal, monkeypatch: pytest.MonkeyPatch, opened: list[int]
) -> None:
    monkeypatch.setattr(opened_rows, "MAX_BYTES", 0)
    recover_all(journal)
    assert len(opened) == COMMITS * len(CHANNELS)
    journal.close()
