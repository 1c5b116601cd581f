"""What fails for the service's own reasons is told at any level, with the ids that it concerns."""

import logging
import math
import os

import grpc
import pytest

from connect_actor.client import Channel, ConnectClient, Identity
from connect_actor.errors import ChannelDamagedError
from connect_actor.persistence.contract import CorruptRecordError
from connect_actor.protocol.session import Session
from connect_actor.rpc import status
from connect_actor.v1 import connect_pb2 as wire
from tests.support.journals import Script


async def refused_encrypt(client: ConnectClient, channel: Channel) -> str:
    """Return the request id of an Encrypt that is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await client.stub.Encrypt(wire.EncryptRequest(connect_id=channel.connect_id))
    return str(dict(refused.value.trailing_metadata())["x-request-id"])


def told(caplog: pytest.LogCaptureFixture, **fields: object) -> list[tuple[str, str]]:
    return [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if all(getattr(record, name, None) == value for name, value in fields.items())
    ]


async def test_a_failed_commit_names_the_request_and_the_channel(
    client: ConnectClient, journal: Script, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    channel = await client.establish(Identity.generate(os.urandom))
    journal.fail_before = [True]
    request_id = await refused_encrypt(client, channel)
    assert told(caplog, request_id=request_id, reason="WRITE_UNCERTAIN") == [("WARNING", "refused")]
    ((level, event),) = told(caplog, connect_id=channel.connect_id)
    assert (level, event[:15]) == ("WARNING", "a commit failed")


async def test_a_crashed_actor_names_the_request_and_the_channel(
    client: ConnectClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    channel = await client.establish(Identity.generate(os.urandom))

    def encrypt(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Session, "encrypt", encrypt)
    request_id = await refused_encrypt(client, channel)
    assert told(caplog, request_id=request_id) == [("WARNING", "refused")]
    assert told(caplog, connect_id=channel.connect_id) == [
        ("ERROR", f"connect-{channel.connect_id} met a defect and stops")
    ]


async def test_a_slow_operation_is_told_of_with_its_request_id(
    client: ConnectClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    channel = await client.establish(Identity.generate(os.urandom))
    operation = wire.EncryptRequest(connect_id=channel.connect_id)

    async def unary(request_id: str) -> None:
        await client.stub.Encrypt(operation, metadata=(("x-request-id", request_id),))

    async def stream(request_id: str) -> None:
        frame = wire.OperationFrame(
            operations=[
                wire.Operation(operation_id=7),
                wire.Operation(operation_id=8, encrypt=operation),
            ]
        )
        metadata = (("x-request-id", request_id),)
        async for _ in client.stub.Exchange(iter([frame]), metadata=metadata):
            pass

    monkeypatch.setattr(status, "SLOW_SECONDS", 0.0)
    await unary("slow-call")
    await stream("slow-stream")
    monkeypatch.setattr(status, "SLOW_SECONDS", math.inf)
    await unary("quick-call")
    await stream("quick-stream")
    slow = [record for record in caplog.records if record.getMessage() == "slow"]
    assert {(record.levelname, record.operation) for record in slow} == {("WARNING", "encrypt")}  # type: ignore[attr-defined] # of extra
    assert [record.request_id for record in slow] == ["slow-call", "slow-stream/8"]  # type: ignore[attr-defined] # of extra
    assert all(record.milliseconds >= 0 for record in slow)  # type: ignore[attr-defined] # of extra


async def test_a_damaged_channel_is_named(
    client: ConnectClient, journal: Script, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    damaged: list[int] = []

    def on_recover(channel: int) -> None:
        damaged.append(channel)
        raise CorruptRecordError("on purpose")

    journal.on_recover = on_recover
    with pytest.raises(ChannelDamagedError):
        await client.establish(Identity.generate(os.urandom))
    ((level, event),) = told(caplog, connect_id=damaged[0])
    assert level == "ERROR"
    assert "can't be loaded" in event
    assert told(caplog, reason="CHANNEL_DAMAGED") == [("WARNING", "refused")]


async def test_below_debug_no_step_is_told_and_no_reply_carries_an_id(
    client: ConnectClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    channel = await client.establish(Identity.generate(os.urandom))
    await channel.encrypt(b"x")
    assert not [record for record in caplog.records if record.name == "service.requests"]
