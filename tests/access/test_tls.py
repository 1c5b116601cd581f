"""TLS and mutual TLS over real connections, and certificates that are changed meanwhile."""

import asyncio
import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from ipaddress import ip_address

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from connect_actor.access.certificates import CertificateFiles, ServerCertificate
from connect_actor.access.client_certificates import ClientCertificates
from connect_actor.access.gate import Gate
from connect_actor.access.principals import principal_named
from connect_actor.client import ConnectClient, Identity
from connect_actor.errors import UnauthenticatedError
from connect_actor.files import AccessFileError
from connect_actor.network.client_tls import ClientTls
from connect_actor.rpc.probe import ask_health
from connect_actor.v1 import connect_pb2 as wire
from tests.access.conftest import Door, Open, trusting
from tests.support.certificates import Certificate, Parts, make_authority
from tests.support.process import PATIENCE

# Base 64 of bytes that are no certificate: another error of the parser's.
PEM_OF_NOTHING = b"-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n"
SPIFFE = "spiffe://here/alice"


async def can_talk(door: Door, tls: ClientTls | None) -> bool:
    """Say whether a client gets as far as a call."""
    async with ConnectClient(door.address, tls=tls) as client:
        try:
            channel = await client.establish(Identity.generate(os.urandom), timeout=PATIENCE)
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
    door = await open_door(certificate=await ServerCertificate.open(certificate_files))
    assert await can_talk(door, trusting(authority))
    assert not await can_talk(door, trusting(stranger))
    assert not await can_talk(door, None)


async def test_a_server_of_another_name_is_not_believed_but_by_that_name(
    open_door: Open, certificate_files: CertificateFiles, authority: Certificate
) -> None:
    door = await open_door(certificate=await ServerCertificate.open(certificate_files))
    tls = replace(trusting(authority), server_name="another.example")
    assert not await can_talk(door, tls)
    assert await can_talk(door, replace(tls, server_name="127.0.0.1"))


async def mutual_door(open_door: Open, files: CertificateFiles) -> Door:
    """Open a door to whom a client certificate names."""
    certificate = await ServerCertificate.open(files)
    return await open_door(Gate(certificates=certificate.clients), certificate)


async def test_with_mutual_tls_only_a_clients_valid_certificate_opens(
    open_door: Open, mutual: CertificateFiles, authority: Certificate, stranger: Certificate
) -> None:
    door = await mutual_door(open_door, mutual)
    assert await can_talk(door, trusting(authority, authority.issue("alice")))
    assert not await can_talk(door, trusting(authority))
    assert not await can_talk(door, trusting(authority, stranger.issue("alice")))
    assert not await can_talk(door, trusting(authority, authority.issue("alice", expired=True)))


async def test_a_channel_belongs_to_who_the_certificate_names_whichever_it_is(
    open_door: Open, mutual: CertificateFiles, authority: Certificate
) -> None:
    door = await mutual_door(open_door, mutual)
    for name, own, again in (
        ("alice", authority.issue("alice"), authority.issue("alice")),
        (SPIFFE, authority.issue("alice", uri=SPIFFE), authority.issue("carol", uri=SPIFFE)),
    ):
        async with ConnectClient(door.address, tls=trusting(authority, own)) as client:
            channel = await client.establish(Identity.generate(os.urandom))
        assert await door.house.owner(channel.connect_id) == principal_named(name).owner
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
    door = await mutual_door(open_door, mutual)
    tls = trusting(authority, authority.issue(name))
    async with ConnectClient(door.address, tls=tls) as client:
        with pytest.raises(UnauthenticatedError, match="names no principal"):
            await client.establish(Identity.generate(os.urandom))


async def test_a_new_certificate_holds_for_new_connections_and_old_ones_go_on(
    open_door: Open,
    certificate_files: CertificateFiles,
    authority: Certificate,
    stranger: Certificate,
) -> None:
    certificate = await ServerCertificate.open(certificate_files)
    door = await open_door(certificate=certificate)
    async with ConnectClient(door.address, tls=trusting(authority)) as early:
        channel = await early.establish(Identity.generate(os.urandom))
        stranger.issue("service").write(certificate_files.certificate.parent, "service")
        await certificate.reload()
        assert await can_talk(door, trusting(stranger))
        assert not await can_talk(door, trusting(authority))
        assert channel.open(await channel.encrypt(b"x")) == b"x"


