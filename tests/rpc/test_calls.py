"""Unary calls, streams and what surrounds them, over real gRPC."""

import asyncio
import os
from collections import Counter
from typing import Any, cast

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from connect_actor import errors
from connect_actor.actors import dispatcher
from connect_actor.client import ConnectClient, Identity, error_of, require_success
from connect_actor.network.addresses import ListenError
from connect_actor.network.connections import connect
from connect_actor.rpc.exchange import MAX_OPERATIONS
from connect_actor.rpc.server import RpcServer
from connect_actor.rpc.servicer import ConnectServicer
from connect_actor.rpc.status import STATUSES, status_of
from connect_actor.v1 import connect_pb2 as wire
from connect_actor.v1.connect_pb2_grpc import ConnectServiceStub
from tests.fuzz.driver import CORPUS
from tests.rpc.conftest import MAX_MESSAGE
from tests.support.house import House, until
from tests.support.journals import Script
from tests.support.process import PATIENCE

UNKNOWN = 123_456


@pytest.fixture
def identity() -> Identity:
    return Identity.generate(os.urandom)


def encrypt(connect_id: int, plaintext: bytes) -> wire.Operation:
    return wire.Operation(encrypt=wire.EncryptRequest(connect_id=connect_id, plaintext=plaintext))


# --- Unary --------------------------------------------------------------------------------------


async def test_both_ends_talk_in_both_directions(client: ConnectClient, identity: Identity) -> None:
    channel = await client.establish(identity)
    for number in range(40):
        down, up = b"down %d" % number, b"up %d" % number
        assert channel.open(await channel.encrypt(down, request_id=number)) == down
        assert await channel.decrypt(channel.seal(up)) == up


async def test_a_payload_carries_the_callers_request_id(
    client: ConnectClient, identity: Identity
) -> None:
    channel = await client.establish(identity)
    payload = await channel.encrypt(b"x", request_id=2**64 - 1)
    assert payload.request_id == 2**64 - 1
    payload.request_id = 1
    with pytest.raises(errors.AuthenticationFailedError):
        channel.open(payload)


async def test_a_wrong_pin_refuses_the_service(server: RpcServer, identity: Identity) -> None:
    async with ConnectClient(server.address, pinned_identity=bytes(32)) as client:
        with pytest.raises(errors.HandshakeRefusedError):
            await client.establish(identity)


async def test_restore_tells_where_the_channel_stands(
    client: ConnectClient, identity: Identity
) -> None:
    channel = await client.establish(identity)
    await channel.encrypt(b"1")
    channel.seal(b"lost")
    await channel.decrypt(channel.seal(b"arrives"))
    standing = await channel.restore()
    assert (standing.sending_chain_length, standing.receiving_chain_length) == (1, 2)
    assert standing.skipped_message_keys == 1


async def test_a_closed_channel_is_not_found(client: ConnectClient, identity: Identity) -> None:
    channel = await client.establish(identity)
    await channel.close()
    with pytest.raises(errors.ChannelNotFoundError):
        await channel.restore()


async def codes_of(client: ConnectClient, connect_id: int) -> set[grpc.StatusCode]:
    """Ask for everything that names a channel, by calls and over a stream; return the codes."""
    payload = wire.CipherPayload(nonce=bytes(12), ciphertext=bytes(16), dh_public_key=bytes(32))
    codes = set()
    operations = []
    requests: tuple[tuple[str, Any], ...] = (
        ("encrypt", wire.EncryptRequest(connect_id=connect_id)),
        ("decrypt", wire.DecryptRequest(connect_id=connect_id, payload=payload)),
        ("acknowledge", wire.AcknowledgeRequest(connect_id=connect_id, up_to_delivery_number=1)),
        ("restore", wire.RestoreRequest(connect_id=connect_id)),
        ("close", wire.CloseRequest(connect_id=connect_id)),
    )
    for name, request in requests:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(client.stub, name.capitalize())(request)
        codes.add(caught.value.code())
        operations.append(wire.Operation(**{name: request}))
    async with client.exchange() as stream:
        results = await stream.call(operations)
    by_number = {code.value[0]: code for code in grpc.StatusCode}
    return codes | {by_number[result.error.code] for result in results}


