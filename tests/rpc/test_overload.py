"""More than the service can do, and peers that don't read, over real gRPC."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from connect_actor.client import Channel, ConnectClient, Identity, error_of, require_success
from connect_actor.errors import OverloadedError
from connect_actor.network.connections import connect
from connect_actor.rpc.admission import Bounds
from connect_actor.rpc.server import ConnectionBounds, RpcServer
from connect_actor.rpc.servicer import ConnectServicer
from connect_actor.v1 import connect_pb2 as wire
from tests.rpc.conftest import MAX_MESSAGE
from tests.support.house import House, until
from tests.support.journals import Script
from tests.support.process import PATIENCE

Serve = Callable[..., Awaitable["Served"]]


class Served:
    """A server within bounds of a test's own, and a client of it."""

    def __init__(self, servicer: ConnectServicer, server: RpcServer) -> None:
        self.servicer = servicer
        self.server = server
        self.client = ConnectClient(server.address)

    @property
    def address(self) -> str:
        return self.server.address

    async def establish(self) -> Channel:
        return await self.client.establish(Identity.generate(os.urandom))

    async def close(self) -> None:
        await self.client.close()
        await self.server.stop(0)


@pytest.fixture
async def serve(house: House) -> AsyncIterator[Serve]:
    served: list[Served] = []

    async def serve(
        connections: ConnectionBounds | None = None,
        max_in_flight: int = 256,
        **bounds: Any,  # noqa: ANN401 - as the fields of Bounds
    ) -> Served:
        servicer = ConnectServicer(
            house.router,
            max_message_bytes=MAX_MESSAGE,
            max_frame_bytes=1_048_576,
            max_in_flight=max_in_flight,
            bounds=Bounds(**bounds),
        )
        server = await RpcServer.start(
            servicer, "127.0.0.1:0", max_frame_bytes=1_048_576, connections=connections
        )
        served.append(Served(servicer, server))
        return served[-1]

    yield serve
    for each in served:
        await each.close()


def encrypts(channel: Channel, count: int, size: int = 1) -> list[wire.Operation]:
    request = wire.EncryptRequest(connect_id=channel.connect_id, plaintext=bytes(size))
    return [wire.Operation(encrypt=request) for _ in range(count)]


def refusals(results: Sequence[wire.OperationResult]) -> list[Status]:
    return [result.error for result in results if result.HasField("error")]


def hold(journal: Script) -> None:
    journal.entered.clear()
    journal.gate.clear()


# --- Too much work --------------------------------------------------------------------------------


async def test_what_a_frame_brings_beyond_the_services_bound_is_refused_before_any_work(
    serve: Serve, journal: Script, house: House
) -> None:
    served = await serve(max_operations=8)
    channel = await served.establish()
    changes = house.statistics.changes
    hold(journal)
    async with served.client.exchange() as stream:
        call = asyncio.ensure_future(stream.call(encrypts(channel, 20)))
        await until(journal.entered.is_set)
        journal.gate.set()
        results = await call
    refused = refusals(results)
    assert len(refused) == 12
    assert house.statistics.changes == changes + 8
    retry = RetryInfo()
    for status in refused:
        assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
        assert status.details[1].Unpack(retry)
        assert isinstance(error_of(status), OverloadedError)
    assert served.servicer.admission.under_way == 0
    assert served.servicer.admission.held_bytes == 0


async def test_answers_that_come_at_once_are_sent_in_frames_within_the_limit(
    serve: Serve, journal: Script
) -> None:
    served = await serve(max_in_flight=1_024)
    channel = await served.establish()
    hold(journal)
    async with served.client.exchange() as stream:
        # Each frame is within the limit of 1 MiB; all their answers together are not.
        calls = [
            asyncio.ensure_future(stream.call(encrypts(channel, 200, MAX_MESSAGE)))
            for _ in range(3)
        ]
        await until(lambda: served.servicer.admission.under_way == 600)
        journal.gate.set()
        results = [result for call in calls for result in await call]
    assert len(results) == 600
    assert refusals(results) == []


