"""Persistence metrics: commits, records, snapshots, and what the kernel wrote."""

from pathlib import Path

import pytest

from connect_actor.actors import dispatcher
from connect_actor.actors.commands import Encrypt
from connect_actor.errors import WriteRejectedError, WriteUncertainError
from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.contract import Batch, Record, RecordKind
from connect_actor.persistence.sqlite.journal import SqliteJournal
from tests.support.house import House, answer, until
from tests.support.journals import Script
from tests.support.meter import Meter


async def test_a_commit_counts_with_its_records_and_its_duration(
    house: House, journal: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "PASS_SECONDS", 10.0)  # however slow the machine is
    channels = [await house.establish(seed) for seed in range(5)]
    meter = Meter.of(house)
    replies = [channel.ask(Encrypt(b"x")) for channel in channels]
    for reply in replies:
        await answer(reply)
    assert meter.grown("connect_journal_commits_total") == 1
    assert meter.grown("connect_journal_records_total") == 5
    records = "connect_journal_commit_records"
    assert meter.grown(f"{records}_count") == 1
    assert meter.grown(f"{records}_sum") == 5
    assert meter.grown(f"{records}_bucket", le="4.0") == 0
    assert meter.grown(f"{records}_bucket", le="8.0") == 1
    assert meter.grown("connect_journal_commit_duration_seconds_count") == 1
    assert meter.grown("connect_journal_commit_duration_seconds_sum") > 0
    sizes = [len(record.payload) for record in journal.all_records[-5:]]
    assert meter.grown("connect_journal_record_bytes_total") == sum(sizes)


async def test_writes_that_wait_are_told(house: House, journal: Script) -> None:
    channels = [await house.establish(seed) for seed in range(4)]
    meter = Meter.of(house)
    journal.entered.clear()
    journal.gate.clear()
    replies = [channels[0].ask(Encrypt(b"x"))]
    await until(journal.entered.is_set)
    replies += [channel.ask(Encrypt(b"x")) for channel in channels[1:]]
    await until(lambda: meter.value("connect_journal_waiting_writes") == 3)
    journal.gate.set()
    for reply in replies:
        await answer(reply)
    assert meter.value("connect_journal_waiting_writes") == 0


async def test_a_failed_commit_counts_as_a_failure_and_as_no_commit(
    house: House, journal: Script
) -> None:
    channel = await house.establish()
    meter = Meter.of(house)
    journal.fail_before.append(True)
    with pytest.raises(WriteUncertainError):
        await channel.encrypt(b"x")
    assert meter.grown("connect_journal_commit_failures_total") == 1
    assert meter.grown("connect_journal_commits_total") == 0
    assert meter.grown("connect_journal_commit_records_count") == 0
    assert meter.grown("connect_journal_commit_duration_seconds_count") == 0


async def test_a_rejected_record_counts(house: House, journal: Script) -> None:
    channel = await house.establish()
    meter = Meter.of(house)
    journal.commit(Batch([Record(channel.connect_id, 2, RecordKind.CHANGE, b"another's")]))
    with pytest.raises(WriteRejectedError):
        await channel.encrypt(b"x")
    assert meter.grown("connect_journal_rejections_total") == 1


async def test_a_round_given_up_on_counts(journal: Script) -> None:
    house = House(journal, journal_timeout=0.05)
    channel = await house.establish()
    meter = Meter.of(house)
    journal.gate.clear()
    with pytest.raises(WriteUncertainError):
        await channel.encrypt(b"x")
    assert meter.grown("connect_journal_timeouts_total") == 1
    journal.gate.set()
    await house.close()


async def test_snapshots_and_deletions_count(journal: Script) -> None:
    house = House(journal, snapshot_interval=5)
    meter = Meter.of(house)
    channel = await house.establish()
    for _ in range(10):
        await channel.encrypt(b"x")
    assert meter.grown("connect_journal_snapshots_total") == 3
    sizes = [len(snapshot.payload) for snapshot in journal.all_snapshots]
    assert meter.grown("connect_journal_snapshot_bytes_total") == sum(sizes)
    assert meter.grown("connect_journal_records_deleted_total") == 10
    assert meter.grown("connect_journal_snapshots_deleted_total") == 2
    assert meter.value("connect_journal_disk_bytes") == 0
    await house.close()


def size_of(directory: Path) -> int:
    """What of a journal is on disk, and grows."""
    return sum((directory / name).stat().st_size for name in ("journal.db", "journal.db-wal"))


async def test_the_size_of_the_journals_files_is_told(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    journal = SqliteJournal(
        directory / "journal.db", keys=KeyRing.of(bytes(32)), strategy="differential"
    )
    house = House(journal)
    await house.establish()
    await until(house.committer._idle.is_set)
    told = Meter.of(house).value("connect_journal_disk_bytes")
    assert told == size_of(directory) > 0
    await house.close()