async def test_new_roots_of_client_certificates_hold_at_once(
    open_door: Open, mutual: CertificateFiles, authority: Certificate, stranger: Certificate
) -> None:
    certificate = await ServerCertificate.open(mutual)
    door = await open_door(Gate(certificates=certificate.clients), certificate)
    assert mutual.client_ca is not None
    mutual.client_ca.write_bytes(stranger.pem)
    await certificate.reload()
    assert await can_talk(door, trusting(authority, stranger.issue("alice")))
    assert not await can_talk(door, trusting(authority, authority.issue("alice")))


SHORT = 1_024
SAN = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
FOR_CLIENTS = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])

# What stands in the place of the service's certificate, and what is said of it.
UNUSABLE: dict[str, tuple[Parts, str]] = {
    "expired": ({"days": (-2, -1)}, "service.pem expired at"),
    "of the future": ({"days": (1, 2)}, "service.pem is not valid before"),
    "Ed25519": ({"key": ed25519.Ed25519PrivateKey.generate()}, "its key is Ed25519"),
    "Ed448": ({"key": ed448.Ed448PrivateKey.generate()}, "its key is Ed448"),
    "DSA": ({"key": dsa.generate_private_key(2_048)}, "its key is DSA"),
    "secp256k1": ({"key": ec.generate_private_key(ec.SECP256K1())}, "its key is secp256k1"),
    "P-521": ({"key": ec.generate_private_key(ec.SECP521R1())}, "its key is secp521r1"),
    "P-224": ({"key": ec.generate_private_key(ec.SECP224R1())}, "its key is secp224r1"),
    "brainpool": (
        {"key": ec.generate_private_key(ec.BrainpoolP256R1())},
        "its key is brainpoolP256r1",
    ),
    "short RSA": ({"key": rsa.generate_private_key(65_537, SHORT)}, "RSA key of 1024 bits"),
    "for clients": ({"extensions": [FOR_CLIENTS]}, "not for servers"),
    "without a name": ({"subject": x509.Name([]), "names": []}, "names no host"),
    "with a URI alone": (
        {"subject": x509.Name([]), "names": [x509.UniformResourceIdentifier(SPIFFE)]},
        "names no host",
    ),
    "without readable extensions": (
        {"names": [], "extensions": [x509.UnrecognizedExtension(SAN.oid, b"\x30\x03\x82")]},
        "service.pem holds no readable certificate",
    ),
}


def shown(parts: Parts) -> Callable[[CertificateFiles, Certificate], object]:
    """Return what puts such a certificate, and its key, in the place of the service's."""
    return lambda files, authority: authority.issue("service", **parts).write(
        files.certificate.parent, "service"
    )


def roots(content: bytes) -> Callable[[CertificateFiles, Certificate], object]:
    """Return what puts such a file in the place of the roots of client certificates."""
    return lambda files, _: files.client_ca and files.client_ca.write_bytes(content)


def never_end(files: CertificateFiles, _: Certificate) -> None:
    files.certificate.unlink()
    files.certificate.symlink_to("/dev/zero")


def open_to_all(files: CertificateFiles, _: Certificate) -> None:
    assert files.client_ca is not None
    files.client_ca.chmod(0o666)


SPOILT: dict[str, tuple[Callable[[CertificateFiles, Certificate], object], str]] = {
    **{name: (shown(parts), said) for name, (parts, said) in UNUSABLE.items()},
    "no certificate": (
        lambda files, _: files.certificate.write_bytes(b"-----BEGIN CERTIFICATE-----\n"),
        "service.pem holds no readable certificate",
    ),
    "no certificate's content": (
        lambda files, _: files.certificate.write_bytes(PEM_OF_NOTHING),
        "service.pem holds no readable certificate",
    ),
    "no key": (
        lambda files, _: files.private_key.write_bytes(b""),
        "service.key holds no private key",
    ),
    "another's key": (
        lambda files, authority: files.private_key.write_bytes(authority.issue("x").key_pem),
        "service.key is not the key of",
    ),
    "a key that others may read": (
        lambda files, _: files.private_key.chmod(0o644),
        "service.key holds a secret and others may use it (mode 0644): chmod 6",
    ),
    "gone": (
        lambda files, _: files.certificate.unlink(),
        "service.pem can't be read: No such file",
    ),
    "an expired intermediate": (
        lambda files, _: files.certificate.write_bytes(
            files.certificate.read_bytes() + make_authority("old", days=(-2, -1)).pem
        ),
        "service.pem holds an intermediate certificate that expired",
    ),
    "without an end": (never_end, "service.pem has more than"),
    "no roots": (roots(b"none"), "clients.pem holds no readable certificate"),
    "no roots' content": (roots(PEM_OF_NOTHING), "clients.pem holds no readable certificate"),
    "an expired root": (
        roots(make_authority(days=(-2, -1)).pem),
        "clients.pem holds no usable root: one expired",
    ),
    "a root of the future": (
        roots(make_authority(days=(1, 2)).pem),
        "clients.pem holds no usable root: one is not valid before",
    ),
    "a root of Ed25519": (
        roots(make_authority(key=ed25519.Ed25519PrivateKey.generate()).pem),
        "clients.pem holds no usable root: one has no key of RSA",
    ),
    "roots that others may change": (
        open_to_all,
        "clients.pem can be changed by every user",
    ),
}