async def test_a_call_beyond_the_services_bound_is_refused_before_any_work(
    serve: Serve, journal: Script, house: House
) -> None:
    served = await serve(max_operations=2)
    channel = await served.establish()
    changes = house.statistics.changes
    hold(journal)
    calls = [asyncio.ensure_future(channel.encrypt(b"x")) for _ in range(2)]
    await until(lambda: served.servicer.admission.under_way == 2)
    with pytest.raises(OverloadedError, match="2 operations"):
        await channel.encrypt(b"x")
    journal.gate.set()
    await asyncio.gather(*calls)
    assert house.statistics.changes == changes + 2


async def test_work_that_its_caller_gave_up_still_counts_until_it_is_done(
    serve: Serve, journal: Script
) -> None:
    served = await serve(max_operations=1)
    channel = await served.establish()
    hold(journal)
    call = asyncio.ensure_future(channel.encrypt(b"x"))
    await until(journal.entered.is_set)
    call.cancel()
    await until(lambda: served.servicer.statistics.unary_in_flight == 0)
    assert served.servicer.admission.under_way == 1
    with pytest.raises(OverloadedError):
        await channel.encrypt(b"x")
    journal.gate.set()
    await until(lambda: served.servicer.admission.under_way == 0)
    await channel.encrypt(b"x")


async def test_streams_are_held_up_rather_than_refused_while_the_service_is_busy(
    serve: Serve, journal: Script
) -> None:
    served = await serve(max_operations=40)  # streams are read on below 30
    channel = await served.establish()
    hold(journal)
    async with served.client.exchange() as one, served.client.exchange() as other:
        first = [asyncio.ensure_future(one.call(encrypts(channel, 10))) for _ in range(5)]
        await until(lambda: served.servicer.admission.under_way == 30)
        second = [asyncio.ensure_future(other.call(encrypts(channel, 10))) for _ in range(5)]
        # The first frame of a stream is read before anything is known of it.
        await until(lambda: served.servicer.admission.under_way == 40)
        journal.gate.set()
        results = await asyncio.gather(*first, *second)
    assert sum(len(refusals(each)) for each in results) == 0


async def test_streams_that_wait_for_room_get_their_turn_and_none_is_forgotten(
    serve: Serve,
) -> None:
    served = await serve(max_operations=16)
    channel = await served.establish()
    streams = [served.client.exchange() for _ in range(8)]
    for stream in streams:
        await stream.__aenter__()
    answered = await asyncio.wait_for(
        asyncio.gather(*(s.call(encrypts(channel, 2)) for s in streams for _ in range(20))),
        PATIENCE,
    )
    assert sum(len(results) for results in answered) == 8 * 20 * 2
    for stream in streams:
        await stream.__aexit__(None, None, None)
    assert served.servicer.admission.under_way == 0


async def test_calls_beyond_a_connections_share_wait_at_the_caller(
    serve: Serve, journal: Script
) -> None:
    served = await serve(ConnectionBounds(max_calls_per_connection=4))
    channel = await served.establish()
    await channel.encrypt(b"settings of the connection have come by now")
    hold(journal)
    calls = [asyncio.ensure_future(channel.encrypt(b"x")) for _ in range(10)]
    await until(lambda: served.servicer.admission.under_way == 4)
    await asyncio.sleep(0.05)
    assert served.servicer.admission.under_way == 4
    journal.gate.set()
    assert len(await asyncio.gather(*calls)) == 10


async def test_calls_beyond_those_of_the_whole_server_are_refused_unread(
    serve: Serve, journal: Script
) -> None:
    served = await serve(ConnectionBounds(max_calls=3))
    channel = await served.establish()
    hold(journal)
    calls = [asyncio.ensure_future(channel.encrypt(b"x")) for _ in range(3)]
    await until(lambda: served.servicer.admission.under_way == 3)
    with pytest.raises(OverloadedError, match="3 calls are open"):
        await channel.encrypt(b"x")
    # What is public has places of its own.
    async with connect(served.address) as connection:
        await health_pb2_grpc.HealthStub(connection).Check(health_pb2.HealthCheckRequest())
    journal.gate.set()
    await asyncio.gather(*calls)


