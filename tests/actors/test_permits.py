"""Recovery permits: a storm queues up, within bounds of length and time."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

import pytest

from connect_actor.actors.commands import Restore, Restored
from connect_actor.actors.permits import Permit, RecoveryPermits
from connect_actor.actors.router import _Live
from connect_actor.errors import OverloadedError
from connect_actor.persistence.memory import MemoryJournal
from tests.support.house import House, PeerEnd, answer
from tests.support.meter import Meter
from tests.support.virtual_time import NoThread, VirtualClock, run_virtually

WAIT = 10.0
SHORT = 0.001


@dataclass
class Queue:
    """Permits, and who was told what, in order. One permit, two places to wait."""

    permits: RecoveryPermits = field(
        default_factory=lambda: RecoveryPermits(
            1, asyncio.get_running_loop(), max_waiting=2, timeout=WAIT
        )
    )
    told: list[str] = field(default_factory=list)

    def ask(self, name: str) -> Permit:
        return self.permits.acquire(
            lambda: self.told.append(f"{name} granted"),
            lambda _: self.told.append(f"{name} refused"),
        )

    def figures(self) -> tuple[int, int]:
        return self.permits.in_use, self.permits.waiting


def virtually(script: Callable[[Queue], Coroutine[None, None, None]]) -> None:
    async def work(_: VirtualClock) -> None:
        await script(Queue())

    run_virtually(work)


def test_permits_are_granted_first_come_first_served() -> None:
    async def script(queue: Queue) -> None:
        permits = [queue.ask(name) for name in "abc"]
        assert queue.told == ["a granted"]
        assert queue.figures() == (1, 2)
        for permit in permits:
            permit.give_back()
        assert queue.told == ["a granted", "b granted", "c granted"]
        assert queue.figures() == (0, 0)

    virtually(script)


def test_giving_back_twice_frees_no_second_permit() -> None:
    async def script(queue: Queue) -> None:
        first = queue.ask("a")
        queue.ask("b")
        queue.ask("c")
        first.give_back()
        first.give_back()
        assert queue.told == ["a granted", "b granted"]
        assert queue.figures() == (1, 1)

    virtually(script)


def test_a_full_queue_turns_away_and_keeps_those_who_wait() -> None:
    async def script(queue: Queue) -> None:
        first = queue.ask("a")
        queue.ask("b")
        queue.permits.require_room()
        queue.ask("c")
        for _ in range(3):
            with pytest.raises(OverloadedError, match="2 channels are waiting"):
                queue.ask("d")
        with pytest.raises(OverloadedError):
            queue.permits.require_room()
        assert queue.permits.turned_away == 4
        assert queue.figures() == (1, 2)
        first.give_back()
        queue.permits.require_room()
        assert queue.told == ["a granted", "b granted"]

    virtually(script)


def test_whoever_waits_too_long_is_refused_and_gets_no_permit_later() -> None:
    async def script(queue: Queue) -> None:
        first = queue.ask("a")
        second = queue.ask("b")
        await asyncio.sleep(WAIT / 2)
        queue.ask("c")
        await asyncio.sleep(WAIT / 2 - SHORT)
        assert queue.told == ["a granted"]
        await asyncio.sleep(2 * SHORT)
        assert queue.told == ["a granted", "b refused"]
        second.give_back()
        first.give_back()
        assert queue.told == ["a granted", "b refused", "c granted"]
        assert queue.figures() == (1, 0)
        await asyncio.sleep(2 * WAIT)
        assert len(queue.told) == 3
        assert queue.permits.timed_out == 1

    virtually(script)


def test_each_waiter_has_the_whole_time_limit() -> None:
    async def script(queue: Queue) -> None:
        queue.ask("a")
        queue.ask("b")
        await asyncio.sleep(WAIT / 2)
        queue.ask("c")
        await asyncio.sleep(WAIT - SHORT)
        assert queue.told == ["a granted", "b refused"]
        await asyncio.sleep(2 * SHORT)
        assert queue.told == ["a granted", "b refused", "c refused"]

    virtually(script)


def test_whoever_leaves_the_queue_is_neither_granted_nor_refused() -> None:
    async def script(queue: Queue) -> None:
        first = queue.ask("a")
        queue.ask("b").give_back()
        queue.ask("c")
        assert queue.figures() == (1, 1)
        first.give_back()
        await asyncio.sleep(2 * WAIT)
        assert queue.told == ["a granted", "c granted"]

    virtually(script)


def test_the_waits_of_granted_permits_are_measured() -> None:
    async def script(queue: Queue) -> None:
        first = queue.ask("a")
        second = queue.ask("b")
        queue.ask("c")
        await asyncio.sleep(2.0)
        first.give_back()
        await asyncio.sleep(3.0)
        second.give_back()
        assert queue.permits.waits.count == 3
        assert queue.permits.waits.total == pytest.approx(0.0 + 2.0 + 5.0)

    virtually(script)


# --- Actors that wait -----------------------------------------------------------------------------


async def sleeping_channels(count: int) -> tuple[House, list[PeerEnd]]:
    """Channels that have no actor, in a house whose one permit somebody else has."""
    journal = MemoryJournal()
    thread = NoThread()
    first = House(journal, thread=thread)
    ends = [await first.establish(seed) for seed in range(count)]
    await first.close()
    house = House(
        journal, thread=thread, permits=1, max_waiting_recoveries=2, recovery_wait_timeout=WAIT
    )
    for end in ends:
        end.house = house
    return house, ends


def test_commands_of_a_channel_that_waits_too_long_are_refused_and_its_actor_stops() -> None:
    async def work(_: VirtualClock) -> None:
        house, (end,) = await sleeping_channels(1)
        meter = Meter.of(house)
        taken = house.environment.permits.acquire(lambda: None, lambda _: None)
        replies = [end.ask(Restore()) for _ in range(3)]
        await asyncio.sleep(WAIT - SHORT)
        assert meter.value("connect_recovery_permits_waiting") == 1
        assert not any(reply.done() for reply in replies)
        await asyncio.sleep(2 * SHORT)
        for reply in replies:
            with pytest.raises(OverloadedError, match="has waited 10 s"):
                await answer(reply)
        assert house.router.live == 0
        assert meter.value("connect_recovery_permits_waiting") == 0
        assert meter.grown("connect_recovery_permit_refusals_total", reason="timeout") == 1
        assert meter.grown("connect_recovery_permit_refusals_total", reason="full") == 0
        taken.give_back()
        assert meter.value("connect_recovery_permits_in_use") == 0
        assert isinstance(await answer(end.ask(Restore())), Restored)
        assert meter.grown("connect_recovery_permit_wait_seconds_count") == 2
        await house.close()

    run_virtually(work)


def test_beyond_the_queue_channels_are_refused_before_any_work() -> None:
    async def work(_: VirtualClock) -> None:
        house, ends = await sleeping_channels(4)
        meter = Meter.of(house)
        taken = house.environment.permits.acquire(lambda: None, lambda _: None)
        waiting = [end.ask(Restore()) for end in ends[:2]]
        await asyncio.sleep(SHORT)
        for end in ends[2:]:
            with pytest.raises(OverloadedError, match="2 channels are waiting"):
                await answer(end.ask(Restore()))
        assert house.statistics.started == 2
        assert meter.grown("connect_recovery_permit_refusals_total", reason="full") == 2
        taken.give_back()
        for reply in waiting:
            assert isinstance(await answer(reply), Restored)
        await house.close()

    run_virtually(work)


def test_an_actor_that_finds_the_queue_full_refuses_its_commands_and_stops() -> None:
    async def work(_: VirtualClock) -> None:
        house, ends = await sleeping_channels(3)
        taken = house.environment.permits.acquire(lambda: None, lambda _: None)
        # All at once, so that the router still saw room.
        replies = [end.ask(Restore()) for end in ends]
        await asyncio.sleep(SHORT)
        with pytest.raises(OverloadedError, match="2 channels are waiting"):
            await answer(replies[2])
        assert house.router.live == 2
        taken.give_back()
        for reply in replies[:2]:
            assert isinstance(await answer(reply), Restored)
        await house.close()

    run_virtually(work)


def test_an_actor_that_is_stopped_while_it_waits_leaves_the_queue() -> None:
    async def work(_: VirtualClock) -> None:
        house, (end,) = await sleeping_channels(1)
        taken = house.environment.permits.acquire(lambda: None, lambda _: None)
        reply = end.ask(Restore())
        await asyncio.sleep(SHORT)
        (live,) = house.router._channels.values()
        assert isinstance(live, _Live)
        live.ref.stop(block=False)
        await asyncio.sleep(SHORT)
        assert reply.done()
        assert house.environment.permits.waiting == 0
        taken.give_back()
        assert house.environment.permits.in_use == 0
        await house.close()

    run_virtually(work)
