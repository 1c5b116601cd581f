"""TLS and mutual TLS over real connections, and certificates that are changed meanwhile."""

import asyncio
import os
from dataclasses import replace

import grpc
import pytest

from protos.connect_actor.v1 import connect_pb2 as wire
from service.access.certificates import CertificateFiles, ServerCertificate
from service.access.client_tls import ClientTls
from service.access.files import AccessFileError
from service.access.gate import Gate
from service.access.principals import principal_named
from service.client import ConnectClient, Identity
from service.errors import UnauthenticatedError
from service.rpc.probe import ask_health
from tests.access.conftest import Door, Open
from tests.support.certificates import Certificate

SPIFFE = "spiffe://here/alice"


def trusting(authority: Certificate, own: Certificate | None = None) -> ClientTls:
    if own is None:
        return ClientTls(authority.pem)
    return ClientTls(authority.pem, own.pem, own.key_pem)


async def can_talk(door: Door, tls: ClientTls | None) -> bool:
    """Say whether a client gets as far as a call."""
    async with ConnectClient(door.address, tls=tls) as client:
        try:
            channel = await client.establish(Identity.generate(os.urandom), timeout=10)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False
        assert channel.open(await channel.encrypt(b"x")) == b"x"
        return True


async def test_a_tls_server_talks_to_who_trusts_it_and_to_nobody_in_clear(
    open_door: Open,
    certificate_files: CertificateFiles,
    authority: Certificate,
    stranger: Certificate,
) -> None:
    door = await open_door(certificate=ServerCertificate(certificate_files))
    assert await can_talk(door, trusting(authority))
    assert not await can_talk(door, trusting(stranger))
    assert not await can_talk(door, None)


async def test_a_server_of_another_name_is_not_believed_but_by_that_name(
    open_door: Open, certificate_files: CertificateFiles, authority: Certificate
) -> None:
    door = await open_door(certificate=ServerCertificate(certificate_files))
    tls = replace(trusting(authority), server_name="another.example")
    assert not await can_talk(door, tls)
    assert await can_talk(door, replace(tls, server_name="127.0.0.1"))


@pytest.fixture
def mutual(certificate_files: CertificateFiles, authority: Certificate) -> CertificateFiles:
    roots = certificate_files.certificate.with_name("clients.pem")
    roots.write_bytes(authority.pem)
    return replace(certificate_files, client_ca=roots)


async def test_with_mutual_tls_only_a_clients_valid_certificate_opens(
    open_door: Open, mutual: CertificateFiles, authority: Certificate, stranger: Certificate
) -> None:
    door = await open_door(Gate(certificates=True), ServerCertificate(mutual))
    assert await can_talk(door, trusting(authority, authority.issue("alice")))
    assert not await can_talk(door, trusting(authority))
    assert not await can_talk(door, trusting(authority, stranger.issue("alice")))
    assert not await can_talk(door, trusting(authority, authority.issue("alice", expired=True)))


async def test_a_channel_belongs_to_who_the_certificate_names_whichever_it_is(
    open_door: Open, mutual: CertificateFiles, authority: Certificate
) -> None:
    door = await open_door(Gate(certificates=True), ServerCertificate(mutual))
    for name, own, again in (
        ("alice", authority.issue("alice"), authority.issue("alice")),
        (SPIFFE, authority.issue("alice", uri=SPIFFE), authority.issue("carol", uri=SPIFFE)),
    ):
        async with ConnectClient(door.address, tls=trusting(authority, own)) as client:
            channel = await client.establish(Identity.generate(os.urandom))
        assert door.house.journal.owner(channel.connect_id) == principal_named(name).owner
        request = wire.RestoreRequest(connect_id=channel.connect_id)
        async with ConnectClient(door.address, tls=trusting(authority, again)) as client:
            await client.stub.Restore(request)
        bob = trusting(authority, authority.issue("bob"))
        async with ConnectClient(door.address, tls=bob) as client:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.stub.Restore(request)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("name", [None, "two words"])
