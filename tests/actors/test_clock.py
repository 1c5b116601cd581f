"""The wall clock alone decides nothing that can't be undone."""

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace

import pytest

from connect_actor.actors.commands import Acknowledge, Decrypt, Encrypt, Restore
from connect_actor.actors.expiry import ending_expired_channels
from connect_actor.clock import CONFIRMED_AFTER, TOLERATED, ServiceClock
from connect_actor.errors import ChannelExpiredError
from connect_actor.protocol.delivery import Delivered
from connect_actor.protocol.payload import Payload
from connect_actor.reply import AwaitedReply
from connect_actor.stored.v1 import session_pb2 as stored
from tests.support.channels import NOW
from tests.support.house import House, PeerEnd, answer
from tests.support.journals import ScriptedJournal
from tests.support.virtual_time import NoThread, VirtualClock, run_virtually

MICROS = 1_000_000
DAY = 86_400 * MICROS
HOUR = 3_600 * MICROS
CONFIRMED = int(CONFIRMED_AFTER * MICROS)
TOLERANCE = int(TOLERATED * MICROS)


class Machine:
    """A machine whose two clocks a test moves."""

    def __init__(self, wall: int = NOW) -> None:
        self.wall = wall
        self.ticks = 5 * DAY

    def start(self, known: int = 0) -> ServiceClock:
        return ServiceClock(known, wall=lambda: self.wall, monotonic=lambda: self.ticks)

    def run(self, clock: ServiceClock, micros: int) -> None:
        """Let time pass, with looks at the clock all the while."""
        for step in itertools.repeat(HOUR // 6, micros // (HOUR // 6)):
            self.wall += step
            self.ticks += step
            clock.settled()
        self.wall += micros % (HOUR // 6)
        self.ticks += micros % (HOUR // 6)
        clock.settled()


def test_settled_time_is_wall_time_where_nothing_jumps() -> None:
    machine = Machine()
    clock = machine.start(NOW)
    for _ in range(100):
        machine.run(clock, DAY)
        assert clock.settled() == machine.wall
    assert (clock.jumps, clock.unsettled) == (0, 0.0)


def test_a_clock_that_is_slewed_never_jumps() -> None:
    machine = Machine()
    clock = machine.start(NOW)
    for _ in range(24 * 100):
        machine.run(clock, HOUR)
        machine.wall += 1_800_000  # 500 ppm, the kernel's most
    assert clock.jumps == 0
    assert machine.wall - clock.settled() <= 2 * 1_800_000


@pytest.mark.parametrize("jump", [TOLERANCE + MICROS, HOUR, 2 * DAY, 400 * DAY])
@pytest.mark.parametrize("lasts", [0, 3 * MICROS, CONFIRMED - 1])
def test_a_jump_ahead_that_does_not_last_never_gets_into_settled_time(
    jump: int, lasts: int, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine()
    clock = machine.start(NOW)
    machine.run(clock, 3 * HOUR)
    right = machine.wall
    machine.wall += jump
    assert clock.settled() == right
    machine.run(clock, lasts)
    assert clock.settled() == right + lasts
    assert clock.unsettled == jump / MICROS
    assert "the clock has jumped" in caplog.text
    machine.wall -= jump
    assert clock.settled() == machine.wall
    assert (clock.jumps, clock.unsettled) == (2, 0.0)


@pytest.mark.parametrize("jump", [-2 * DAY, -TOLERANCE - 1, TOLERANCE + 1, 2 * DAY])
def test_a_jump_that_lasts_is_believed_once_the_clocks_have_agreed(jump: int) -> None:
    machine = Machine()
    clock = machine.start(NOW)
    machine.run(clock, HOUR)
    machine.wall += jump
    clock.settled()
    machine.run(clock, CONFIRMED - 1)
    assert clock.settled() == machine.wall - max(jump, 0)
    machine.run(clock, 1)
    assert clock.settled() == machine.wall
    assert clock.jumps == 1


def test_a_clock_that_jumps_again_and_again_is_not_believed() -> None:
    machine = Machine()
    clock = machine.start(NOW)
    for _ in range(50):
        machine.wall += DAY
        machine.run(clock, CONFIRMED - 1)
    assert clock.settled() == NOW + 50 * (CONFIRMED - 1)
    assert clock.jumps == 50


def test_a_jump_back_holds_settled_time_back_at_once() -> None:
    machine = Machine()
    clock = machine.start(NOW)
    machine.wall -= 2 * DAY
    assert clock.settled() == machine.wall


@pytest.mark.parametrize("restarts", [1, 2, 7])
def test_a_clock_that_is_ahead_from_the_start_on_is_not_confirmed_by_restarts(
    restarts: int,
) -> None:
    machine = Machine(NOW + 2 * DAY)
    known = NOW
    for _ in range(restarts):
        clock = machine.start(known)
        machine.run(clock, CONFIRMED // 8)
        known = clock.settled()  # what a snapshot tells the journal
    assert known == NOW + restarts * (CONFIRMED // 8)


def test_after_days_of_rest_time_settles_within_an_hour_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    machine = Machine(NOW + 2 * DAY)
    clock = machine.start(NOW)
    assert "the newest time in the journal is 172800 s ago" in caplog.text
    assert clock.settled() == NOW
    machine.run(clock, CONFIRMED)
    assert clock.settled() == machine.wall
    assert clock.jumps == 0


def test_a_clock_behind_the_newest_time_in_the_journal_has_jumped() -> None:
    machine = Machine(NOW - DAY)
    clock = machine.start(NOW)
    assert clock.jumps == 1
    assert clock.settled() == machine.wall


def test_the_real_clocks_agree() -> None:
    clock = ServiceClock(0)
    assert abs(clock.settled() - clock.wall()) < TOLERANCE
    assert clock.jumps == 0


# --- Channels while the clock is wrong ------------------------------------------------------------


class WatchedHouse(House):
    """A house that goes by a real ``ServiceClock``, on a machine that a test moves."""

    def __init__(self, journal: ScriptedJournal, machine: Machine) -> None:
        super().__init__(journal, thread=NoThread(), idle_timeout=1e6, redelivery_window=16)
        self.service_clock = machine.start(journal.newest_save())
        self.environment = replace(
            self.environment, clock=self.service_clock.wall, settled=self.service_clock.settled
        )
        self.router._environment = self.environment


def virtually(script: Callable[[], Coroutine[None, None, None]]) -> None:
    async def work(_: VirtualClock) -> None:
        await script()

    run_virtually(work)


async def _seal_once(end: PeerEnd) -> Payload:
    sent: Delivered[Payload] = await answer(end.ask(Encrypt(b"once", 7, None, b"key")))
    return sent.result


_ATTEMPTS: dict[str, Callable[[PeerEnd], AwaitedReply]] = {
    "encrypt": lambda end: end.ask(Encrypt(b"x")),
    "repeat": lambda end: end.ask(Encrypt(b"once", 7, None, b"key")),
    "decrypt": lambda end: end.ask(Decrypt(end.seal(b"up"))),
    "acknowledge": lambda end: end.ask(Acknowledge(1)),
    "restore": lambda end: end.ask(Restore()),
}


@pytest.mark.parametrize("asked", _ATTEMPTS)
@pytest.mark.parametrize("then", ["goes on", "is passivated", "crashes"])
@pytest.mark.parametrize("jump", [25 * HOUR, 400 * DAY])
def test_after_a_jump_ahead_a_repeated_request_has_its_first_answer(
    asked: str, then: str, jump: int
) -> None:
    async def script() -> None:
        machine, journal = Machine(), ScriptedJournal()
        house = WatchedHouse(journal, machine)
        end = await house.establish()
        first = await _seal_once(end)
        machine.wall += jump
        with pytest.raises(ChannelExpiredError):
            await answer(_ATTEMPTS[asked](end))
        if then == "is passivated":
            await house.close()
        if then != "goes on":
            end.house = house = WatchedHouse(journal, machine)
        machine.wall -= jump
        again: Delivered[Payload] = await answer(end.ask(Encrypt(b"once", 7, None, b"key")))
        assert (again.result, again.redelivered) == (first, True)
        # What is durable adds up.
        await house.close()
        end.house = house = WatchedHouse(journal, machine)
        assert end.open(await end.encrypt(b"goes on")) == b"goes on"
        await house.close()

    virtually(script)


async def _swept(house: House, machine: Machine, micros: int) -> None:
    """Run a service for so long, sweeps and all."""
    async with ending_expired_channels(house.router, house.environment):
        for _ in range(micros // (10 * MICROS)):
            machine.wall += 10 * MICROS
            machine.ticks += 10 * MICROS
            await asyncio.sleep(10.0)


@pytest.mark.parametrize("when", ["while it runs", "from the start on"])
@pytest.mark.parametrize("used", [False, True])
def test_a_clock_that_is_two_days_ahead_ends_no_channel_until_it_is_confirmed(
    when: str,
    used: bool,  # noqa: FBT001 - a test's parameter
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)

    async def script() -> None:
        machine, journal = Machine(), ScriptedJournal()
        house = WatchedHouse(journal, machine)
        end = await house.establish()
        await house.close()
        if when == "from the start on":
            machine.wall += 2 * DAY
        end.house = house = WatchedHouse(journal, machine)
        if when == "while it runs":
            machine.wall += 2 * DAY
            house.service_clock.settled()
        if used:
            with pytest.raises(ChannelExpiredError):
                await answer(end.ask(Restore()))
        await _swept(house, machine, CONFIRMED - 60 * MICROS)
        await house.close()
        assert journal.channels(-1, 9) == [end.connect_id]
        # The same clock, restarted: it is not confirmed by that.
        house = WatchedHouse(journal, machine)
        await _swept(house, machine, CONFIRMED - 60 * MICROS)
        assert journal.channels(-1, 9) == [end.connect_id]
        assert house.statistics.expired == 0
        # Later rather than never.
        await _swept(house, machine, 2 * CONFIRMED)
        assert journal.channels(-1, 9) == []
        assert house.statistics.expired == 1
        assert caplog.text.count("had expired and was ended") == 1
        await house.close()

    virtually(script)


def test_a_snapshot_by_a_clock_that_is_ahead_keeps_the_deliveries() -> None:
    async def script() -> None:
        machine, journal = Machine(), ScriptedJournal()
        house = WatchedHouse(journal, machine)
        end = await house.establish()
        await _seal_once(end)
        machine.wall += 2 * DAY
        await house.close()  # takes the last snapshot
        *_, snapshot = journal.all_snapshots
        assert len(stored.SessionState.FromString(snapshot.payload).deliveries.kept) == 1
        assert snapshot.taken_at == NOW

    virtually(script)


def test_a_channel_that_is_established_while_the_clock_is_behind_is_not_erased_early() -> None:
    async def script() -> None:
        machine, journal = Machine(NOW - 2 * DAY), ScriptedJournal()
        house = WatchedHouse(journal, machine)
        end = await house.establish()
        machine.wall += 2 * DAY
        await _swept(house, machine, CONFIRMED - 60 * MICROS)
        assert journal.channels(-1, 9) == [end.connect_id]
        await house.close()

    virtually(script)
