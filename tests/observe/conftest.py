"""A real gRPC server in front of a house, and its metrics."""

import os
from collections.abc import AsyncIterator

import pytest

from connect_actor.client import Channel, ConnectClient, Identity
from connect_actor.rpc.server import RpcServer
from connect_actor.rpc.servicer import ConnectServicer
from tests.rpc.conftest import MAX_MESSAGE, client, house
from tests.support.house import House
from tests.support.journals import Script, ScriptedJournal
from tests.support.meter import Meter

__all__ = ["client", "house"]


@pytest.fixture
def journal() -> Script:
    # Its counts are exact: nothing is cleaned up later. Those of SQLite are tested by its own.
    return ScriptedJournal()


@pytest.fixture
def servicer(house: House) -> ConnectServicer:
    return ConnectServicer(
        house.router, max_message_bytes=MAX_MESSAGE, max_frame_bytes=1_048_576, max_in_flight=256
    )


@pytest.fixture
async def server(servicer: ConnectServicer) -> AsyncIterator[RpcServer]:
    server = await RpcServer.start(servicer, "127.0.0.1:0", max_frame_bytes=1_048_576)
    yield server
    await server.stop(0)


@pytest.fixture
def meter(house: House, servicer: ConnectServicer) -> Meter:
    return Meter.of(house, servicer.statistics)


@pytest.fixture
async def channel(client: ConnectClient) -> Channel:
    return await client.establish(Identity.generate(os.urandom))
