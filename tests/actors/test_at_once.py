"""Commands that an idle actor serves at once, and those that have to wait for a turn."""

import os
from collections.abc import AsyncIterator
from unittest.mock import patch

import pytest

from connect_actor.actors import dispatcher as dispatching
from connect_actor.actors.commands import Close, Command, Decrypt, Encrypt, Restore
from connect_actor.actors.work import FREE_WORK
from connect_actor.errors import (
    ActorCrashedError,
    AuthenticationFailedError,
    ConnectError,
    WriteUncertainError,
)
from connect_actor.persistence.strategies import Differential
from connect_actor.reply import AwaitedReply
from tests.actors.test_work import forged
from tests.support.house import House, PeerEnd, answer, until
from tests.support.journals import ScriptedJournal


@pytest.fixture(autouse=True)
def _ample_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "TURN_SECONDS", 60.0)


@pytest.fixture
def journal() -> ScriptedJournal:
    return ScriptedJournal()


@pytest.fixture
async def house(journal: ScriptedJournal) -> AsyncIterator[House]:
    house = House(journal)
    yield house
    journal.gate.set()
    await house.close()


async def outcome(reply: AwaitedReply) -> object:
    """Return an answer, or the refusal."""
    try:
        return await answer(reply)
    except ConnectError as error:
        return error


async def test_an_idle_actor_serves_within_the_call_and_answers_after_the_commit(
    house: House,
) -> None:
    channel = await house.establish()
    changes = house.statistics.changes
    reply = channel.ask(Encrypt(b"at once"))
    assert house.statistics.changes == changes + 1
    assert not reply.done()
    assert channel.open(await answer(reply)) == b"at once"


async def test_a_frame_of_many_channels_is_one_commit(
    house: House, journal: ScriptedJournal
) -> None:
    channels = [await house.establish(seed) for seed in range(1, 9)]
    commits = len(journal.batches)
    replies = [channel.ask(Encrypt(b"x")) for channel in channels for _ in range(4)]
    for reply in replies:
        await answer(reply)
    assert len(journal.batches) == commits + 1


async def test_a_busy_actor_takes_what_comes_in_order(house: House) -> None:
    channel = await house.establish()
    changes = house.statistics.changes
    channel.occupy()
    replies = [channel.ask(Encrypt(bytes([number]))) for number in range(10)]
    assert house.statistics.changes == changes
    numbers = [(await answer(reply)).header.message_number for reply in replies]
    assert numbers == list(range(10))


async def test_a_message_that_skips_many_waits_for_a_turn_and_what_follows_waits_behind(
    house: House,
) -> None:
    channel = await house.establish()
    turns = sum(house.dispatcher.mailboxes.depths)
    payloads = [channel.seal(bytes([number])) for number in range(FREE_WORK + 2)]
    far = channel.ask(Decrypt(payloads[-1]))
    behind = channel.ask(Decrypt(payloads[0]))
    assert house.statistics.changes == 0
    assert await answer(far) == bytes([FREE_WORK + 1])
    assert await answer(behind) == bytes([0])
    assert sum(house.dispatcher.mailboxes.depths) == turns + 2


async def test_a_message_that_skips_few_is_served_at_once(house: House) -> None:
    channel = await house.establish()
    payloads = [channel.seal(bytes([number])) for number in range(FREE_WORK + 1)]
    reply = channel.ask(Decrypt(payloads[-1]))
    assert house.statistics.changes == 1
    assert await answer(reply) == bytes([FREE_WORK])


async def test_forgeries_that_demand_much_take_their_turns_among_others(house: House) -> None:
    one, other = await house.establish(1), await house.establish(2)
    forgery = forged(one.seal(b"x"), 1_000)
    replies = [one.ask(Decrypt(forgery)) for _ in range(3)]
    honest = other.ask(Encrypt(b"x"))
    assert house.statistics.forged_work == 0
    await answer(honest)
    for reply in replies:
        assert isinstance(await outcome(reply), AuthenticationFailedError)