async def test_no_call_is_cancelled_for_having_come_with_many_others(serve: Serve) -> None:
    served = await serve(ConnectionBounds(max_calls_per_connection=3_000), max_operations=8_000)
    channel = await served.establish()
    request = wire.EncryptRequest(connect_id=channel.connect_id, plaintext=b"x")
    # All of them are with gRPC before the service's event loop, which is this one, takes one up.
    calls = [served.client.stub.Encrypt(request) for _ in range(3_000)]
    codes = Counter([await call.code() for call in calls])
    assert codes == {grpc.StatusCode.OK: 3_000}


# --- Slow and idle peers --------------------------------------------------------------------------


class Deaf:
    """A stream whose peer sends and never reads."""

    def __init__(self, address: str) -> None:
        self._connection = connect(
            address,
            options=[
                ("grpc.use_local_subchannel_pool", 1),
                # A receiving window of the smallest size, which does not grow.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", 1_024),
            ],
        )
        self.call = self._connection.stream_stream(
            "/connect_actor.v1.ConnectService/Exchange",
            request_serializer=wire.OperationFrame.SerializeToString,
            response_deserializer=wire.ResultFrame.FromString,
        )()

    async def send_without_end(self, operations: list[wire.Operation]) -> None:
        frame = wire.OperationFrame(operations=operations)
        while True:
            await self.call.write(frame)

    async def read_all(self) -> None:
        async for _ in self.call:
            pass

    async def close(self) -> None:
        self.call.cancel()
        await self._connection.close()


@pytest.fixture
async def deaf() -> AsyncIterator[Callable[[str], Deaf]]:
    made: list[Deaf] = []

    def make(address: str) -> Deaf:
        made.append(Deaf(address))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def test_a_peer_that_never_reads_holds_no_more_than_its_share_and_others_go_on(
    serve: Serve, deaf: Callable[[str], Deaf]
) -> None:
    share, one = 100_000, MAX_MESSAGE + 2_048
    served = await serve(max_in_flight=10_000, max_stream_bytes=share)
    admission = served.servicer.admission
    slow, quick = await served.establish(), await served.establish()
    highest = 0
    peer = deaf(served.address)
    sending = asyncio.ensure_future(peer.send_without_end(encrypts(slow, 8, MAX_MESSAGE)))
    async with served.client.exchange() as stream:
        # Goes on until the deaf peer's stream is not read any more: then nothing moves in it.
        steady, before = 0, -1
        while steady < 20:
            for result in await stream.call(encrypts(quick, 4)):
                require_success(result)
            highest = max(highest, admission.held_bytes)
            steady = steady + 1 if admission.held_bytes == before and before > 0 else 0
            before = admission.held_bytes
            await asyncio.sleep(0.005)
        assert share - one < admission.held_bytes < share + one
        assert highest < share + one + 4 * 2_048
        for result in await stream.call(encrypts(quick, 4)):
            require_success(result)
    sending.cancel()
    await peer.close()
    await until(lambda: admission.held_bytes == 0)


async def test_a_peer_that_never_reads_loses_its_stream_after_a_while(
    serve: Serve, deaf: Callable[[str], Deaf]
) -> None:
    served = await serve(max_stream_bytes=50_000, slow_reader_timeout=0.2)
    channel = await served.establish()
    peer = deaf(served.address)
    sending = asyncio.ensure_future(peer.send_without_end(encrypts(channel, 8, MAX_MESSAGE)))
    await until(lambda: served.servicer.admission.held_bytes >= 50_000)
    await until(lambda: served.servicer.statistics.streams_open == 0)
    # What was being written is with gRPC until the stream is dropped, though its peer never reads.
    await until(lambda: served.servicer.admission.held_bytes == 0)
    with pytest.raises(grpc.aio.AioRpcError):
        await asyncio.wait_for(peer.read_all(), PATIENCE)
    await asyncio.gather(sending, return_exceptions=True)
    await channel.encrypt(b"the channel goes on")


