"""One message followed from its RPC to its commit, by grep for its request id."""

import json
import os
from typing import Any

import grpc
import pytest

from connect_actor.client import Identity
from connect_actor.v1 import connect_pb2 as wire
from tests.process.test_process import client_of
from tests.support.process import RunningService, Start


def lines_of(service: RunningService, request_id: str) -> list[dict[str, Any]]:
    lines = [
        json.loads(line) for line in service.log_to_the_end().splitlines() if request_id in line
    ]
    assert all(line["request_id"] == request_id for line in lines)
    return lines


async def test_one_grep_follows_a_message_from_its_rpc_to_its_commit(start: Start) -> None:
    service = start("--log-level=debug")
    async with client_of(service) as client:
        channel = await client.establish(Identity.generate(os.urandom))
        call = client.stub.Encrypt(
            wire.EncryptRequest(connect_id=channel.connect_id, plaintext=b"followed"),
            metadata=(("x-request-id", "order-4711"),),
        )
        await call
        told = dict(await call.trailing_metadata())
    assert told["x-request-id"] == "order-4711"
    steps = lines_of(service, "order-4711")
    assert [step["event"] for step in steps] == ["received", "recorded", "durable", "answered"]
    received, recorded, durable, answered = steps
    assert received["operation"] == answered["operation"] == "encrypt"
    for step in (received, recorded, durable):
        assert step["connect_id"] == channel.connect_id
    assert recorded["sequence_number"] == durable["sequence_number"] == 2
    assert durable["round"] > 1


async def test_an_operation_of_a_stream_is_followed_by_its_streams_id_and_its_own(
    start: Start,
) -> None:
    service = start("--log-level=debug", "--router=awaiting")
    async with client_of(service) as client:
        channel = await client.establish(Identity.generate(os.urandom))
        operations = [
            wire.Operation(
                operation_id=8, encrypt=wire.EncryptRequest(connect_id=channel.connect_id)
            ),
            wire.Operation(operation_id=9),
        ]
        stream = client.stub.Exchange(
            iter([wire.OperationFrame(operations=operations)]),
            metadata=(("x-request-id", "stream-1"),),
        )
        assert dict(await stream.initial_metadata())["x-request-id"] == "stream-1"
        assert sum([len(frame.results) async for frame in stream]) == 2
    events = [step["event"] for step in lines_of(service, "stream-1/8")]
    assert events == ["received", "recorded", "durable", "answered"]
    (refused,) = lines_of(service, "stream-1/9")
    assert (refused["event"], refused["reason"]) == ("refused", "MALFORMED_REQUEST")


@pytest.mark.parametrize("offered", [None, "", "two words", "x" * 65])
async def test_a_call_without_an_acceptable_id_is_given_one(
    start: Start, offered: str | None
) -> None:
    service = start("--log-level=debug")
    metadata = () if offered is None else (("x-request-id", offered),)
    async with client_of(service) as client:
        call = client.stub.Restore(wire.RestoreRequest(connect_id=1), metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
    trailing = dict(refused.value.trailing_metadata())
    given = trailing["x-request-id"]
    assert len(bytes.fromhex(str(given))) == 8
    assert "grpc-status-details-bin" in trailing
    events = [step["event"] for step in lines_of(service, str(given))]
    assert events == ["received", "refused"]


async def test_an_id_of_64_characters_is_kept(start: Start) -> None:
    service = start()
    async with client_of(service) as client:
        call = client.stub.Restore(
            wire.RestoreRequest(connect_id=1), metadata=(("x-request-id", "x" * 64),)
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
    assert dict(refused.value.trailing_metadata())["x-request-id"] == "x" * 64
    # Nothing has failed that is the service's affair.
    assert "x" * 64 not in service.log_to_the_end()
