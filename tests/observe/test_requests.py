"""Request metrics over real gRPC: each moves by what was done, and by nothing else."""

import asyncio
from contextlib import suppress

import grpc
import pytest

from connect_actor import errors
from connect_actor.client import Channel, ConnectClient
from connect_actor.rpc import operations
from connect_actor.rpc.statistics import ANSWER_CODES
from connect_actor.rpc.status import STATUSES
from connect_actor.v1 import connect_pb2 as wire
from tests.rpc.conftest import MAX_MESSAGE
from tests.support.house import until
from tests.support.journals import Script
from tests.support.meter import Meter

UNKNOWN = 123_456


@pytest.fixture(autouse=True)
def marked(channel: Channel, meter: Meter) -> None:
    """Have a channel, and let growth begin after its handshake."""
    del channel
    meter.mark()


def encrypt(connect_id: int, size: int = 1) -> wire.Operation:
    return wire.Operation(encrypt=wire.EncryptRequest(connect_id=connect_id, plaintext=bytes(size)))


async def exchange(client: ConnectClient, *frame: wire.Operation) -> list[wire.OperationResult]:
    async with client.exchange() as stream:
        return await stream.call(frame)


async def test_operations_count_by_kind_transport_and_status(
    client: ConnectClient, channel: Channel, meter: Meter
) -> None:
    for _ in range(3):
        await channel.encrypt(b"x")
    await channel.decrypt(channel.seal(b"x"))
    await exchange(client, *(encrypt(channel.connect_id) for _ in range(5)))
    assert meter.all_grown("connect_operations_total") == {
        ("encrypt", "OK", "unary"): 3,
        ("decrypt", "OK", "unary"): 1,
        ("encrypt", "OK", "stream"): 5,
    }
    assert meter.grown("connect_operation_duration_seconds_count", operation="encrypt") == 8
    assert meter.grown("connect_operation_duration_seconds_count", operation="decrypt") == 1
    assert meter.grown("connect_operation_duration_seconds_sum", operation="encrypt") > 0
    assert meter.all_grown("connect_refusals_total") == {}


async def test_every_kind_of_operation_is_counted_under_its_name(
    client: ConnectClient, channel: Channel, meter: Meter
) -> None:
    await client.stub.Restore(wire.RestoreRequest(connect_id=channel.connect_id))
    await channel.close()
    await exchange(client, wire.Operation(restore=wire.RestoreRequest(connect_id=UNKNOWN)))
    assert (
        meter.value(
            "connect_operations_total", operation="establish", transport="unary", status="OK"
        )
        == 1
    )
    assert meter.all_grown("connect_operations_total") == {
        ("restore", "OK", "unary"): 1,
        ("close", "OK", "unary"): 1,
        ("restore", "NOT_FOUND", "stream"): 1,
    }


async def test_refusals_count_by_reason_whatever_the_transport(
    client: ConnectClient, channel: Channel, meter: Meter
) -> None:
    payload = channel.seal(b"once")
    await channel.decrypt(payload)
    with pytest.raises(errors.MessageReplayedError):
        await channel.decrypt(payload)
    with pytest.raises(errors.MessageTooLargeError):
        await channel.encrypt(bytes(MAX_MESSAGE + 1))
    await exchange(
        client,
        encrypt(UNKNOWN),
        encrypt(UNKNOWN),
        encrypt(channel.connect_id, MAX_MESSAGE + 1),
        wire.Operation(),
    )
    assert meter.all_grown("connect_refusals_total") == {
        ("MESSAGE_REPLAYED",): 1,
        ("MESSAGE_TOO_LARGE",): 2,
        ("CHANNEL_NOT_FOUND",): 2,
        ("MALFORMED_REQUEST",): 1,
    }
    assert meter.all_grown("connect_operations_total") == {
        ("decrypt", "OK", "unary"): 1,
        ("decrypt", "ALREADY_EXISTS", "unary"): 1,
        ("encrypt", "INVALID_ARGUMENT", "unary"): 1,
        ("encrypt", "NOT_FOUND", "stream"): 2,
        ("encrypt", "INVALID_ARGUMENT", "stream"): 1,
        ("unknown", "INVALID_ARGUMENT", "stream"): 1,
    }
    assert meter.grown("connect_operation_duration_seconds_count", operation="encrypt") == 4


async def test_a_refusal_that_no_channel_was_asked_for_counts_alike(
    client: ConnectClient, meter: Meter
) -> None:
    with suppress(grpc.aio.AioRpcError):
        await client.stub.Encrypt(wire.EncryptRequest(connect_id=0, plaintext=b"x"))
    assert meter.all_grown("connect_refusals_total") == {("MALFORMED_REQUEST",): 1}


