"""Expired channels that nobody asks for again are ended; nobody else is in their way."""

import asyncio
import os
import sqlite3
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import pytest

from connect_actor.actors import expiry
from connect_actor.actors.commands import Encrypt, Restore
from connect_actor.actors.expiry import ending_expired_channels
from connect_actor.actors.phases.running import EXPIRED_IS_KEPT
from connect_actor.client import ConnectClient, Identity
from connect_actor.errors import ChannelExpiredError, ChannelNotFoundError
from connect_actor.persistence.contract import CorruptRecordError, Journal
from connect_actor.persistence.memory import MemoryJournal
from connect_actor.persistence.sqlite import journal as journals
from connect_actor.process.paths import journal_file
from connect_actor.protocol.handshake import DEFAULT_LIFETIME, ChannelLimits
from connect_loadgen.service.process import ServiceOptions, ServiceProcess
from tests.support.channels import NOW
from tests.support.house import House, answer, until
from tests.support.journals import ScriptedJournal, sqlite_journal
from tests.support.process import scrape
from tests.support.virtual_time import NoThread, VirtualClock, run_virtually

ALICE, BOB = b"a" * 16, b"b" * 16
GONE = NOW + int(DEFAULT_LIFETIME * 1_000_000) + EXPIRED_IS_KEPT
"""When a channel that was left alone right after its handshake leaves the journal."""
A_PASS = 180.0
"""Virtual seconds, within which the first pass over a few channels is over, and no other begins."""

Open = Callable[[], Journal]


@pytest.fixture(params=["memory", "sqlite"])
def open_journal(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    if request.param == "sqlite":
        return lambda: sqlite_journal(tmp_path / "journal.db")
    kept = MemoryJournal()
    return lambda: kept


def virtually(script: Callable[[], Coroutine[None, None, None]]) -> None:
    async def work(_: VirtualClock) -> None:
        await script()

    run_virtually(work)


def house_on(journal: Journal, now: int = NOW, *, max_live_actors: int = 1_000) -> House:
    house = House(journal, thread=NoThread(), idle_timeout=1e6, max_live_actors=max_live_actors)
    house.now = now
    return house


async def left_alone(journal: Journal, count: int, now: int = NOW, owner: bytes = b"") -> list[int]:
    """Make channels that are used once and never again; return their ids, in order."""
    house = house_on(journal, now)
    ends = [await house.establish((now - NOW + 1) * 100 + seed, owner) for seed in range(count)]
    for end in ends:
        await end.encrypt(b"x")
    await house.close()
    return sorted(end.connect_id for end in ends)


async def late_house(
    count: int, owner: bytes = b"", *, max_live_actors: int = 1_000
) -> tuple[House, list[int]]:
    """Return a house whose journal holds so many channels that were left alone and have expired."""
    journal = ScriptedJournal()
    channels = await left_alone(journal, count, owner=owner)
    return house_on(journal, GONE, max_live_actors=max_live_actors), channels


async def sweep(house: House, seconds: float = A_PASS) -> None:
    async with ending_expired_channels(house.router, house.environment):
        await asyncio.sleep(seconds)


def test_expired_channels_leave_the_journal_and_no_other_is_loaded(open_journal: Open) -> None:
    async def script() -> None:
        old = await left_alone(open_journal(), 3, owner=ALICE)
        old += await left_alone(open_journal(), 2, NOW - 1, owner=BOB)
        young = await left_alone(open_journal(), 4, NOW + 1, owner=BOB)
        house = house_on(open_journal(), GONE)
        await sweep(house)
        assert house.journal.channels(-1, 100) == young
        assert [house.journal.highest_sequence_number(channel) for channel in old] == [0] * 5
        assert (house.journal.owned(ALICE), house.journal.owned(BOB)) == (0, 4)
        assert (house.statistics.started, house.statistics.expired) == (5, 5)
        assert house.router.live == 0
        await house.close()

    virtually(script)


def test_nothing_of_an_expired_channel_is_left_in_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "ERASED_WITHIN", 0.0)
    path = tmp_path / "journal.db"

    def stored() -> list[bytes]:
        with sqlite3.connect(path) as connection:
            blobs = [blob for (blob,) in connection.execute("SELECT payload FROM snapshots")]
        connection.close()
        return blobs

    def all_bytes() -> bytes:
        return b"".join(file.read_bytes() for file in tmp_path.iterdir())

    async def script() -> None:
        await left_alone(sqlite_journal(path), 3)
        blobs = stored()
        assert len(blobs) == 3
        house = house_on(sqlite_journal(path), GONE)
        await sweep(house)
        await house.close()
        assert stored() == []
        everything = all_bytes()
        assert [blob in everything for blob in blobs] == [False] * 3

    virtually(script)