@pytest.mark.parametrize("connect_id", [1, UNKNOWN, 2**63 - 1])
async def test_an_id_of_no_channel_is_not_found(client: ConnectClient, connect_id: int) -> None:
    assert await codes_of(client, connect_id) == {grpc.StatusCode.NOT_FOUND}


@pytest.mark.parametrize("connect_id", [0, 2**63, 2**64 - 1])
async def test_an_id_that_no_channel_can_have_is_an_invalid_argument(
    client: ConnectClient, connect_id: int
) -> None:
    assert await codes_of(client, connect_id) == {grpc.StatusCode.INVALID_ARGUMENT}


async def test_every_number_may_be_as_large_as_its_field_and_harms_nothing(
    client: ConnectClient, identity: Identity, caplog: pytest.LogCaptureFixture
) -> None:
    channel = await client.establish(identity)
    number = 2**64 - 1
    for request_id in (number, 2**63):
        sent = await client.stub.Encrypt(
            wire.EncryptRequest(
                connect_id=channel.connect_id, plaintext=b"x", request_id=request_id
            )
        )
        assert sent.payload.request_id == request_id
        assert channel.open(sent.payload) == b"x"
    for field, value in (
        ("request_id", number),
        ("created_at_unix_micros", -(2**63)),
        ("created_at_unix_micros", 2**63 - 1),
        ("ratchet_index", 2**32 - 1),
        ("previous_chain_length", 2**32 - 1),
    ):
        payload = channel.seal(b"y")
        setattr(payload, field, value)
        # Forged, malformed, or too far ahead: each is the caller's or the peer's.
        with pytest.raises((errors.CallerError, errors.PeerError)):
            await channel.decrypt(payload)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stub.Acknowledge(
            wire.AcknowledgeRequest(connect_id=channel.connect_id, up_to_delivery_number=number)
        )
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert not caplog.records
    assert await channel.decrypt(channel.seal(b"sound")) == b"sound"


async def test_an_error_carries_a_reason_for_programs(client: ConnectClient) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stub.Restore(wire.RestoreRequest(connect_id=UNKNOWN))
    status = rpc_status.from_call(caught.value)
    assert status is not None
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("CHANNEL_NOT_FOUND", "connect-actor")


@pytest.mark.parametrize(("size", "accepted"), [(MAX_MESSAGE, True), (MAX_MESSAGE + 1, False)])
async def test_a_message_may_be_as_large_as_the_limit_and_no_larger(
    client: ConnectClient,
    identity: Identity,
    size: int,
    accepted: bool,  # noqa: FBT001 - a test's parameter
) -> None:
    channel = await client.establish(identity)
    if accepted:
        assert channel.open(await channel.encrypt(bytes(size))) == bytes(size)
    else:
        with pytest.raises(errors.MessageTooLargeError, match=str(MAX_MESSAGE)):
            await channel.encrypt(bytes(size))


@pytest.mark.parametrize(
    ("field", "value"),
    [("nonce", b"short"), ("dh_public_key", b""), ("ciphertext", bytes(15))],
)
async def test_a_malformed_payload_is_refused_and_the_channel_unharmed(
    client: ConnectClient, identity: Identity, field: str, value: bytes
) -> None:
    channel = await client.establish(identity)
    payload = channel.seal(b"sound")
    broken = wire.CipherPayload.FromString(payload.SerializeToString())
    setattr(broken, field, value)
    with pytest.raises(errors.MalformedRequestError, match=field):
        await channel.decrypt(broken)
    assert await channel.decrypt(payload) == b"sound"


async def test_a_call_whose_caller_gives_up_leaves_the_channel_working(
    client: ConnectClient, identity: Identity, journal: Script
) -> None:
    channel = await client.establish(identity)
    journal.entered.clear()
    journal.gate.clear()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.encrypt(b"given up", timeout=0.05)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    journal.gate.set()
    payload = await channel.encrypt(b"next")
    assert payload.ratchet_index == 1
    assert channel.open(payload) == b"next"


# --- Streams ------------------------------------------------------------------------------------