async def test_a_defect_counts_as_unknown(
    client: ConnectClient, meter: Meter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(operations, "_require_known_form", defect)
    with suppress(grpc.aio.AioRpcError):
        await client.stub.Encrypt(wire.EncryptRequest(connect_id=UNKNOWN))
    assert meter.all_grown("connect_operations_total") == {("encrypt", "UNKNOWN", "unary"): 1}
    assert meter.all_grown("connect_refusals_total") == {}
    assert meter.value("connect_operations_in_flight", transport="unary") == 0


async def test_what_waits_for_its_commit_is_in_flight_and_then_is_not(
    client: ConnectClient, channel: Channel, meter: Meter, journal: Script
) -> None:
    journal.gate.clear()
    call = asyncio.ensure_future(channel.encrypt(b"x"))
    async with client.exchange() as stream:
        frames = [
            asyncio.ensure_future(stream.call([encrypt(channel.connect_id) for _ in range(size)]))
            for size in (1, 3)
        ]
        await until(lambda: meter.value("connect_operations_in_flight", transport="unary") == 1)
        await until(lambda: meter.value("connect_operations_in_flight", transport="stream") == 4)
        assert meter.value("connect_streams_open") == 1
        assert meter.all_grown("connect_operations_total") == {}
        journal.gate.set()
        await asyncio.gather(call, *frames)
    await until(lambda: meter.value("connect_streams_open") == 0)
    assert meter.value("connect_operations_in_flight", transport="unary") == 0
    assert meter.value("connect_operations_in_flight", transport="stream") == 0
    assert meter.all_grown("connect_operations_total") == {
        ("encrypt", "OK", "unary"): 1,
        ("encrypt", "OK", "stream"): 4,
    }


async def test_what_nobody_waits_for_any_more_is_no_longer_in_flight_and_never_answered(
    client: ConnectClient, channel: Channel, meter: Meter, journal: Script
) -> None:
    journal.gate.clear()
    call = asyncio.ensure_future(channel.encrypt(b"x"))
    stream = client.exchange()
    await stream.__aenter__()
    frame = asyncio.ensure_future(stream.call([encrypt(channel.connect_id)]))
    await until(lambda: meter.value("connect_operations_in_flight", transport="unary") == 1)
    await until(lambda: meter.value("connect_operations_in_flight", transport="stream") == 1)
    call.cancel()
    frame.cancel()
    await stream.__aexit__(RuntimeError, None, None)
    for transport in ("unary", "stream"):
        await until(
            lambda at=transport: meter.value("connect_operations_in_flight", transport=at) == 0  # type: ignore[misc] # mypy can't type a default
        )
    await until(lambda: meter.value("connect_streams_open") == 0)
    journal.gate.set()
    await channel.encrypt(b"y")
    assert meter.all_grown("connect_operations_total") == {("encrypt", "OK", "unary"): 1}


async def test_frames_and_their_operations_count_in_both_directions(
    client: ConnectClient, channel: Channel, meter: Meter
) -> None:
    async with client.exchange() as stream:
        for size in (1, 2, 3):
            await stream.call([encrypt(channel.connect_id) for _ in range(size)])
    assert meter.grown("connect_stream_frames_total", direction="in") == 3
    sizes = "connect_stream_frame_operations"
    assert meter.grown(f"{sizes}_sum", direction="in") == 6
    assert meter.grown(f"{sizes}_bucket", direction="in", le="1.0") == 1
    assert meter.grown(f"{sizes}_bucket", direction="in", le="2.0") == 2
    assert meter.grown(f"{sizes}_bucket", direction="in", le="4.0") == 3
    assert meter.grown(f"{sizes}_sum", direction="out") == 6
    assert meter.grown("connect_stream_frames_total", direction="out") == meter.grown(
        f"{sizes}_count", direction="out"
    )
    assert meter.value(f"{sizes}_bucket", direction="in", le="1024.0") == 3


def test_every_status_and_every_reason_has_its_series_from_the_start(meter: Meter) -> None:
    for reason in (rule.reason for rule in STATUSES.values()):
        assert meter.value("connect_refusals_total", reason=reason) >= 0
    for status in ANSWER_CODES:
        for transport in ("unary", "stream"):
            assert (
                meter.value(
                    "connect_operations_total",
                    operation="decrypt",
                    transport=transport,
                    status=status,
                )
                == 0
            )
