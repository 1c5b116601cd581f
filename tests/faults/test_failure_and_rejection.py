"""Failure (outcome unknown) and rejection (known not written) of a write, as a caller sees them."""

import os

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from grpc_status import rpc_status

from connect_actor.client import Channel, ConnectClient, Identity
from connect_actor.v1 import connect_pb2 as wire
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


@pytest.mark.parametrize(("script", "next_free"), [("fail_before", 1), ("fail_after", 2)])
async def test_a_write_that_failed_is_uncertain_and_the_channel_goes_on_from_what_is_durable(
    client: ConnectClient, channel: Channel, journal: ScriptedJournal, script: str, next_free: int
) -> None:
    getattr(journal, script).append(True)
    uncertain = (grpc.StatusCode.UNAVAILABLE, "WRITE_UNCERTAIN", 500)
    assert await refusal(client, channel) == uncertain
    # What was not written never left the service either: its key is free.
    assert await next_number(channel) == next_free