async def test_what_is_served_without_a_turn_is_bounded_in_each_pass_of_the_loop(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = [await house.establish(seed) for seed in range(1, 4)]
    monkeypatch.setattr(dispatching, "TURN_SECONDS", 0.0)
    for _ in range(2):
        changes = house.statistics.changes
        replies = [channel.ask(Encrypt(b"x")) for channel in channels]
        assert house.statistics.changes == changes
        for reply in replies:
            await answer(reply)


async def test_nothing_is_served_ahead_of_callers_who_wait_for_their_turns(house: House) -> None:
    one, other = await house.establish(1), await house.establish(2)
    changes = house.statistics.changes
    one.occupy()
    replies = [one.ask(Encrypt(b"first")), other.ask(Encrypt(b"second"))]
    assert house.statistics.changes == changes
    for reply in replies:
        await answer(reply)


async def test_a_defect_in_a_turn_at_once_ends_that_actor_alone(house: House) -> None:
    one, other = await house.establish(1), await house.establish(2)
    with patch.object(Differential, "record", side_effect=ZeroDivisionError):
        failed = one.ask(Encrypt(b"x"))
    behind = one.ask(Encrypt(b"y"))
    assert other.open(await other.encrypt(b"goes on")) == b"goes on"
    assert isinstance(await outcome(failed), ActorCrashedError)
    assert isinstance(await outcome(behind), ActorCrashedError)
    assert house.statistics.crashed == 1


async def test_a_refused_command_leaves_the_next_turn_at_once_to_others(house: House) -> None:
    one, other = await house.establish(1), await house.establish(2)
    replies = [one.ask(Decrypt(forged(one.seal(b"x"), 0))), other.ask(Encrypt(b"x"))]
    assert house.statistics.changes == 1
    assert isinstance(await outcome(replies[0]), AuthenticationFailedError)
    await answer(replies[1])


async def test_what_follows_a_close_in_a_frame_is_refused(house: House) -> None:
    channel = await house.establish()
    commands: list[Command] = [Encrypt(b"x"), Close(), Encrypt(b"late"), Restore()]
    replies = [channel.ask(command) for command in commands]
    outcomes = [await outcome(reply) for reply in replies]
    assert [isinstance(each, ConnectError) for each in outcomes] == [False, False, True, True]


async def test_no_turn_begins_within_another(house: House) -> None:
    one, other = await house.establish(1), await house.establish(2)
    changes: list[int] = []
    later: list[AwaitedReply] = []

    def ask_again(_: object) -> None:
        later.append(other.ask(Encrypt(b"x")))
        changes.append(house.statistics.changes)

    # Refused from within its turn: nothing undurable is behind it.
    reply: AwaitedReply = AwaitedReply()
    reply.add_done_callback(ask_again)
    house.router.route(one.connect_id, Decrypt(forged(one.seal(b"x"), 0)), reply)
    assert changes == [0]
    await answer(later[0])
    assert house.statistics.changes == 1


async def test_what_comes_while_a_failed_commit_is_told_meets_no_lost_session(
    house: House, journal: ScriptedJournal
) -> None:
    channels = [await house.establish(seed) for seed in range(1, 4)]
    again: list[AwaitedReply] = []
    journal.fail_before.append(True)

    def ask_all_again(_: object) -> None:
        again.extend(channel.ask(Encrypt(b"again")) for channel in channels)

    lost = [channel.ask(Encrypt(b"lost")) for channel in channels]
    lost[0].add_done_callback(ask_all_again)
    for reply in lost:
        assert isinstance(await outcome(reply), WriteUncertainError)
    await until(lambda: len(again) == len(channels))
    for channel, reply in zip(channels, again, strict=True):
        payload = await answer(reply)
        assert payload.header.message_number == 0
        assert channel.open(payload) == b"again"
    assert house.statistics.discarded == len(channels)


async def test_awaiting_each_operation_takes_a_mailbox_for_each(journal: ScriptedJournal) -> None:
    house = House(journal, awaiting=True)
    channel = await house.establish()
    replies = [channel.ask(Encrypt(os.urandom(8))) for _ in range(5)]
    assert house.statistics.changes == 0
    for reply in replies:
        await answer(reply)
    assert house.statistics.changes == 5
    await house.close()


async def test_a_channel_that_loads_keeps_the_order_of_a_frame(house: House) -> None:
    first, second = await house.establish(1), await house.establish(2)
    live = house.router._channels[first.connect_id]
    house.router._passivate(first.connect_id, live)  # type: ignore[arg-type] # live
    await until(lambda: house.router.live == 1)

    def numbers(channel: PeerEnd) -> list[AwaitedReply]:
        return [channel.ask(Encrypt(b"x")) for _ in range(3)]

    loading, running = numbers(first), numbers(second)
    loading += numbers(first)
    for replies in (loading, running):
        given = [await answer(reply) for reply in replies]
        assert [payload.header.message_number for payload in given] == list(range(len(given)))