async def test_a_peer_that_reads_after_its_stream_was_ended_is_told_why(
    serve: Serve, deaf: Callable[[str], Deaf]
) -> None:
    served = await serve(max_stream_bytes=50_000, slow_reader_timeout=2)
    channel = await served.establish()
    peer = deaf(served.address)
    sending = asyncio.ensure_future(peer.send_without_end(encrypts(channel, 8, MAX_MESSAGE)))
    await until(lambda: served.servicer.admission.held_bytes >= 50_000)
    await until(lambda: served.servicer.statistics.streams_open == 0)
    # Nothing but the frames that were under way is there to be read.
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(peer.read_all(), PATIENCE)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await asyncio.gather(sending, return_exceptions=True)


async def test_a_stream_without_work_for_too_long_is_ended_in_order(serve: Serve) -> None:
    served = await serve(stream_idle_timeout=0.2)
    channel = await served.establish()
    stream = served.client.stub.Exchange()
    await stream.write(wire.OperationFrame(operations=encrypts(channel, 1)))
    frames = [frame async for frame in stream]
    assert sum(len(frame.results) for frame in frames) == 1
    assert await stream.code() is grpc.StatusCode.OK


async def test_a_stream_that_waits_for_its_answers_is_not_idle(
    serve: Serve, journal: Script
) -> None:
    served = await serve(stream_idle_timeout=0.8)
    channel = await served.establish()
    hold(journal)
    async with served.client.exchange() as stream:
        call = asyncio.ensure_future(stream.call(encrypts(channel, 1)))
        await until(journal.entered.is_set)
        await asyncio.sleep(1.2)
        journal.gate.set()
        require_success((await call)[0])
        # Were it taken for idle, it would not be read any more.
        require_success((await stream.call(encrypts(channel, 1)))[0])


# --- Many connections -----------------------------------------------------------------------------


async def open_socket(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def test_three_hundred_idle_connections_change_nothing_for_others(serve: Serve) -> None:
    served = await serve()
    channel = await served.establish()
    idle = [await open_socket(served.address) for _ in range(300)]
    for number in range(10):
        assert channel.open(await channel.encrypt(b"%d" % number)) == b"%d" % number
    for _, writer in idle:
        writer.close()


async def test_connections_that_bring_garbage_or_close_at_once_change_nothing_for_others(
    serve: Serve,
) -> None:
    served = await serve()
    channel = await served.establish()
    for number in range(100):
        _, writer = await open_socket(served.address)
        if number % 2:
            writer.write(os.urandom(200))
        writer.close()
        if not number % 10:
            assert channel.open(await channel.encrypt(b"x")) == b"x"
    assert channel.open(await channel.encrypt(b"x")) == b"x"


async def test_a_connection_that_says_nothing_is_closed(serve: Serve) -> None:
    served = await serve(ConnectionBounds(handshake_timeout=0.2))
    reader, writer = await open_socket(served.address)
    await asyncio.wait_for(reader.read(), PATIENCE)
    assert reader.at_eof()
    writer.close()


async def test_connections_beyond_the_bound_are_closed_at_once_and_those_within_go_on(
    serve: Serve,
) -> None:
    served = await serve(ConnectionBounds(max_connections=2))
    channel = await served.establish()  # the first connection
    _, second = await open_socket(served.address)
    reader, third = await open_socket(served.address)
    await asyncio.wait_for(reader.read(), PATIENCE)
    assert reader.at_eof()
    assert channel.open(await channel.encrypt(b"x")) == b"x"
    for writer in (second, third):
        writer.close()
