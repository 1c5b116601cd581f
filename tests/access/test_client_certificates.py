"""Client certificates: whom one names, and that it counts only while it is valid."""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Unpack

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID

from connect_actor.access.certificates import CertificateFiles, ServerCertificate
from connect_actor.access.client_certificates import _MAX_KEPT, ClientCertificates
from connect_actor.access.gate import Gate
from connect_actor.access.principals import MAX_NAME, principal_named
from connect_actor.access.tokens import TokenFile, new_token, token_line
from connect_actor.client import ConnectClient, Identity
from connect_actor.errors import UnauthenticatedError
from connect_actor.rpc.admission import Bounds
from connect_actor.v1 import connect_pb2 as wire
from tests.access.conftest import Door, Open, trusting
from tests.support.certificates import Certificate, Parts, make_authority, make_certificate
from tests.support.house import until

DAY = 24 * 60 * 60


class Clock:
    """Tells the time that a test wants."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Shown:
    """A call over a connection that has shown certificates, as gRPC passes them on."""

    def __init__(self, certificate: Certificate, *between: Certificate) -> None:
        self._context = {"x509_pem_cert": [certificate.pem], "x509_common_name": [b"alice"]}
        if between:
            self._context["x509_pem_cert_chain"] = [b"".join(each.pem for each in between)]

    def peer(self) -> str:
        return "ipv4:192.0.2.1:443"

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return self._context

    def invocation_metadata(self) -> list[tuple[str, str | bytes]] | None:
        return None


def subject(*names: str, kind: _ASN1Type | None = None) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name, _type=kind) for name in names])


def uris(*uris: str) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(uri) for uri in uris]


# --- Whom it names --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["CN", "URI"])
async def test_a_name_with_a_nul_is_nobodys_though_grpc_cuts_it_there(
    open_door: Open, mutual: CertificateFiles, authority: Certificate, kind: str
) -> None:
    certificate = await ServerCertificate.open(mutual)
    door = await open_door(Gate(certificates=certificate.clients), certificate)
    name = "alice" if kind == "CN" else "spiffe://here/alice"
    forged, honest = (
        authority.issue(each) if kind == "CN" else authority.issue("x", names=uris(each))
        for each in (f"{name}\0.mallory", name)
    )
    async with ConnectClient(door.address, tls=trusting(authority, honest)) as client:
        channel = await client.establish(Identity.generate(os.urandom))
    assert await door.house.owner(channel.connect_id) == principal_named(name).owner
    async with ConnectClient(door.address, tls=trusting(authority, forged)) as client:
        with pytest.raises(UnauthenticatedError, match="names no principal"):
            await client.establish(Identity.generate(os.urandom))
        request = wire.RestoreRequest(connect_id=channel.connect_id)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await client.stub.Restore(request)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def owner_of(authority: Certificate, **parts: Unpack[Parts]) -> bytes:
    """Return the owner that a certificate of these parts stands for."""
    shown = Shown(make_certificate(authority, **parts))
    return Gate(certificates=ClientCertificates([authority.certificate])).admit(shown).owner


NAMES_NOBODY: list[Parts] = [
    {"subject": subject()},
    {"subject": subject(), "names": [x509.DNSName("alice")]},
    {"subject": subject(), "names": [x509.RFC822Name("alice@here")]},
    {"subject": x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "alice")])},
    {"subject": subject("alice\0.mallory", kind=_ASN1Type.BMPString)},
    {"subject": subject("alice", "mallory")},
    {"subject": subject("alice", "alice")},
    {"subject": subject("alice"), "names": uris("spiffe://here/alice", "spiffe://here/mallory")},
    {"subject": subject("alice"), "names": uris("spiffe://here/a b")},
    {"subject": subject("alice"), "names": uris("spiffe://here/alice\n")},
    {"subject": subject("alice"), "names": uris("x" * (MAX_NAME + 1))},
    *(
        Parts(subject=subject(name))
        for name in (
            " alice",
            "alice ",
            "al ice",
            "alice\n",
            "alice\r",
            "alice\x7f",
            "alice\x1b[2K",
            "alice\x85",
            "alice\u00a0",
            "alice\u00ad",  # soft hyphen
            "alice\u034f",  # joins nothing, shows nothing
            "alice\u115f",
            "alice\u180b",
            "alice\u200b",
            "alice\u200e",
            "\u202ealice",  # the other way round
            "alice\u2028",
            "alice\u2066",
            "alice\u2800",
            "alice\u3164",
            "alice\ufe0f",
            "alice\ufeff",
            "alice\uffa0",
            "alice\ue000",  # private use
            "alice\U000e0041",  # a tag
            "alice\U000e0100",
            "ali\uff43e",  # full width
            "jose\u0301",  # decomposed
            "\ufb01",  # a ligature
        )
    ),
]


@pytest.mark.parametrize("parts", NAMES_NOBODY, ids=lambda parts: ascii(parts)[:60])
def test_what_no_sane_name_holds_names_nobody(authority: Certificate, parts: Parts) -> None:
    with pytest.raises(UnauthenticatedError, match="names no principal"):
        owner_of(authority, **parts)


@pytest.mark.parametrize(
    "parts",
    [
        {"subject": subject("alice")},
        {"subject": subject("alice", kind=_ASN1Type.BMPString)},
        {"subject": subject("alice", kind=_ASN1Type.PrintableString)},
        {"subject": subject("alice", kind=_ASN1Type.T61String)},
        {"subject": subject("alice", kind=_ASN1Type.UniversalString)},
        {"subject": subject("alice"), "names": [x509.DNSName("mallory")]},
        {"subject": subject("mallory"), "names": uris("alice")},
        {"subject": subject("mallory", "mallory"), "names": uris("alice")},
        {
            "subject": x509.Name(
                [
                    x509.RelativeDistinguishedName(
                        [
                            x509.NameAttribute(NameOID.COMMON_NAME, "alice"),
                            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "mallory"),
                        ]
                    )
                ]
            )
        },
    ],
    ids=ascii,
)
def test_a_name_counts_by_its_characters_however_it_is_encoded(
    authority: Certificate, parts: Parts
) -> None:
    assert owner_of(authority, **parts) == principal_named("alice").owner


def test_names_that_look_alike_in_other_scripts_are_others(authority: Certificate) -> None:
    cyrillic = owner_of(authority, subject=subject("\u0430lice"))
    assert cyrillic != principal_named("alice").owner


@pytest.mark.parametrize("pem", [b"", b"-----BEGIN CERTIFICATE-----\n", b"\0"])
def test_what_cannot_be_parsed_is_refused(authority: Certificate, pem: bytes) -> None:
    shown = Shown(authority.issue("alice"))
    shown._context["x509_pem_cert"] = [pem]
    gate = Gate(certificates=ClientCertificates([authority.certificate]))
    for _ in range(2):
        with pytest.raises(UnauthenticatedError, match="can't be read"):
            gate.admit(shown)


def test_extensions_that_cannot_be_parsed_are_refused(authority: Certificate) -> None:
    broken = x509.UnrecognizedExtension(x509.SubjectAlternativeName.oid, b"\x30\x03\x82")
    certificate = make_certificate(authority, subject=subject("alice"), extensions=[broken])
    gate = Gate(certificates=ClientCertificates([authority.certificate]))
    with pytest.raises(UnauthenticatedError, match="can't be read"):
        gate.admit(Shown(certificate))


# --- While it is valid ----------------------------------------------------------------------------


@pytest.mark.parametrize("days", [-1.5, 2.0])
def test_a_certificate_counts_between_its_dates_only(authority: Certificate, days: float) -> None:
    clock = Clock()
    gate = Gate(certificates=ClientCertificates([authority.certificate], clock))
    shown = Shown(authority.issue("alice", days=(-1, 1)))
    caller = gate.admit(shown)
    assert caller.certificate_is_valid()
    assert gate.still_admits(caller)
    clock.ahead = days * DAY
    assert not caller.certificate_is_valid()
    assert not gate.still_admits(caller)
    with pytest.raises(UnauthenticatedError, match="has expired"):
        gate.admit(shown)
    clock.ahead = 0
    assert gate.admit(shown).owner == principal_named("alice").owner


@pytest.mark.parametrize("which", ["root", "intermediate"])
def test_what_is_above_a_certificate_must_be_valid_too(which: str) -> None:
    short = (-2.0, 1.0)
    root = make_authority("root", days=short if which == "root" else (-2, 9))
    between = make_certificate(
        root,
        subject=subject("between"),
        is_authority=True,
        days=(-2, 9) if which == "root" else short,
    )
    clock = Clock()
    gate = Gate(certificates=ClientCertificates([root.certificate], clock))
    shown = Shown(between.issue("alice", days=(-2, 9)), between)
    gate.admit(shown)
    clock.ahead = 2 * DAY
    with pytest.raises(UnauthenticatedError, match="has expired"):
        gate.admit(shown)


def test_roots_that_are_replaced_count_at_once_for_certificates_that_were_seen(
    authority: Certificate, stranger: Certificate
) -> None:
    clients = ClientCertificates([authority.certificate])
    gate = Gate(certificates=clients)
    shown = Shown(authority.issue("alice"))
    caller = gate.admit(shown)
    clients.trust([stranger.certificate])
    assert not gate.still_admits(caller)
    with pytest.raises(UnauthenticatedError, match="trusted now"):
        gate.admit(shown)
    clients.trust([stranger.certificate, authority.certificate])
    assert gate.still_admits(caller)
    assert gate.admit(shown).owner == caller.owner


def test_a_root_of_the_same_name_and_another_key_is_another(authority: Certificate) -> None:
    clients = ClientCertificates([authority.certificate])
    gate = Gate(certificates=clients)
    shown = Shown(authority.issue("alice"))
    gate.admit(shown)
    clients.trust([make_authority().certificate])
    with pytest.raises(UnauthenticatedError, match="trusted now"):
        gate.admit(shown)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65_537, 2_048),
    ],
    ids=lambda key: type(key).__name__,
)
def test_the_kinds_of_roots_that_are_accepted_verify(
    key: CertificateIssuerPrivateKeyTypes,
) -> None:
    root = make_authority(key=key)
    gate = Gate(certificates=ClientCertificates([root.certificate]))
    assert gate.admit(Shown(root.issue("alice"))).owner == principal_named("alice").owner


def test_certificates_are_kept_within_a_bound(authority: Certificate) -> None:
    clients = ClientCertificates([authority.certificate])
    gate = Gate(certificates=clients)
    shown = Shown(authority.issue("alice"))
    first = gate.admit(shown).certificate
    assert gate.admit(shown).certificate is first
    template = shown._context["x509_pem_cert"][0]
    for number in range(_MAX_KEPT):
        # Text before the armour makes it another one to the cache, and costs no signature.
        shown._context["x509_pem_cert"] = [b"%d\n" % number + template]
        gate.admit(shown)
    assert len(clients._kept) == _MAX_KEPT
    shown._context["x509_pem_cert"] = [template]
    assert gate.admit(shown).certificate is not first


def test_with_tokens_the_certificate_must_be_valid_and_the_token_names(
    tmp_path: Path, authority: Certificate
) -> None:
    token, clock = new_token(), Clock()
    (tmp_path / "tokens").write_text(token_line("alice", token))
    gate = Gate(
        tokens=TokenFile(tmp_path / "tokens"),
        certificates=ClientCertificates([authority.certificate], clock),
    )

    class WithToken(Shown):
        def invocation_metadata(self) -> list[tuple[str, str | bytes]]:
            return [("authorization", f"Bearer {token}")]

    shown = WithToken(authority.issue("two words"))
    caller = gate.admit(shown)
    assert caller.owner == principal_named("alice").owner
    clock.ahead = 2 * DAY
    assert not gate.still_admits(caller)
    with pytest.raises(UnauthenticatedError, match="has expired"):
        gate.admit(shown)


# --- Over real connections ------------------------------------------------------------------------


async def clocked(
    open_door: Open, files: CertificateFiles, bounds: Bounds | None = None
) -> tuple[Door, Clock, ServerCertificate]:
    certificate = await ServerCertificate.open(files)
    assert certificate.clients is not None
    clock = certificate.clients._clock = Clock()
    door = await open_door(Gate(certificates=certificate.clients), certificate, bounds=bounds)
    return door, clock, certificate


class Resumer:
    """An HTTP/2 client that brings its TLS session with it."""

    def __init__(self, own: Certificate, directory: Path, version: ssl.TLSVersion) -> None:
        certificate, key = own.write(directory, "resumer")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._context.check_hostname = False
        self._context.verify_mode = ssl.CERT_NONE
        self._context.set_alpn_protocols(["h2"])
        self._context.load_cert_chain(certificate, key)
        self._context.minimum_version = self._context.maximum_version = version
        self._session: ssl.SSLSession | None = None

    def call(self, address: str) -> bool:
        """Make a call to its end; return whether the session was resumed."""
        host, _, port = address.rpartition(":")
        with (
            socket.create_connection((host, int(port)), 30) as tcp,
            self._context.wrap_socket(tcp, session=self._session) as tls,
        ):
            tls.sendall(PREFACE)
            received = b""
            # The end of stream 1: trailers, or headers that are all there is.
            while not ends_stream(received):
                data = tls.recv(65_536)
                assert data, "the connection was closed"
                received += data
            self._session = tls.session
            return bool(tls.session_reused)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def header(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def ends_stream(data: bytes) -> bool:
    while len(data) >= 9:
        size = int.from_bytes(data[:3], "big")
        if data[3] == 1 and data[4] & 1:
            return True
        data = data[9 + size :]
    return False


PREFACE = (
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + frame(4, 0, 0, b"")
    + frame(
        1,
        4,
        1,
        header(b":method", b"POST")
        + header(b":scheme", b"https")
        + header(b":path", b"/connect_actor.v1.ConnectService/Restore")
        + header(b":authority", b"x")
        + header(b"te", b"trailers")
        + header(b"content-type", b"application/grpc"),
    )
    + frame(0, 1, 1, bytes(5))
)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_an_expired_certificate_does_not_come_back_by_session_ticket(
    open_door: Open,
    mutual: CertificateFiles,
    authority: Certificate,
    tmp_path: Path,
    version: ssl.TLSVersion,
) -> None:
    door, clock, _ = await clocked(open_door, mutual)
    resumer = Resumer(authority.issue("alice"), tmp_path, version)
    refusals = door.servicer.statistics.refusals
    assert not await asyncio.to_thread(resumer.call, door.address)
    assert await asyncio.to_thread(resumer.call, door.address)
    assert refusals["UNAUTHENTICATED"] == 0
    clock.ahead = 2 * DAY
    # gRPC looks at no date here: the session is resumed.
    assert await asyncio.to_thread(resumer.call, door.address)
    assert refusals["UNAUTHENTICATED"] == 1


async def test_a_connection_does_not_outlive_its_certificate_or_its_root(
    open_door: Open, mutual: CertificateFiles, authority: Certificate, stranger: Certificate
) -> None:
    door, clock, certificate = await clocked(open_door, mutual)
    assert mutual.client_ca is not None
    tls = trusting(authority, authority.issue("alice"))
    async with ConnectClient(door.address, tls=tls) as client:
        channel = await client.establish(Identity.generate(os.urandom))
        clock.ahead = 2 * DAY
        with pytest.raises(UnauthenticatedError, match="has expired"):
            await channel.encrypt(b"x")
        clock.ahead = 0
        assert channel.open(await channel.encrypt(b"x")) == b"x"
        mutual.client_ca.write_bytes(stranger.pem)
        await certificate.reload()
        with pytest.raises(UnauthenticatedError, match="trusted now"):
            await channel.encrypt(b"x")
        mutual.client_ca.write_bytes(stranger.pem + authority.pem)
        await certificate.reload()
        assert channel.open(await channel.encrypt(b"x")) == b"x"


@pytest.mark.parametrize("ends", ["with its next frame", "in silence", "with its root"])
async def test_a_stream_does_not_outlive_its_certificate_or_its_root(
    open_door: Open,
    mutual: CertificateFiles,
    authority: Certificate,
    stranger: Certificate,
    ends: str,
) -> None:
    bounds = Bounds(slow_reader_timeout=0.2) if ends == "in silence" else None
    door, clock, certificate = await clocked(open_door, mutual, bounds)
    more = asyncio.Event()

    async def frames() -> AsyncIterator[wire.OperationFrame]:
        yield wire.OperationFrame(operations=[wire.Operation(operation_id=1)])
        await more.wait()
        yield wire.OperationFrame(operations=[wire.Operation(operation_id=2)])
        await asyncio.Event().wait()

    tls = trusting(authority, authority.issue("alice"))
    async with ConnectClient(door.address, tls=tls) as client:
        stream = client.stub.Exchange(frames())
        await stream.read()
        match ends:
            case "with its root":
                assert mutual.client_ca is not None
                mutual.client_ca.write_bytes(stranger.pem)
                await certificate.reload()
                door.servicer.end_revoked()
            case "with its next frame":
                clock.ahead = 2 * DAY
                more.set()
            case _:
                clock.ahead = 2 * DAY
        assert await stream.code() is grpc.StatusCode.UNAUTHENTICATED
    await until(lambda: door.servicer.statistics.streams_open == 0)
