"""Actor metrics: lives, recoveries, mailboxes and changes."""

import asyncio
import threading

import pytest

from connect_actor.actors import dispatcher
from connect_actor.actors.commands import Close, Encrypt, Restore
from connect_actor.actors.connect import ConnectActor
from connect_actor.actors.dispatcher import DEEPEST
from connect_actor.actors.router import _Live
from connect_actor.errors import (
    ActorCrashedError,
    ChannelDamagedError,
    ChannelNotFoundError,
    OverloadedError,
    WriteUncertainError,
)
from connect_actor.persistence.contract import CorruptRecordError
from connect_actor.persistence.strategies import Differential
from tests.support.house import House, answer, until
from tests.support.journals import Script
from tests.support.meter import Meter
from tests.support.process import PATIENCE


async def test_a_channels_whole_life_counts_once_for_each_of_its_steps(
    journal: Script,
) -> None:
    house = House(journal, idle_timeout=0.05)
    meter = Meter.of(house)
    channel = await house.establish()
    assert meter.grown("connect_channels_established_total") == 1
    assert meter.grown("connect_actor_starts_total") == 1
    assert meter.value("connect_actors_live") == 1
    assert meter.grown("connect_actor_recoveries_total") == 0
    await channel.encrypt(b"x")
    await until(lambda: meter.value("connect_actors_live") == 0)
    assert meter.grown("connect_actor_passivations_total") == 1
    await channel.encrypt(b"x")
    assert meter.grown("connect_actor_starts_total") == 2
    assert meter.grown("connect_actor_recoveries_total") == 1
    await answer(channel.ask(Close()))
    await until(lambda: meter.value("connect_actors_live") == 0)
    assert meter.grown("connect_channels_closed_total") == 1
    assert meter.grown("connect_actor_crashes_total") == 0
    await house.close()


async def test_a_recovery_counts_its_records_and_its_duration(journal: Script) -> None:
    house = House(journal, snapshot_interval=4)
    channel = await house.establish_in_step()
    for _ in range(6):
        await channel.encrypt(b"x")
    meter = Meter.of(house)
    journal.fail_before.append(True)
    with pytest.raises(WriteUncertainError):
        await channel.encrypt(b"lost")
    await channel.encrypt(b"x")
    # Records 6 and 7, behind the snapshot at 5.
    assert meter.grown("connect_recovered_records_total") == 2
    assert meter.grown("connect_actor_recoveries_total") == 1
    assert meter.grown("connect_actor_recovery_duration_seconds_count") == 1
    assert meter.grown("connect_actor_recovery_duration_seconds_sum") > 0
    assert meter.grown("connect_actor_discards_total") == 1
    assert meter.grown("connect_actor_starts_total") == 0
    await house.close()


async def test_a_channel_that_can_not_be_loaded_counts_as_a_failure_and_no_recovery(
    house: House, journal: Script
) -> None:
    channel = await house.establish()
    await house.router.drain()
    restarted = House(journal)
    meter = Meter.of(restarted)

    def fail(_: int) -> None:
        raise CorruptRecordError("on purpose")

    journal.on_recover = fail
    with pytest.raises(ChannelDamagedError):
        await answer(restarted.ask(channel.connect_id, Encrypt(b"x")))
    assert meter.grown("connect_actor_recovery_failures_total") == 1
    assert meter.grown("connect_actor_recoveries_total") == 0
    assert meter.grown("connect_actor_recovery_duration_seconds_count") == 0
    assert meter.value("connect_recovery_permits_in_use") == 0


async def test_a_crash_counts_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    channel = await house.establish()
    meter = Meter.of(house)

    def defect(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Differential, "record", defect)
    with pytest.raises(ActorCrashedError):
        await channel.encrypt(b"x")
    assert meter.grown("connect_actor_crashes_total") == 1


