"""A server that is as open, or as closed, as a test wants it."""

from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from connect_actor.access.certificates import CertificateFiles, ServerCertificate
from connect_actor.access.gate import Gate
from connect_actor.network.client_tls import ClientTls
from connect_actor.rpc.admission import Bounds
from connect_actor.rpc.server import RpcServer
from connect_actor.rpc.servicer import ConnectServicer
from tests.support.certificates import Certificate, make_authority
from tests.support.house import House
from tests.support.journals import KINDS, Script, scripted_journal

Open = Callable[..., Coroutine[Any, Any, "Door"]]


class Door:
    """A running server, and what stands at its door."""

    def __init__(
        self,
        server: RpcServer,
        servicer: ConnectServicer,
        house: House,
        journal: Script,
    ) -> None:
        self.server = server
        self.journal = journal
        self.address = server.address
        self.servicer = servicer
        self.house = house


@pytest.fixture(scope="session")
def authority() -> Certificate:
    return make_authority()


@pytest.fixture(scope="session")
def stranger() -> Certificate:
    return make_authority("stranger")


@pytest.fixture
def certificate_files(tmp_path: Path, authority: Certificate) -> CertificateFiles:
    certificate, key = authority.issue("service").write(tmp_path, "service")
    return CertificateFiles(certificate, key)


@pytest.fixture
def mutual(certificate_files: CertificateFiles, authority: Certificate) -> CertificateFiles:
    """Files of a service that asks its clients for certificates."""
    roots = certificate_files.certificate.with_name("clients.pem")
    roots.write_bytes(authority.pem)
    return replace(certificate_files, client_ca=roots)


def trusting(authority: Certificate, own: Certificate | None = None) -> ClientTls:
    """Return what a client needs that trusts an authority, and shows a certificate of its own."""
    if own is None:
        return ClientTls(authority.pem)
    return ClientTls(authority.pem, own.pem, own.key_pem)


@pytest.fixture(params=KINDS)
async def open_door(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    journal = scripted_journal(request.param, tmp_path)
    house = House(journal, wall_clock=True)
    doors: list[Door] = []

    async def open_door(
        gate: Gate | None = None,
        certificate: ServerCertificate | None = None,
        bounds: Bounds | None = None,
    ) -> Door:
        servicer = ConnectServicer(
            house.router,
            max_message_bytes=4_096,
            max_frame_bytes=1_048_576,
            max_in_flight=256,
            gate=gate,
            bounds=bounds,
        )
        server = await RpcServer.start(
            servicer, "127.0.0.1:0", max_frame_bytes=1_048_576, certificate=certificate
        )
        doors.append(Door(server, servicer, house, journal))
        return doors[-1]

    yield open_door
    journal.gate.set()
    for door in doors:
        await door.server.stop(0)
    await house.close()
