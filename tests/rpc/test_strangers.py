"""What callers hold before anybody knows them, before their messages are there, and after."""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from connect_actor.access.gate import Gate
from connect_actor.access.tokens import TokenFile, new_token, token_line
from connect_actor.client import Channel, ConnectClient, Identity, require_success
from connect_actor.network.connections import connect
from connect_actor.rpc.admission import Bounds
from connect_actor.rpc.entrance import Context, Places, Visit
from connect_actor.rpc.server import ConnectionBounds, RpcServer
from connect_actor.rpc.servicer import ConnectServicer
from connect_actor.v1 import connect_pb2 as wire
from tests.rpc.conftest import MAX_MESSAGE
from tests.support.house import House, until
from tests.support.http2 import RawPeer, framed
from tests.support.process import PATIENCE

MAX_FRAME = 1_048_576
TOKEN = new_token()
AUTHORIZED = (("authorization", f"Bearer {TOKEN}"),)
CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

Serve = Callable[..., Awaitable[RpcServer]]

Code = grpc.StatusCode


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    path = tmp_path / "tokens"
    path.write_text(token_line("alice", TOKEN) + "\n")
    return Gate(tokens=TokenFile(path))


@pytest.fixture
async def serve(house: House) -> AsyncIterator[Serve]:
    servers: list[RpcServer] = []

    async def serve(
        gate: Gate | None = None,
        connections: ConnectionBounds | None = None,
        **bounds: Any,  # noqa: ANN401 - as the fields of Bounds
    ) -> RpcServer:
        servicer = ConnectServicer(
            house.router,
            max_message_bytes=MAX_MESSAGE,
            max_frame_bytes=MAX_FRAME,
            max_in_flight=256,
            gate=gate,
            bounds=Bounds(**bounds),
        )
        servers.append(
            await RpcServer.start(
                servicer, "127.0.0.1:0", max_frame_bytes=MAX_FRAME, connections=connections
            )
        )
        return servers[-1]

    yield serve
    for server in servers:
        await server.stop(0)


def entrance_of(server: RpcServer) -> Any:  # noqa: ANN401 - whatever a test looks at
    return server._servicer.entrance


