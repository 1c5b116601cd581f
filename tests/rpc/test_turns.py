"""Streams among others: frames are taken up and made in turns, and debts are waited for."""

import asyncio
from collections.abc import Sequence
from typing import cast
from unittest.mock import Mock

import grpc
import pytest

from connect_actor.access.gate import Caller, Gate
from connect_actor.access.principals import principal_named
from connect_actor.access.quotas import Account, Accounts, Rates
from connect_actor.actors import dispatcher as dispatching
from connect_actor.actors.commands import Command
from connect_actor.actors.dispatcher import Dispatcher
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.wire import payload_to_wire
from connect_actor.reply import Reply
from connect_actor.rpc import exchange as exchanging
from connect_actor.rpc.admission import Admission, Bounds
from connect_actor.rpc.entrance import Context, Entrance
from connect_actor.rpc.exchange import Exchange, StreamLimits
from connect_actor.rpc.statistics import RequestStatistics
from connect_actor.v1 import connect_pb2 as wire
from tests.actors.test_work import Clock, forged
from tests.support.calls import CallContext
from tests.support.house import House, PeerEnd, until

RATE = 100_000.0


class Turn:
    """A turn of another caller, which notes something."""

    def __init__(self, noted: list[int], count: list[object]) -> None:
        self.noted = noted
        self.count = count

    def run(self) -> None:
        self.noted.append(len(self.count))

    def abandon(self) -> None:
        raise AssertionError("nothing is closed here")