async def test_a_certificate_that_names_nobody_is_refused(
    open_door: Open, mutual: CertificateFiles, authority: Certificate, name: str | None
) -> None:
    door = await open_door(Gate(certificates=True), ServerCertificate(mutual))
    tls = trusting(authority, authority.issue(name))
    async with ConnectClient(door.address, tls=tls) as client:
        with pytest.raises(UnauthenticatedError, match="names nobody"):
            await client.establish(Identity.generate(os.urandom))


async def test_a_new_certificate_holds_for_new_connections_and_old_ones_go_on(
    open_door: Open,
    certificate_files: CertificateFiles,
    authority: Certificate,
    stranger: Certificate,
) -> None:
    certificate = ServerCertificate(certificate_files)
    door = await open_door(certificate=certificate)
    async with ConnectClient(door.address, tls=trusting(authority)) as early:
        channel = await early.establish(Identity.generate(os.urandom))
        stranger.issue("service").write(certificate_files.certificate.parent, "service")
        certificate.reload()
        assert await can_talk(door, trusting(stranger))
        assert not await can_talk(door, trusting(authority))
        assert channel.open(await channel.encrypt(b"x")) == b"x"


async def test_new_roots_of_client_certificates_hold_at_once(
    open_door: Open, mutual: CertificateFiles, authority: Certificate, stranger: Certificate
) -> None:
    certificate = ServerCertificate(mutual)
    door = await open_door(Gate(certificates=True), certificate)
    assert mutual.client_ca is not None
    mutual.client_ca.write_bytes(stranger.pem)
    certificate.reload()
    assert await can_talk(door, trusting(authority, stranger.issue("alice")))
    assert not await can_talk(door, trusting(authority, authority.issue("alice")))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("no certificate", "service.pem holds no certificate"),
        ("no key", "service.key holds no private key"),
        ("another's key", "service.key is not the key of"),
        ("expired", "service.pem expired at"),
        ("gone", "service.pem can't be read"),
        ("no roots", "clients.pem holds no certificate"),
    ],
)
async def test_a_bad_certificate_is_named_and_the_old_one_stays(
    open_door: Open, mutual: CertificateFiles, authority: Certificate, bad: str, said: str
) -> None:
    certificate = ServerCertificate(mutual)
    door = await open_door(Gate(certificates=True), certificate)
    match bad:
        case "no certificate":
            mutual.certificate.write_bytes(b"-----BEGIN CERTIFICATE-----\n")
        case "no key":
            mutual.private_key.write_bytes(b"")
        case "another's key":
            mutual.private_key.write_bytes(authority.issue("x").key_pem)
        case "expired":
            authority.issue("x", expired=True).write(mutual.certificate.parent, "service")
        case "gone":
            mutual.certificate.unlink()
        case "no roots":
            assert mutual.client_ca is not None
            mutual.client_ca.write_bytes(b"none")
    for attempt in (certificate.reload, lambda: ServerCertificate(mutual)):
        with pytest.raises(AccessFileError, match=said):
            attempt()
    assert await can_talk(door, trusting(authority, authority.issue("alice")))


async def test_health_is_open_to_whoever_can_connect(
    open_door: Open, certificate_files: CertificateFiles, authority: Certificate
) -> None:
    door = await open_door(Gate(certificates=True), ServerCertificate(certificate_files))
    ask = asyncio.to_thread
    assert await ask(ask_health, door.address, 5, trusting(authority)) == "SERVING"
    # Whoever has the service's certificate itself may trust that alone.
    own = ClientTls(certificate_files.certificate.read_bytes())
    assert await ask(ask_health, door.address, 5, own) == "SERVING"
    assert "no answer" in await ask(ask_health, door.address, 5, None)


def test_a_clients_key_does_not_show(authority: Certificate) -> None:
    assert authority.key_pem.decode() not in repr(trusting(authority, authority))
    assert "private_key" not in repr(trusting(authority, authority))
