"""Lost answers over real gRPC, unary and stream, and what the client makes of them."""

import os
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest
from grpc.aio import Metadata

from connect_actor import errors
from connect_actor.client import Channel, ConnectClient, Identity, error_of, require_success
from connect_actor.v1 import connect_pb2 as wire
from tests.support.house import House
from tests.support.journals import Script

if TYPE_CHECKING:
    # Known to the type checker only.
    from connect_actor.v1.connect_pb2_grpc import ConnectServiceAsyncStub

KEY = b"a key"


@pytest.fixture
async def house(journal: Script) -> AsyncIterator[House]:
    house = House(journal, wall_clock=True, redelivery_window=4)
    yield house
    await house.close()


class LossyStub:
    """A stub whose next answers get lost, each after the service has given it."""

    def __init__(self, stub: object, code: grpc.StatusCode) -> None:
        self._stub = stub
        self._code = code
        self.to_lose = 0
        self.calls = 0

    def __getattr__(self, name: str) -> Callable[..., object]:
        async def call(request: object, **options: object) -> object:
            self.calls += 1
            response = await getattr(self._stub, name)(request, **options)
            if self.to_lose:
                self.to_lose -= 1
                raise grpc.aio.AioRpcError(self._code, Metadata(), Metadata(), "lost")
            return response

        return call


async def lossy(
    client: ConnectClient, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE
) -> tuple[Channel, LossyStub]:
    """Make a channel over a stub that can lose answers; it is patient enough to repeat twice."""
    channel = await client.establish(Identity.generate(os.urandom))
    stub = LossyStub(client.stub, code)
    made = Channel(
        channel.connect_id,
        channel.session,
        cast("ConnectServiceAsyncStub", stub),
        retry_pauses=(0, 0),
    )
    return made, stub


# --- Unary and stream -----------------------------------------------------------------------------


async def unary(client: ConnectClient, **request: Any) -> Any:  # noqa: ANN401 - by its kind
    ((name, message),) = request.items()
    return await getattr(client.stub, name.capitalize())(message)


async def stream(client: ConnectClient, **request: Any) -> Any:  # noqa: ANN401 - by its kind
    (name,) = request
    async with client.exchange() as opened:
        (result,) = await opened.call([wire.Operation(**request)])
    return getattr(require_success(result), name)


@pytest.mark.parametrize("transport", [unary, stream])
async def test_answers_are_given_again_with_their_number_until_acknowledged(
    client: ConnectClient,
    transport: Callable[..., Any],
) -> None:
    channel = await client.establish(Identity.generate(os.urandom))
    connect_id = channel.connect_id
    received = wire.DecryptRequest(connect_id=connect_id, payload=channel.seal(b"up"))
    sent = wire.EncryptRequest(connect_id=connect_id, plaintext=b"down", idempotency_key=KEY)
    plain = wire.EncryptRequest(connect_id=connect_id, plaintext=b"plain")
    first = await transport(client, decrypt=received)
    assert first == wire.DecryptResponse(plaintext=b"up", delivery_number=1)
    payload = (await transport(client, encrypt=sent)).payload
    assert (await transport(client, encrypt=plain)).delivery_number == 0
    for _ in range(2):
        again = await transport(client, decrypt=received)
        assert again == wire.DecryptResponse(plaintext=b"up", delivery_number=1, redelivered=True)
        assert await transport(client, encrypt=sent) == wire.EncryptResponse(
            payload=payload, delivery_number=2, redelivered=True
        )
    acknowledged = wire.AcknowledgeRequest(connect_id=connect_id, up_to_delivery_number=1)
    for _ in range(2):
        response = await transport(client, acknowledge=acknowledged)
        assert response == wire.AcknowledgeResponse()
    with pytest.raises(errors.MessageReplayedError):
        await channel.decrypt(received.payload)
    assert (await transport(client, encrypt=sent)).redelivered
    assert channel.open(payload) == b"down"