@pytest.mark.parametrize("bad", SPOILT)
async def test_an_unusable_certificate_is_named_and_the_old_one_stays(
    open_door: Open, mutual: CertificateFiles, authority: Certificate, bad: str
) -> None:
    certificate = await ServerCertificate.open(mutual)
    door = await open_door(Gate(certificates=certificate.clients), certificate)
    spoil, said = SPOILT[bad]
    spoil(mutual, authority)
    for attempt in (certificate.reload, partial(ServerCertificate.open, mutual)):
        with pytest.raises(AccessFileError, match=re.escape(said)) as caught:
            await attempt()
        assert "\n" not in str(caught.value)
    assert await can_talk(door, trusting(authority, authority.issue("alice")))


@pytest.mark.parametrize(
    "parts",
    [
        {"key": rsa.generate_private_key(65_537, 2_048)},
        {"key": ec.generate_private_key(ec.SECP384R1())},
        {"names": [x509.DNSName("*.example.com")]},
        {"names": []},  # a client goes by the common name
        {"extensions": [x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])]},
    ],
    ids=["RSA", "P-384", "wildcard", "common name", "for servers"],
)
async def test_a_usable_certificate_takes_over(
    certificate_files: CertificateFiles, authority: Certificate, parts: Parts
) -> None:
    certificate = await ServerCertificate.open(certificate_files)
    assert not await certificate.reload()
    authority.issue("service", **parts).write(certificate_files.certificate.parent, "service")
    assert await certificate.reload()
    assert not await certificate.reload()


async def test_the_end_of_a_certificate_is_that_of_the_first_of_its_chain_and_follows_it(
    certificate_files: CertificateFiles, authority: Certificate
) -> None:
    def write(*days: int) -> list[float]:
        """Write a chain whose certificates are valid for so many days."""
        chain = [authority.issue("service", days=(-1, until)) for until in days]
        chain[0].write(certificate_files.certificate.parent, "service")
        certificate_files.certificate.write_bytes(b"".join(each.pem for each in chain))
        return [each.certificate.not_valid_after_utc.timestamp() for each in chain]

    service_ends, _ = write(3, 5)
    certificate = await ServerCertificate.open(certificate_files)
    assert certificate.ends_at == service_ends
    _, intermediate_ends = write(9, 7)
    assert await certificate.reload()
    assert certificate.ends_at == intermediate_ends


async def test_one_usable_root_among_others_is_enough(
    open_door: Open, mutual: CertificateFiles, authority: Certificate
) -> None:
    assert mutual.client_ca is not None
    mutual.client_ca.write_bytes(make_authority("old", days=(-2, -1)).pem + authority.pem)
    door = await mutual_door(open_door, mutual)
    assert await can_talk(door, trusting(authority, authority.issue("alice")))


async def test_health_is_open_to_whoever_can_connect(
    open_door: Open, certificate_files: CertificateFiles, authority: Certificate
) -> None:
    gate = Gate(certificates=ClientCertificates([authority.certificate]))
    door = await open_door(gate, await ServerCertificate.open(certificate_files))
    ask = asyncio.to_thread
    assert await ask(ask_health, door.address, 5, trusting(authority)) == "SERVING"
    # Whoever has the service's certificate itself may trust that alone.
    own = ClientTls(certificate_files.certificate.read_bytes())
    assert await ask(ask_health, door.address, 5, own) == "SERVING"
    assert "no answer" in await ask(ask_health, door.address, 5, None)


def test_a_clients_key_does_not_show(authority: Certificate) -> None:
    assert authority.key_pem.decode() not in repr(trusting(authority, authority))
    assert "private_key" not in repr(trusting(authority, authority))