class Visits:
    """How many calls were taken up, and how many of them have ended."""

    def __init__(self, server: RpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = self.over = 0
        self._enter = entrance_of(server).enter
        monkeypatch.setattr(entrance_of(server), "enter", self._count)

    def _count(self, context: Context) -> Visit:
        # Not to be kept: a call lives as long as anything holds it.
        visit: Visit = self._enter(context)
        self.begun += 1
        visit.when_over(self._end)
        return visit

    def _end(self) -> None:
        self.over += 1


async def ended(peer: RawPeer, call: int) -> tuple[Code, str]:
    """Wait for a call's end and return its status."""
    await asyncio.wait_for(peer.until(lambda: call in peer.over), PATIENCE)
    number, message = peer.statuses[call]
    return next(code for code in Code if code.value[0] == number), message


async def channel_of(client: ConnectClient) -> Channel:
    return await client.establish(Identity.generate(os.urandom))


# --- Before authentication ------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["Encrypt", "Exchange"])
async def test_a_stranger_is_refused_before_anything_of_his_message_is_there(
    serve: Serve, gate: Gate, method: str
) -> None:
    server = await serve(gate)
    async with RawPeer(server.address) as peer:
        code, _ = await ended(peer, peer.call(method))
        assert code is Code.UNAUTHENTICATED
        begun = peer.call(method, framed(b"", MAX_FRAME))
        assert (await ended(peer, begun))[0] is Code.UNAUTHENTICATED
    assert entrance_of(server).readers.lost == 0


@pytest.mark.parametrize("method", ["Establish", "Encrypt", "Decrypt", "Restore", "Close"])
async def test_a_malformed_message_is_refused_as_such_and_only_once_its_caller_is_known(
    serve: Serve, gate: Gate, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = await serve(gate)
    malformed = framed(b"\x0a\xff\xff\xff")
    async with RawPeer(server.address) as peer:
        stranger = peer.call(method, malformed, end=True)
        assert (await ended(peer, stranger))[0] is Code.UNAUTHENTICATED
        known = peer.call(method, malformed, end=True, metadata=AUTHORIZED)
        code, message = await ended(peer, known)
    assert code is Code.INVALID_ARGUMENT
    assert "see its proto" in message
    assert "protobuf" not in message
    assert not caplog.records


@pytest.mark.parametrize("method", [CHECK, WATCH, REFLECTION])
async def test_a_malformed_message_to_what_is_public_is_refused_as_such(
    serve: Serve, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = await serve()
    async with RawPeer(server.address) as peer:
        code, _ = await ended(peer, peer.call(method, framed(b"\x0a\xff\xff"), end=True))
    assert code is Code.INVALID_ARGUMENT
    assert not caplog.records


@pytest.mark.parametrize("method", ["Encrypt", CHECK])
async def test_a_call_that_ends_without_a_message_is_refused_as_such(
    serve: Serve, method: str
) -> None:
    server = await serve()
    async with RawPeer(server.address) as peer:
        code, message = await ended(peer, peer.call(method, end=True))
    assert code is Code.INVALID_ARGUMENT
    assert "without a message" in message


async def test_a_malformed_frame_ends_its_stream_once_what_came_before_is_answered(
    serve: Serve,
) -> None:
    server = await serve()
    async with ConnectClient(server.address) as client:
        channel = await channel_of(client)
        encrypt = wire.EncryptRequest(connect_id=channel.connect_id, plaintext=b"x")
        frame = wire.OperationFrame(operations=[wire.Operation(encrypt=encrypt)] * 3)
        connection = connect(server.address)
        answers: Any = connection.stream_stream(
            "/connect_actor.v1.ConnectService/Exchange",
            request_serializer=lambda message: message,
            response_deserializer=wire.ResultFrame.FromString,
        )(iter([frame.SerializeToString(), b"\x0a\xff\xff"]))
        # However many frames the three results come in.
        results = 0
        while results < 3:
            results += len((await answers.read()).results)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await answers.read()
        await connection.close()
    assert results == 3
    assert caught.value.code() is Code.INVALID_ARGUMENT


# --- While a message is on its way ----------------------------------------------------------------


@pytest.mark.parametrize("method", ["Encrypt", CHECK, WATCH, REFLECTION])
@pytest.mark.parametrize("data", [(), (framed(b"begun", 1_000),)], ids=["headers only", "begun"])
async def test_a_message_that_does_not_end_in_time_ends_its_call(
    serve: Serve, method: str, data: tuple[bytes, ...]
) -> None:
    server = await serve(message_timeout=0.2)
    async with RawPeer(server.address) as peer:
        code, message = await ended(peer, peer.call(method, *data))
    assert code is Code.DEADLINE_EXCEEDED
    assert "0.2 s" in message
    await until(lambda: entrance_of(server).readers.taken == 0)


async def test_a_message_that_comes_in_pieces_is_served(serve: Serve) -> None:
    server = await serve()
    async with ConnectClient(server.address) as client, RawPeer(server.address) as peer:
        channel = await channel_of(client)
        request = wire.RestoreRequest(connect_id=channel.connect_id).SerializeToString()
        pieces = [bytes([octet]) for octet in framed(request)]
        code, _ = await ended(peer, peer.call("Restore", *pieces, end=True))
    assert code is Code.OK


async def test_calls_without_messages_push_out_themselves_and_one_that_brings_its_message_is_served(
    serve: Serve,
) -> None:
    server = await serve(max_bytes=1 << 20)  # as few may wait for messages as possible
    readers = entrance_of(server).readers
    more = 8
    async with RawPeer(server.address) as peer:
        calls = [peer.call("Encrypt") for _ in range(readers.size + more)]
        told = [await ended(peer, call) for call in calls[:more]]
        assert {code for code, _ in told} == {Code.RESOURCE_EXHAUSTED}
        assert readers.taken == readers.size
        restore = framed(wire.RestoreRequest(connect_id=1).SerializeToString())
        assert (await ended(peer, peer.call("Restore", restore, end=True)))[0] is Code.NOT_FOUND
        assert readers.lost == more + 1


async def test_the_stream_that_is_idle_for_longest_ends_when_its_place_is_needed(
    serve: Serve,
) -> None:
    server = await serve(max_bytes=1 << 20)
    size = entrance_of(server).readers.size
    async with ConnectClient(server.address) as client:
        channel = await channel_of(client)
        request = wire.EncryptRequest(connect_id=channel.connect_id, plaintext=b"x")
        frame = wire.OperationFrame(operations=[wire.Operation(encrypt=request)])
        streams = []
        for _ in range(size + 2):
            streams.append(client.stub.Exchange())
            await streams[-1].write(frame)
            answer: Any = await streams[-1].read()
            require_success(answer.results[0])
        for lost in streams[:2]:
            assert await asyncio.wait_for(lost.code(), PATIENCE) is Code.RESOURCE_EXHAUSTED
        # Whose turn it is not goes on.
        await streams[-1].write(frame)
        answer = await streams[-1].read()
        require_success(answer.results[0])
        for stream in streams:
            stream.cancel()


# --- What is public -------------------------------------------------------------------------------


async def test_watching_health_is_bounded_and_a_watcher_beyond_that_ends_an_older_one(
    serve: Serve,
) -> None:
    server = await serve()
    entrance_of(server).strangers.size = 4

    async def until_it_ends(watch: Any) -> Code:  # noqa: ANN401 - its stubs lack what it is
        with suppress(grpc.aio.AioRpcError):
            async for _ in watch:
                pass
        code: Code = await watch.code()
        return code

    async with connect(server.address) as connection:
        health = health_pb2_grpc.HealthStub(connection)
        watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(6)]
        ends = [asyncio.ensure_future(until_it_ends(watch)) for watch in watches]
        await until(lambda: sum(end.done() for end in ends) == 2)
        told = Counter(end.result() for end in ends if end.done())
        # One whose first answer was just being written can't be told why.
        assert set(told) <= {Code.RESOURCE_EXHAUSTED, Code.CANCELLED}
        assert entrance_of(server).strangers.taken == 4
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


async def test_a_watcher_who_does_not_read_keeps_others_neither_from_watching_nor_from_an_end(
    serve: Serve,
) -> None:
    server = await serve()
    connection = connect(server.address)
    async with RawPeer(server.address, window=0) as deaf:
        deaf.call(WATCH, framed(b""), end=True)
        watch = health_pb2_grpc.HealthStub(connection).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.ensure_future(server.stop(PATIENCE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await asyncio.wait_for(watch.code(), PATIENCE) is Code.OK
    await asyncio.wait_for(stopping, PATIENCE)
    await connection.close()


# --- After the answer -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["Restore", CHECK, WATCH])
async def test_a_call_whose_answer_is_not_read_is_dropped_and_its_bytes_are_held_until_then(
    serve: Serve, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve(slow_reader_timeout=0.3)
    admission = server._servicer.admission
    async with ConnectClient(server.address) as client:
        channel = await channel_of(client)
        visits = Visits(server, monkeypatch)
        request = wire.RestoreRequest(connect_id=channel.connect_id).SerializeToString()
        async with RawPeer(server.address, window=0) as peer:
            number = peer.call(method, framed(b"" if method.startswith("/") else request), end=True)
            await until(lambda: visits.begun == 1)
            if method == WATCH:
                # It is a stranger's, and goes when others need its place.
                entrance_of(server).strangers._lose_one()
            await until(lambda: visits.over == 1)
            # grpcio holds the last call that it has taken up until the next one comes.
            await channel.encrypt(b"others go on")
            await asyncio.wait_for(peer.until(lambda: number in peer.over), PATIENCE)
            # No answer got through, and a status only where there was none to wait for.
            assert peer.data == 0
            assert Code.OK.value[0] not in {code for code, _ in peer.statuses.values()}
        await until(lambda: admission.held_bytes == 0)


# --- Resets ---------------------------------------------------------------------------------------


async def test_a_peer_that_opens_and_resets_calls_has_no_more_of_them_taken_up_than_may_be_open(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = 32
    server = await serve(None, ConnectionBounds(max_calls_per_connection=bound))
    visits = Visits(server, monkeypatch)
    async with RawPeer(server.address) as peer:
        # All of it is with gRPC before this event loop, which is the service's, too, takes up one.
        for _ in range(2_000):
            peer.reset(peer.call("Encrypt"))
        await peer.drained()
        last = peer.call(CHECK, framed(b""), end=True)
        await asyncio.wait_for(peer.until(lambda: last in peer.over), PATIENCE)
        async with connect(server.address) as connection:
            await health_pb2_grpc.HealthStub(connection).Check(health_pb2.HealthCheckRequest())
    assert visits.begun < 1_000


# --- Places ---------------------------------------------------------------------------------------


def test_a_caller_with_fewer_places_loses_none_to_one_with_more() -> None:
    lost: list[str] = []
    places = Places(4)
    places.take("few", lambda: lost.append("few"))
    for number in range(10):
        places.take("many", lambda number=number: lost.append(f"many {number}"))  # type: ignore[misc] # mypy knows no defaults of lambdas
    assert lost == [f"many {number}" for number in range(7)]
    assert places.taken == places.size
    assert places.lost == 7


def test_places_are_shared_evenly_among_callers_that_want_as_many_as_they_can_get() -> None:
    places = Places(12)
    held = dict.fromkeys("abc", 0)

    def lose(name: str) -> None:
        held[name] -= 1

    for _ in range(50):
        for name in held:
            held[name] += 1
            places.take(name, lambda name=name: lose(name))  # type: ignore[misc] # mypy knows no defaults of lambdas
    assert sum(held.values()) == 12
    assert set(held.values()) <= {3, 4, 5}


def test_a_place_is_given_back_once() -> None:
    places = Places(1)
    first = places.take("a", lambda: None)
    places.leave(first)
    places.leave(first)
    assert places.taken == 0
    second = places.take("b", lambda: None)
    third = places.take("c", lambda: None)
    assert (second.lost, third.lost) == (True, False)
    places.leave(second)
    assert places.taken == 1