async def test_a_frame_carries_operations_of_all_kinds_for_many_channels(
    client: ConnectClient, identity: Identity
) -> None:
    one, two = await client.establish(identity), await client.establish(identity)
    initiation = client.begin(identity)
    async with client.exchange() as stream:
        results = await stream.call(
            [
                encrypt(one.connect_id, b"a"),
                wire.Operation(
                    decrypt=wire.DecryptRequest(connect_id=two.connect_id, payload=two.seal(b"b"))
                ),
                wire.Operation(restore=wire.RestoreRequest(connect_id=one.connect_id)),
                wire.Operation(establish=initiation.request),
                wire.Operation(close=wire.CloseRequest(connect_id=two.connect_id)),
                encrypt(UNKNOWN, b"c"),
                wire.Operation(),
            ]
        )
    kinds = [result.WhichOneof("outcome") for result in results]
    assert kinds == ["encrypt", "decrypt", "restore", "establish", "close", "error", "error"]
    assert one.open(results[0].encrypt.payload) == b"a"
    assert results[1].decrypt.plaintext == b"b"
    third = client.complete(initiation, results[3].establish)
    assert third.open(await third.encrypt(b"d")) == b"d"
    assert isinstance(error_of(results[5].error), errors.ChannelNotFoundError)
    assert isinstance(error_of(results[6].error), errors.MalformedRequestError)


async def test_a_channels_results_keep_the_order_of_its_operations(
    client: ConnectClient, identity: Identity
) -> None:
    channels = [await client.establish(identity) for _ in range(5)]
    async with client.exchange() as stream:
        frames = [
            stream.call([encrypt(c.connect_id, b"%d" % n) for c in channels]) for n in range(40)
        ]
        for number, results in enumerate(await asyncio.gather(*frames)):
            for channel, result in zip(channels, results, strict=True):
                payload = require_success(result).encrypt.payload
                assert channel.open(payload) == b"%d" % number


async def test_a_frame_of_too_many_operations_ends_the_stream_behind_the_answers_to_earlier_ones(
    client: ConnectClient, identity: Identity, house: House
) -> None:
    channel = await client.establish(identity)
    changes = house.statistics.changes
    call = client.stub.Exchange()
    await call.write(wire.OperationFrame(operations=[encrypt(channel.connect_id, b"x")]))
    many = [encrypt(channel.connect_id, b"")] * (MAX_OPERATIONS + 1)
    await call.write(wire.OperationFrame(operations=many))
    answered = await call.read()
    assert isinstance(answered, wire.ResultFrame)
    assert [result.WhichOneof("outcome") for result in answered.results] == ["encrypt"]
    with pytest.raises(grpc.aio.AioRpcError, match=f"{MAX_OPERATIONS + 1} operations") as caught:
        await call.read()
    status = rpc_status.from_call(caught.value)
    assert status is not None
    assert isinstance(error_of(status), errors.MessageTooLargeError)
    assert house.statistics.changes == changes + 1


async def test_a_frame_of_as_many_operations_as_may_be_is_answered(client: ConnectClient) -> None:
    async with client.exchange() as stream:
        results = await stream.call([wire.Operation() for _ in range(MAX_OPERATIONS)])
    assert Counter(result.error.code for result in results) == {
        grpc.StatusCode.INVALID_ARGUMENT.value[0]: MAX_OPERATIONS
    }


async def test_results_of_a_stream_share_a_commit(
    client: ConnectClient,
    identity: Identity,
    journal: Script,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatcher, "PASS_SECONDS", 10.0)  # however slow the machine is
    channels = [await client.establish(identity) for _ in range(8)]
    commits = len(journal.batches)
    async with client.exchange() as stream:
        for result in await stream.call([encrypt(c.connect_id, b"x") for c in channels]):
            require_success(result)
    assert len(journal.batches) == commits + 1


