"""Live actors are bounded: the least recently used makes room for a newcomer."""

import asyncio
from pathlib import Path

import pytest

from connect_actor.actors.commands import Encrypt, Establish
from connect_actor.errors import OverloadedError
from connect_actor.protocol.handshake import connect_id_of
from tests.support.channels import establish_request
from tests.support.house import House, PeerEnd, answer, until
from tests.support.journals import KINDS, Script, scripted_journal


@pytest.fixture(params=KINDS)
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Script:
    return scripted_journal(request.param, tmp_path)


def live(house: House) -> set[int]:
    """Return the channels that have an actor which isn't stopping."""
    return {i for i, place in house.router._channels.items() if type(place).__name__ == "_Live"}


async def test_a_newcomer_gets_the_place_of_an_idle_actor(journal: Script) -> None:
    house = House(journal, max_live_actors=2)
    channels = [await house.establish(seed) for seed in range(20)]
    assert house.statistics.passivated == 18
    assert house.router._actors <= 2
    for channel in channels:
        assert channel.open(await channel.encrypt(b"still here")) == b"still here"
    assert house.router._actors <= 2
    await house.close()


async def test_the_one_that_goes_is_the_least_recently_used(journal: Script) -> None:
    house = House(journal, max_live_actors=4)
    channels = [await house.establish(seed) for seed in range(4)]
    order = (2, 0, 3, 1)
    for used in order:
        house.router._on_sweep()  # time is told in sweeps
        await channels[used].encrypt(b"x")
    gone = []
    for seed in range(10, 14):
        before = live(house)
        await house.establish(seed)
        gone += [channels.index(c) for c in channels if c.connect_id in before - live(house)]
    assert gone == list(order)
    await house.close()


async def test_a_newcomer_is_refused_only_if_all_are_busy(journal: Script) -> None:
    house = House(journal, max_live_actors=2)
    channels = [await house.establish(seed) for seed in (1, 2)]
    for channel in channels:
        channel.occupy()
    unanswered = [channel.ask(Encrypt(b"x")) for channel in channels]
    # Not a turn has been given since: both mailboxes hold something.
    _, request = establish_request(3)
    with pytest.raises(OverloadedError, match="2 channels are live and busy"):
        await answer(house.ask(connect_id_of(request), Establish(request)))
    assert house.statistics.passivated == 0
    for reply in unanswered:
        await answer(reply)
    await house.establish(4)
    assert house.statistics.passivated == 1
    await house.close()


async def test_who_comes_back_while_its_actor_goes_is_served_after_the_newcomer(
    journal: Script,
) -> None:
    house = House(journal, max_live_actors=1)
    first = await house.establish(1)
    journal.entered.clear()
    journal.gate.clear()
    newcomer = asyncio.ensure_future(house.establish(2))
    await until(journal.entered.is_set)  # the last snapshot of the first is on its way
    back = [first.ask(Encrypt(b"%d" % n)) for n in range(3)]
    journal.gate.set()
    second = await newcomer
    assert [first.open(await answer(reply)) for reply in back] == [b"0", b"1", b"2"]
    assert second.open(await second.encrypt(b"too")) == b"too"
    await house.close()


async def test_looking_for_the_least_recently_used_is_bounded_and_still_finds_one(
    journal: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connect_actor.actors.router._LOOKS", 4)
    house = House(journal, max_live_actors=16)
    channels: list[PeerEnd] = [await house.establish(seed) for seed in range(16)]
    house.router._on_sweep()
    for channel in channels:  # all of them since the last sweep
        await channel.encrypt(b"x")
    looked: list[int] = []
    real = house.router._next_due

    def counting(sweep: int) -> object:
        looked.append(sweep)
        return real(sweep)

    monkeypatch.setattr(house.router, "_next_due", counting)
    await house.establish(99)
    assert len(looked) == 4
    assert house.statistics.passivated == 1
    await house.close()


async def test_thrashing_leaves_no_more_entries_than_there_are_actors(
    journal: Script,
) -> None:
    house = House(journal, max_live_actors=2)
    channels = [await house.establish(seed) for seed in range(3)]
    for _ in range(10):
        for channel in channels:
            await channel.encrypt(b"x")
    for _ in range(10):
        house.router._on_sweep()
        await channels[0].encrypt(b"x")
    assert sum(map(len, house.router._due.values())) <= 2
    await house.close()
