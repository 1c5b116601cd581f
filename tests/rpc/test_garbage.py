"""What is done with is freed at once: no circle is left that would have to wait for the collector.

Such a circle may hold a request, up to 1 MiB of it, that nobody counts as held any more. The
collector is off meanwhile; what it finds in the end is what was left to it.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import cast

import pytest
from google.protobuf.message import Message

from connect_actor.actors.commands import Close
from connect_actor.actors.connect import ConnectActor
from connect_actor.actors.router import _Live
from connect_actor.protocol.wire import payload_to_wire
from connect_actor.rpc.admission import Bounds
from connect_actor.rpc.entrance import Context
from connect_actor.rpc.operations import OPERATIONS
from connect_actor.rpc.servicer import ConnectServicer
from connect_actor.v1 import connect_pb2 as wire
from tests.rpc.conftest import MAX_MESSAGE
from tests.support.calls import CallContext, RefusedError
from tests.support.house import House, PeerEnd, answer, until

UNKNOWN = 123_456
ROUNDS = 5


def context_of(*messages: Message, ends: bool = True) -> Context:
    return cast("Context", CallContext(*messages, ends=ends))


async def garbage_of(act: Callable[[], Awaitable[object]]) -> int:
    """Return how many objects the collector finds after several rounds of this."""

    async def once() -> None:
        await act()

    await asyncio.create_task(once())  # what is made once and kept
    gc.collect()
    gc.disable()
    try:
        for _ in range(ROUNDS):
            # In a task of its own, as gRPC has it: some things end with their call's task.
            await asyncio.create_task(once())
        await asyncio.sleep(0.01)
        return gc.collect()
    finally:
        gc.enable()


@pytest.fixture
async def end(house: House) -> PeerEnd:
    return await house.establish()


def actor_of(house: House, end: PeerEnd) -> ConnectActor:
    live = house.router._channels[end.connect_id]
    assert type(live) is _Live
    return cast("ConnectActor", live.mailbox._owner)


def servicer_of(house: House, bounds: Bounds | None = None) -> ConnectServicer:
    return ConnectServicer(
        house.router,
        max_message_bytes=MAX_MESSAGE,
        max_frame_bytes=1_048_576,
        max_in_flight=256,
        bounds=bounds,
    )


def operations(end: PeerEnd) -> Mapping[str, wire.Operation]:
    """Return an operation for each way to be refused, and one that is not."""
    connect_id = end.connect_id
    replayed = wire.DecryptRequest(connect_id=connect_id)
    payload_to_wire(end.seal(b"x"), replayed.payload)
    forged = wire.DecryptRequest()
    forged.CopyFrom(replayed)
    forged.payload.ciphertext = bytes(40)
    skipping = wire.DecryptRequest()
    skipping.CopyFrom(replayed)
    skipping.payload.ratchet_index = 1_000_000
    encrypts = {
        "accepted": wire.EncryptRequest(connect_id=connect_id, plaintext=b"x"),
        "too large": wire.EncryptRequest(connect_id=connect_id, plaintext=bytes(MAX_MESSAGE + 1)),
        "unknown channel": wire.EncryptRequest(connect_id=UNKNOWN),
    }
    decrypts = {
        "replayed": replayed,
        "forged": forged,
        "skipping": skipping,
        "malformed": wire.DecryptRequest(connect_id=connect_id),
    }
    return {
        **{name: wire.Operation(encrypt=request) for name, request in encrypts.items()},
        **{name: wire.Operation(decrypt=request) for name, request in decrypts.items()},
        "no handshake": wire.Operation(establish=wire.EstablishRequest()),
    }


REFUSED = (
    "too large",
    "unknown channel",
    "replayed",
    "forged",
    "skipping",
    "malformed",
    "no handshake",
)


async def call(servicer: ConnectServicer, operation: wire.Operation) -> bool:
    """Make a unary call; return whether it was granted."""
    name = operation.WhichOneof("request") or ""
    try:
        await servicer.call(OPERATIONS[name], None, context_of(getattr(operation, name)))
    except RefusedError:
        return False
    return True


async def stream(servicer: ConnectServicer, operation: wire.Operation) -> bool:
    """Open a stream for one operation; return whether it was granted."""
    context = context_of(wire.OperationFrame(operations=[operation]))
    answers = [each async for each in servicer.exchange(None, context)]
    return not answers[0].results[0].HasField("error")


Way = Callable[[ConnectServicer, wire.Operation], Awaitable[bool]]
WAYS = pytest.mark.parametrize("way", [call, stream])


@WAYS
async def test_what_is_granted_leaves_no_garbage(house: House, end: PeerEnd, way: Way) -> None:
    servicer, operation = servicer_of(house), operations(end)["accepted"]
    assert await way(servicer, operation)
    assert await garbage_of(lambda: way(servicer, operation)) == 0


@WAYS
@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused_leaves_no_garbage(
    house: House, end: PeerEnd, way: Way, name: str
) -> None:
    servicer, operation = servicer_of(house), operations(end)[name]
    await way(servicer, operation)  # granted to a message that comes for the first time
    assert not await way(servicer, operation)
    assert await garbage_of(lambda: way(servicer, operation)) == 0


@WAYS
async def test_what_is_beyond_the_services_bound_leaves_no_garbage(
    house: House, end: PeerEnd, way: Way
) -> None:
    servicer, operation = servicer_of(house, Bounds(max_operations=0)), operations(end)["accepted"]
    assert not await way(servicer, operation)
    assert await garbage_of(lambda: way(servicer, operation)) == 0


@pytest.mark.parametrize("kind", ["late", "pushed out"])
async def test_a_call_whose_message_does_not_come_leaves_no_garbage(
    house: House, kind: str
) -> None:
    servicer = servicer_of(house, Bounds(message_timeout=0.01 if kind == "late" else 60))
    readers = servicer.entrance.readers

    async def call_and_wait() -> None:
        call = asyncio.ensure_future(
            servicer.call(OPERATIONS["encrypt"], None, context_of(ends=False))
        )
        await until(lambda: readers.taken == 1)
        if kind == "pushed out":
            readers._lose_one()
        with pytest.raises(RefusedError):
            await call
        del call

    assert await garbage_of(call_and_wait) == 0


async def test_a_stream_that_is_given_up_leaves_no_garbage(house: House) -> None:
    servicer = servicer_of(house)

    async def exchange() -> None:
        async for _ in servicer.exchange(None, context_of(ends=False)):
            pass

    async def give_up() -> None:
        reading = asyncio.ensure_future(exchange())
        await until(lambda: servicer.statistics.streams_open == 1)
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        del reading

    assert await garbage_of(give_up) == 0
    assert servicer.statistics.streams_open == 0


async def test_a_channel_that_comes_and_goes_leaves_no_garbage(house: House) -> None:
    seeds = iter(range(10, 100))

    async def come_and_go() -> None:
        end = await house.establish(next(seeds))
        await end.encrypt(b"x")
        await answer(end.ask(Close()))
        await until(lambda: not house.router._channels)

    assert await garbage_of(come_and_go) == 0


async def test_an_actor_that_is_loaded_and_passivated_leaves_no_garbage(
    house: House, end: PeerEnd
) -> None:
    house.router.idle(actor_of(house, end))
    await until(lambda: not house.router._channels)

    async def come_back() -> None:
        house.router.call_up(end.connect_id, end.owner)
        await until(lambda: not house.router._channels)

    assert await garbage_of(come_back) == 0
    assert house.statistics.recovered == ROUNDS + 1