@pytest.mark.parametrize("frame", [1, 600])
async def test_a_stream_takes_no_more_than_its_share_in_flight(
    client: ConnectClient, identity: Identity, journal: Script, house: House, frame: int
) -> None:
    channel, other = [await client.establish(identity) for _ in range(2)]
    journal.entered.clear()
    journal.gate.clear()
    # Keeps the committer busy, so that all others wait.
    first = asyncio.ensure_future(other.encrypt(b"x"))
    await until(journal.entered.is_set)
    async with client.exchange() as stream:
        calls = [
            asyncio.ensure_future(
                stream.call([encrypt(channel.connect_id, b"x") for _ in range(frame)])
            )
            for _ in range(600 // frame)
        ]
        await until(lambda: house.committer.waiting >= 256)
        await asyncio.sleep(0.1)
        assert house.committer.waiting == 256
        journal.gate.set()
        await first
        for results in await asyncio.gather(*calls):
            for result in results:
                require_success(result)


async def test_a_stream_of_a_stopping_service_ends_once_all_is_answered(
    client: ConnectClient, identity: Identity, server: RpcServer
) -> None:
    channel = await client.establish(identity)
    async with client.exchange() as stream:
        require_success((await stream.call([encrypt(channel.connect_id, b"x")]))[0])
        await server.stop(5)
        with pytest.raises((ConnectionError, grpc.aio.AioRpcError)):
            await stream.call([encrypt(channel.connect_id, b"y")])


# --- Around the service ---------------------------------------------------------------------------


async def test_the_health_service_says_serving(server: RpcServer) -> None:
    async with connect(server.address) as connection:
        stub = health_pb2_grpc.HealthStub(connection)
        for name in ("", "connect_actor.v1.ConnectService"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_reflection_lists_the_service(server: RpcServer) -> None:
    async with connect(server.address) as connection:
        stub = reflection_pb2_grpc.ServerReflectionStub(connection)
        call = stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        answer = await anext(aiter(call))
    names = {service.name for service in answer.list_services_response.service}
    assert "connect_actor.v1.ConnectService" in names
    assert "grpc.health.v1.Health" in names


async def test_a_port_in_use_is_a_clear_error(server: RpcServer, house: House) -> None:
    servicer = ConnectServicer(
        house.router, max_message_bytes=1, max_frame_bytes=1, max_in_flight=1
    )
    with pytest.raises(ListenError, match=f"{server.address}: the address is in use"):
        await RpcServer.start(servicer, server.address, max_frame_bytes=1)


# --- Errors as statuses ---------------------------------------------------------------------------


def leaves(kind: type[errors.ConnectError]) -> set[type[errors.ConnectError]]:
    """Return the errors that nothing public refines."""
    below = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return set().union(*(leaves(child) for child in below)) if below else {kind}


def test_every_error_has_exactly_one_status_and_every_status_an_error() -> None:
    assert set(STATUSES) == leaves(errors.ConnectError)


def test_reasons_are_unique() -> None:
    reasons = [rule.reason for rule in STATUSES.values()]
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize("kind", sorted(leaves(errors.ConnectError), key=str))
def test_an_error_comes_back_as_what_it_was(kind: type[errors.ConnectError]) -> None:
    status = Status.FromString(status_of(kind("what to do")).SerializeToString())
    back = error_of(status)
    assert type(back) is kind
    assert str(back) == "what to do"


async def test_a_stub_of_any_language_needs_nothing_but_the_proto(
    server: RpcServer, client: ConnectClient, identity: Identity
) -> None:
    channel = await client.establish(identity)
    async with connect(server.address) as connection:
        stub = ConnectServiceStub(connection)
        answer = await stub.Encrypt(
            wire.EncryptRequest(connect_id=channel.connect_id, plaintext=b"x")
        )
    assert channel.open(answer.payload) == b"x"


async def test_a_call_to_no_name_at_all_is_refused_and_changes_nothing_for_others(
    server: RpcServer, client: ConnectClient, identity: Identity
) -> None:
    # The same fault as tests/fuzz/corpus/connection/fault-method-not-utf-8.
    channel = await client.establish(identity)
    host, _, port = server.address.rpartition(":")
    garbage = (CORPUS / "connection" / "fault-method-not-utf-8").read_bytes()
    async with client.exchange() as stream:
        for _ in range(3):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(garbage)
            # Its answer is on its way behind the settings.
            await asyncio.wait_for(reader.read(1), PATIENCE)
            writer.close()
            request = wire.EncryptRequest(connect_id=channel.connect_id, plaintext=b"x")
            # The very stream that was there before goes on.
            (result,) = await stream.call([wire.Operation(encrypt=request)])
            require_success(result)


@pytest.mark.parametrize(
    "method", ["/connect_actor.v1.ConnectService/Rekey", "/no/such", "/\u00ff"]
)
async def test_an_unknown_method_is_unimplemented(server: RpcServer, method: str) -> None:
    async with connect(server.address) as connection:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await connection.unary_unary(method)(cast("Any", b""))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