class Watched:
    """A way to a house's channels that asks for another caller's turn with the first command."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.routed: list[object] = []
        self.seen: list[int] = []

    @property
    def dispatcher(self) -> Dispatcher:
        return self.house.dispatcher

    def route(self, connect_id: int, command: Command, reply: Reply, owner: bytes = b"") -> None:
        if not self.routed:
            self.dispatcher.schedule(Turn(self.seen, self.routed), "another")
        self.routed.append(command)
        self.house.router.route(connect_id, command, reply, owner)

    async def drain(self) -> None:
        raise AssertionError("nothing is stopped here")


class Call(CallContext):
    """A call that brings frames as they are put into a queue, until there is none."""

    def __init__(self, frames: asyncio.Queue[wire.OperationFrame | None]) -> None:
        super().__init__()
        self.frames = frames

    async def read(self) -> object:
        frame = await self.frames.get()
        return grpc.aio.EOF if frame is None else frame.SerializeToString()


class Stream:
    """A stream of one caller; what it brings is put, what it answers is collected."""

    def __init__(self, routes: Watched, account: Account | None = None) -> None:
        self.frames: asyncio.Queue[wire.OperationFrame | None] = asyncio.Queue()
        self.results: list[wire.OperationResult] = []
        self.sizes: list[int] = []
        self.exchange = Exchange(
            routes,
            RequestStatistics(),
            Admission(Bounds()),
            Caller(b"", account, None),
            StreamLimits(4_096, 1 << 20, 2_048),
            Entrance(Gate(), Bounds(), 1 << 20).enter(cast("Context", Call(self.frames))),
            deadline=None,
            stream_id="test",
        )
        self.served = asyncio.ensure_future(self._serve())

    async def _serve(self) -> None:
        async for frame in self.exchange.serve():
            self.sizes.append(len(frame.results))
            self.results += frame.results

    def send(self, operations: Sequence[wire.Operation]) -> None:
        self.frames.put_nowait(wire.OperationFrame(operations=operations))

    async def answered(self, count: int) -> list[str | None]:
        """Return the outcomes once there are so many."""
        await until(lambda: len(self.results) >= count)
        return [result.WhichOneof("outcome") for result in self.results]

    async def end(self) -> None:
        self.frames.put_nowait(None)
        await asyncio.wait_for(self.served, 10)


def encrypts(channel: PeerEnd, count: int) -> list[wire.Operation]:
    request = wire.EncryptRequest(connect_id=channel.connect_id, plaintext=b"x")
    return [wire.Operation(operation_id=number + 1, encrypt=request) for number in range(count)]


def decrypt(channel: PeerEnd, payload: Payload) -> wire.Operation:
    operation = wire.Operation(decrypt=wire.DecryptRequest(connect_id=channel.connect_id))
    payload_to_wire(payload, operation.decrypt.payload)
    return operation


async def test_a_large_frame_leaves_others_their_turns(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "TURN_SECONDS", 0.0)
    routes = Watched(house)
    stream = Stream(routes)
    channel = await house.establish()
    stream.send(encrypts(channel, 1_000))
    assert await stream.answered(1_000) == ["encrypt"] * 1_000
    assert routes.seen == [exchanging._AT_ONCE]
    assert [result.operation_id for result in stream.results] == list(range(1, 1_001))
    assert max(stream.sizes) == exchanging._AT_ONCE
    await stream.end()


async def test_a_small_frame_is_taken_up_at_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = Mock(wraps=house.dispatcher.turn)
    monkeypatch.setattr(house.dispatcher, "turn", turn)
    stream = Stream(Watched(house))
    channel = await house.establish()
    stream.send(encrypts(channel, exchanging._AT_ONCE))
    await stream.answered(exchanging._AT_ONCE)
    turn.assert_not_called()
    stream.send(encrypts(channel, exchanging._AT_ONCE + 1))
    await stream.answered(2 * exchanging._AT_ONCE + 1)
    turn.assert_called()
    await stream.end()


# --- Debts ----------------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def account(clock: Clock) -> Account:
    accounts = Accounts(Rates(derivations_per_second=RATE), 10_000, clock)
    return accounts.of(principal_named("payer"))


async def test_a_stream_that_brings_its_caller_into_debt_is_not_read_until_that_is_paid(
    house: House, clock: Clock, account: Account
) -> None:
    routes = Watched(house)
    stream, other = Stream(routes, account), Stream(routes, account)
    channels = [await house.establish(seed) for seed in range(1, 13)]
    stream.send([decrypt(channel, forged(channel.seal(b"x"), 1_000)) for channel in channels])
    assert await stream.answered(12) == ["error"] * 12
    assert account.debt > 0
    routed = len(routes.routed)
    stream.send(encrypts(channels[0], 20))
    # Another stream of the caller, which has caused none of it, goes on meanwhile.
    other.send(encrypts(channels[1], 20))
    assert await other.answered(20) == ["encrypt"] * 20
    for _ in range(100):
        await asyncio.sleep(0)
    assert (len(stream.results), len(routes.routed)) == (12, routed + 20)
    clock.now += account.debt + 1e-6
    assert (await stream.answered(32))[12:] == ["encrypt"] * 20
    await stream.end()
    await other.end()


async def test_a_flood_on_one_stream_is_held_to_its_callers_rate(
    house: House, clock: Clock, account: Account
) -> None:
    channels = [await house.establish(seed) for seed in range(1, 9)]
    stream = Stream(Watched(house), account)
    flood = [decrypt(channel, forged(channel.seal(b"x"), 1_000)) for channel in channels]
    rounds = 5
    sent = 0
    for _ in range(rounds):
        # Whatever is read is answered; what is not, is not.
        while not account.debt:
            stream.send(flood)
            sent += len(flood)
            await stream.answered(sent)
        stream.send(flood)
        sent += len(flood)
        clock.now += 0.1
        await stream.answered(sent)
    assert house.statistics.forged_work <= 0.1 * RATE * (1 + rounds) + 1_000
    assert sent < 2_000
    await stream.end()


async def test_a_stream_that_has_caused_no_debt_is_read_however_much_its_caller_owes(
    house: House, account: Account
) -> None:
    channel = await house.establish()
    account.charge(1_000_000)
    stream = Stream(Watched(house), account)
    stream.send(encrypts(channel, 1))
    assert await stream.answered(1) == ["encrypt"]
    await stream.end()