def test_a_channel_whose_sealed_expiry_is_later_is_loaded_and_stays(open_journal: Open) -> None:
    async def script() -> None:
        channels = await left_alone(open_journal(), 2)
        house = house_on(open_journal(), GONE - 1)
        # Channels live shorter than they did when these were made.
        house.environment = replace(house.environment, limits=ChannelLimits(lifetime=1.0))
        await sweep(house)
        assert (house.statistics.started, house.statistics.expired) == (2, 0)
        assert house.journal.channels(-1, 100) == channels
        await house.close()

    virtually(script)


def test_a_channel_in_use_is_left_in_peace() -> None:
    async def script() -> None:
        house, (channel,) = await late_house(1)
        with pytest.raises(ChannelExpiredError):
            await answer(house.ask(channel, Restore()))
        await sweep(house)
        assert (house.statistics.passivated, house.statistics.started) == (0, 1)
        assert house.journal.channels(-1, 100) == [channel]
        await house.close()

    virtually(script)


def test_who_asks_for_a_channel_that_is_being_ended_is_told_that_there_is_none() -> None:
    async def script() -> None:
        house, (channel,) = await late_house(1, owner=ALICE)
        house.router.call_up(channel, ALICE)
        for owner in (ALICE, BOB):
            with pytest.raises(ChannelNotFoundError):
                await answer(house.ask(channel, Restore(), owner))
        assert house.statistics.expired == 1
        await house.close()

    virtually(script)


def test_who_has_already_asked_for_a_channel_gets_it() -> None:
    async def script() -> None:
        journal = ScriptedJournal()
        house = house_on(journal)
        end = await house.establish(owner=ALICE)
        await house.close()
        house = end.house = house_on(journal)
        reply = end.ask(Encrypt(b"x"))
        house.router.call_up(end.connect_id, ALICE)
        assert end.open(await answer(reply)) == b"x"
        assert house.statistics.passivated == 0
        await house.close()

    virtually(script)


