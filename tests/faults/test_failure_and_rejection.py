"""Failure (outcome unknown) and rejection (known not written) of a write, as a caller sees them."""

import os

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status

from protos.connect_actor.v1 import connect_pb2 as wire
from service.client import Channel, ConnectClient, Identity
from tests.rpc.conftest import client, house, journal, server
from tests.support.journals import ScriptedJournal

__all__ = ["client", "house", "journal", "server"]


async def refusal(client: ConnectClient, channel: Channel) -> tuple[grpc.StatusCode, str, int]:
    """Ask for an Encrypt that fails: code, reason, and milliseconds to wait."""
    request = wire.EncryptRequest(connect_id=channel.connect_id, plaintext=b"x")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await client.stub.Encrypt(request)
    status = rpc_status.from_call(caught.value)
    assert status is not None
    info, retry = ErrorInfo(), RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    return caught.value.code(), info.reason, retry.retry_delay.ToMilliseconds()


async def next_number(channel: Channel) -> int:
    payload = await channel.encrypt(b"x")
    assert channel.open(payload) == b"x"
    return payload.ratchet_index


@pytest.fixture
async def channel(client: ConnectClient) -> Channel:
    channel = await client.establish(Identity.generate(os.urandom))
    assert await next_number(channel) == 0
    return channel


async def test_a_rejected_write_did_not_happen_and_may_be_tried_at_once(
    client: ConnectClient, channel: Channel, journal: ScriptedJournal
) -> None:
    journal.reject = [True]
    assert await refusal(client, channel) == (grpc.StatusCode.ABORTED, "WRITE_REJECTED", 0)
    assert await next_number(channel) == 1


async def test_a_write_that_failed_unwritten_is_uncertain_to_its_caller(
    client: ConnectClient, channel: Channel, journal: ScriptedJournal
) -> None:
    journal.fail_before = [True]
    assert await refusal(client, channel) == (
        grpc.StatusCode.UNAVAILABLE,
        "WRITE_UNCERTAIN",
        500,
    )
    # Its payload never left the service, so its key is free.
    assert await next_number(channel) == 1


async def test_a_write_that_failed_after_it_was_written_is_gone_on_from(
    client: ConnectClient, channel: Channel, journal: ScriptedJournal
) -> None:
    journal.fail_after = [True]
    assert await refusal(client, channel) == (
        grpc.StatusCode.UNAVAILABLE,
        "WRITE_UNCERTAIN",
        500,
    )
    assert await next_number(channel) == 2