async def test_permits_in_use_and_waiting_are_told(journal: Script) -> None:
    house = House(journal)
    channels = [await house.establish(seed) for seed in range(4)]
    await house.close()
    house = House(journal, permits=1)
    meter = Meter.of(house)
    loading, go_on = threading.Event(), threading.Event()

    def hold_up(_: int) -> None:
        loading.set()
        go_on.wait(PATIENCE)

    journal.on_recover = hold_up
    replies = [house.ask(channel.connect_id, Restore()) for channel in channels]
    await until(loading.is_set)
    await until(lambda: meter.value("connect_recovery_permits_waiting") == 3)
    assert meter.value("connect_recovery_permits_in_use") == 1
    go_on.set()
    await asyncio.gather(*(answer(reply) for reply in replies))
    assert meter.value("connect_recovery_permits_waiting") == 0
    assert meter.value("connect_recovery_permits_in_use") == 0
    assert meter.grown("connect_actor_recoveries_total") == 4
    await house.close()


async def test_the_depth_of_a_mailbox_is_what_a_turn_finds(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "TURN_SECONDS", 0.0)  # of one message each
    channel = await house.establish()
    meter = Meter.of(house)
    await channel.encrypt(b"served at once")
    depth = "connect_mailbox_depth"
    assert meter.grown(f"{depth}_count") == meter.grown(f"{depth}_sum") == 1
    meter = Meter.of(house)
    channel.occupy()
    replies = [channel.ask(Encrypt(b"x")) for _ in range(69)]
    for reply in replies:
        await answer(reply)
    assert meter.grown(f"{depth}_count") == 70
    assert meter.grown(f"{depth}_sum") == sum(range(71))
    assert meter.grown(f"{depth}_bucket", le="64.0") == 64
    assert meter.grown(f"{depth}_bucket", le="128.0") == 70


async def test_a_mailbox_deeper_than_its_capacity_counts_as_that_deep(house: House) -> None:
    channel = await house.establish()
    meter = Meter.of(house)
    (live,) = house.router._channels.values()
    assert isinstance(live, _Live)
    reply = channel.ask(Encrypt(b"x"))
    for _ in range(DEEPEST + 10):
        live.mailbox.put_signal(object())
    await answer(reply)
    assert meter.grown("connect_mailbox_depth_bucket", le="4096.0") == meter.grown(
        "connect_mailbox_depth_count"
    )
    assert meter.grown("connect_mailbox_depth_bucket", le="2048.0") < meter.grown(
        "connect_mailbox_depth_count"
    )


async def test_messages_beyond_a_mailboxs_capacity_count_as_rejected(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ConnectActor, "mailbox_capacity", 5)
    channel = await house.establish()
    meter = Meter.of(house)
    channel.occupy()
    replies = [channel.ask(Encrypt(b"x")) for _ in range(7)]
    for reply in replies[:4]:
        await answer(reply)
    for reply in replies[4:]:
        with pytest.raises(OverloadedError):
            await answer(reply)
    assert meter.grown("connect_mailbox_rejections_total") == 3


@pytest.mark.parametrize("strategy", ["full", "cached", "differential"])
async def test_changes_have_the_same_size_whatever_the_strategy_writes_for_them(
    journal: Script, strategy: str
) -> None:
    house = House(journal, strategy=strategy)
    channel = await house.establish()
    meter = Meter.of(house)
    for number in range(30):
        channel.open(await channel.encrypt(b"x"))
        if number % 3 == 0:
            await channel.decrypt(channel.seal(b"y"))
    with pytest.raises(ChannelNotFoundError):
        await answer(house.ask(12_345, Encrypt(b"x")))
    assert meter.grown("connect_changes_total") == 40
    assert meter.grown("connect_journal_records_total") == 40
    change_bytes = meter.grown("connect_change_bytes_total")
    record_bytes = meter.grown("connect_journal_record_bytes_total")
    if strategy == "differential":
        assert change_bytes == record_bytes
    else:
        assert 40 * 4 <= change_bytes < record_bytes / 10
    await house.close()