async def test_each_refusal_has_its_own_status_on_a_stream(client: ConnectClient) -> None:
    channel = await client.establish(Identity.generate(os.urandom))
    connect_id = channel.connect_id
    payload = channel.seal(b"up")
    forged = wire.CipherPayload.FromString(payload.SerializeToString())
    forged.request_id = 1
    operations = [
        wire.Operation(decrypt=wire.DecryptRequest(connect_id=connect_id, payload=payload)),
        wire.Operation(decrypt=wire.DecryptRequest(connect_id=connect_id, payload=forged)),
        *(
            wire.Operation(
                encrypt=wire.EncryptRequest(
                    connect_id=connect_id, plaintext=plaintext, idempotency_key=key
                )
            )
            for plaintext, key in ((b"one", KEY), (b"two", KEY), (b"three", bytes(65)))
        ),
        wire.Operation(acknowledge=wire.AcknowledgeRequest(connect_id=connect_id)),
        wire.Operation(acknowledge=wire.AcknowledgeRequest(connect_id=123_456)),
    ]
    async with client.exchange() as opened:
        results = await opened.call(operations)
    refusals = [
        type(error_of(result.error)) if result.HasField("error") else None for result in results
    ]
    assert refusals == [
        None,
        errors.MessageReplayedError,
        None,
        errors.IdempotencyKeyReusedError,
        errors.MalformedRequestError,
        errors.MalformedRequestError,
        errors.ChannelNotFoundError,
    ]


# --- The client -----------------------------------------------------------------------------------


async def test_a_call_whose_answer_got_lost_is_repeated_with_one_and_the_same_outcome(
    client: ConnectClient, house: House
) -> None:
    channel, stub = await lossy(client)
    for losses in (1, 2):
        calls = stub.calls
        stub.to_lose = losses
        assert await channel.decrypt(channel.seal(b"up")) == b"up"
        stub.to_lose = losses
        payload = await channel.encrypt(b"down", idempotency_key=b"%d" % losses)
        assert channel.open(payload) == b"down"
        assert payload.ratchet_index == losses - 1
        assert stub.calls == calls + 2 * (losses + 1)
    assert house.statistics.changes == 4
    assert house.statistics.redelivered == 6


@pytest.mark.parametrize("kind", ["written", "not written"])
async def test_a_write_of_unknown_outcome_is_repeated(
    client: ConnectClient, house: House, journal: Script, kind: str
) -> None:
    channel, stub = await lossy(client)
    (journal.fail_after if kind == "written" else journal.fail_before).append(True)
    assert await channel.decrypt(channel.seal(b"up")) == b"up"
    assert stub.calls == 2
    assert house.statistics.redelivered == (kind == "written")


async def test_a_client_gives_up_after_its_last_pause(client: ConnectClient) -> None:
    channel, stub = await lossy(client)
    stub.to_lose = 3
    with pytest.raises(grpc.aio.AioRpcError, match="lost"):
        await channel.decrypt(channel.seal(b"up"))
    assert stub.calls == 3


async def test_what_can_not_be_repeated_safely_or_to_any_use_is_not(client: ConnectClient) -> None:
    channel, stub = await lossy(client)
    stub.to_lose = 1
    with pytest.raises(grpc.aio.AioRpcError):
        await channel.encrypt(b"without a key")
    with pytest.raises(errors.MalformedRequestError):
        await channel.encrypt(b"x", idempotency_key=bytes(65))
    assert stub.calls == 2
    late, stub = await lossy(client, grpc.StatusCode.DEADLINE_EXCEEDED)
    stub.to_lose = 1
    with pytest.raises(grpc.aio.AioRpcError):
        await late.decrypt(late.seal(b"up"))
    assert stub.calls == 1


async def test_a_client_acknowledges_what_it_has_seen(client: ConnectClient) -> None:
    channel, stub = await lossy(client)
    await channel.acknowledge()
    assert stub.calls == 0
    payloads = [channel.seal(b"%d" % number) for number in range(3)]
    for payload in payloads:
        await channel.decrypt(payload)
    await channel.encrypt(b"plain")
    assert channel.last_delivery_number == 3
    await channel.acknowledge(2)
    assert await channel.decrypt(payloads[2]) == b"2"
    await channel.acknowledge()
    for payload in payloads:
        with pytest.raises(errors.MessageReplayedError):
            await channel.decrypt(payload)