@pytest.mark.parametrize("how", ["payload", "time", "owner"])
def test_a_damaged_channel_stays_and_stops_nothing(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal.db"
    damage = {
        "payload": "UPDATE snapshots SET payload = zeroblob(500) WHERE channel = ?",
        "time": "UPDATE snapshots SET taken_at = 1 WHERE channel = ?",
        "owner": "UPDATE owners SET seal = zeroblob(40) WHERE channel = ?",
    }

    async def script() -> None:
        _, damaged, _ = await left_alone(sqlite_journal(path), 3, owner=ALICE)
        with sqlite3.connect(path) as connection:
            connection.execute(damage[how], (damaged,))
        connection.close()
        house = house_on(sqlite_journal(path), GONE)
        await sweep(house)
        assert house.statistics.expired == 2
        assert house.journal.channels(-1, 100) == [damaged]
        assert house.router.live == 0
        await house.close()

    virtually(script)
    # Only what nobody had known before is worth an error.
    assert caplog.text.count("the channel can't be loaded") == (how == "payload")


def test_a_restart_in_the_midst_loses_nothing(
    open_journal: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "_LOOKS", 3)

    async def script() -> None:
        await left_alone(open_journal(), 10)
        ended = []
        for seconds in (61.5, A_PASS):
            house = house_on(open_journal(), GONE)
            await sweep(house, seconds)
            ended.append(house.statistics.expired)
            left = house.journal.channels(-1, 100)
            await house.close()
        assert ended[0] in range(1, 4)
        assert sum(ended) == 10
        assert left == []

    virtually(script)


def test_an_end_that_is_not_durable_is_for_the_next_pass() -> None:
    async def script() -> None:
        house, channels = await late_house(2)
        assert isinstance(house.journal, ScriptedJournal)
        house.journal.fail_before = [True]
        async with ending_expired_channels(house.router, house.environment):
            await asyncio.sleep(A_PASS)
            assert house.journal.channels(-1, 100) == channels[:1]
            await asyncio.sleep(3_600.0)
        assert house.journal.channels(-1, 100) == []
        assert house.statistics.expired == 2
        await house.close()

    virtually(script)


def test_nothing_is_started_while_the_service_drains() -> None:
    async def script() -> None:
        house, channels = await late_house(2)
        await house.router.drain()
        await sweep(house)
        assert house.statistics.started == 0
        assert house.journal.channels(-1, 100) == channels
        await house.close()

    virtually(script)


def test_nobody_has_to_make_room() -> None:
    async def script() -> None:
        house, channels = await late_house(2, max_live_actors=1)
        live = await house.establish(99)
        async with ending_expired_channels(house.router, house.environment):
            await asyncio.sleep(A_PASS)
            assert (house.statistics.started, house.statistics.passivated) == (1, 0)
            assert live.open(await live.encrypt(b"x")) == b"x"
            await house.router.drain()
        assert set(channels) < set(house.journal.channels(-1, 100))
        await house.close()

    virtually(script)


def test_it_waits_while_others_are_loading() -> None:
    async def script() -> None:
        house, _ = await late_house(3)
        taken = house.environment.permits.acquire(lambda: None, lambda _: None)
        async with ending_expired_channels(house.router, house.environment):
            await asyncio.sleep(A_PASS)
            assert house.statistics.started == 0
            taken.give_back()
            await asyncio.sleep(A_PASS)
        assert house.statistics.expired == 3
        await house.close()

    virtually(script)


def test_it_waits_while_many_writes_do(monkeypatch: pytest.MonkeyPatch) -> None:
    async def script() -> None:
        house, _ = await late_house(3)
        writes = [None] * (expiry._FEW_WRITES + 1)
        with monkeypatch.context() as busy:
            busy.setattr(type(house.committer), "waiting", property(lambda _: len(writes)))
            async with ending_expired_channels(house.router, house.environment):
                await asyncio.sleep(A_PASS)
                assert house.statistics.started == 0
                writes.pop()
                await asyncio.sleep(A_PASS)
        assert house.statistics.expired == 3
        await house.close()

    virtually(script)


def test_a_journal_that_can_not_be_read_is_walked_over_another_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def script() -> None:
        house, _ = await late_house(2)

        def unreadable(after: int, limit: int) -> list[int]:
            raise CorruptRecordError(f"a page is damaged behind {after}, of {limit}")

        async with ending_expired_channels(house.router, house.environment):
            with monkeypatch.context() as damaged:
                damaged.setattr(house.journal, "channels", unreadable)
                await asyncio.sleep(A_PASS)
            assert "stopped half-way: a page is damaged behind -1" in caplog.text
            await asyncio.sleep(3_600.0)
        assert house.statistics.expired == 2
        await house.close()

    virtually(script)


# Two days ahead, and in a hurry.
_SERVICE = """
import sys, time
from connect_actor import cli, clock
from connect_actor.actors import expiry
ahead = time.time_ns
time.time_ns = lambda: ahead() + 2 * 86_400 * 10**9
vars(clock)["CONFIRMED_AFTER"] = 0.0
vars(expiry)["_BEFORE_THE_FIRST_PASS"] = 0.0
sys.exit(cli.main())
"""


async def test_the_service_does_it_while_it_runs(tmp_path: Path) -> None:
    options = ServiceOptions(strategy="differential", journal="sqlite", data_dir=tmp_path)
    async with ServiceProcess(options, 30) as service, ConnectClient(service.listen) as client:
        for _ in range(3):
            await client.establish(Identity.generate(os.urandom))
        await service.stop()
    ahead = replace(options, command=(sys.executable, "-c", _SERVICE))
    async with ServiceProcess(ahead, 30) as service:
        await until(lambda: 'expired_total{strategy="differential"} 3.0' in scrape(service.metrics))
        await service.stop()
    with sqlite3.connect(tmp_path / journal_file(0, 1)) as connection:
        assert connection.execute("SELECT count(*) FROM snapshots").fetchone() == (0,)
    connection.close()
