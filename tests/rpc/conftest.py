"""A real gRPC server in front of a real house, on a free port."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from connect_actor.client import ConnectClient
from connect_actor.rpc.server import RpcServer
from connect_actor.rpc.servicer import ConnectServicer
from tests.support.house import House
from tests.support.journals import KINDS, Script, scripted_journal

MAX_MESSAGE = 4_096


@pytest.fixture(params=KINDS)
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Script:
    return scripted_journal(request.param, tmp_path)


@pytest.fixture
async def house(journal: Script) -> AsyncIterator[House]:
    house = House(journal, wall_clock=True)
    yield house
    journal.gate.set()
    await house.close()


@pytest.fixture
async def server(house: House) -> AsyncIterator[RpcServer]:
    servicer = ConnectServicer(
        house.router, max_message_bytes=MAX_MESSAGE, max_frame_bytes=1_048_576, max_in_flight=256
    )
    server = await RpcServer.start(servicer, "127.0.0.1:0", max_frame_bytes=1_048_576)
    yield server
    await server.stop(0)


@pytest.fixture
async def client(server: RpcServer, house: House) -> AsyncIterator[ConnectClient]:
    pinned = house.environment.identity.public_key
    async with ConnectClient(server.address, pinned_identity=pinned) as client:
        yield client
