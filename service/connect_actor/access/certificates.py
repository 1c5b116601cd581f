"""The server's certificate: read from PEM files, tried out, and read anew without a restart.

gRPC asks for it at every handshake (``grpc.dynamic_ssl_server_credentials``), so that a new one
holds for new connections at once; those that there are go on as they are. What no client can reach
the service with never takes over: gRPC itself would skip it silently, or fail every handshake.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from connect_actor.access.client_certificates import (
    MIN_RSA_BITS,
    PARSER_ERRORS,
    ClientCertificates,
    fault_of_dates,
    fault_of_root,
)
from connect_actor.access.trial import handshake_failure
from connect_actor.files import AccessFileError, read_file

__all__ = ["CertificateFiles", "ServerCertificate", "name_in"]

_SERVES = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE}


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where the PEM files are."""

    certificate: Path
    """The server's, followed by those between it and its root."""
    private_key: Path
    client_ca: Path | None = None
    """Roots of client certificates: without it none is asked for, with it each client needs one."""


@dataclass(frozen=True, slots=True)
class _Loaded:
    """The files' content: it belongs together, and is valid now."""

    certificates: bytes = field(repr=False)
    private_key: bytes = field(repr=False)
    ends_at: float
    """When the first certificate of the chain expires, seconds since the epoch."""
    roots: bytes | None = field(repr=False)
    client_roots: list[x509.Certificate] = field(compare=False)
    """Those of the roots that can be used."""

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """Return it in gRPC's form."""
        return grpc.ssl_server_certificate_configuration(
            [(self.private_key, self.certificates)], self.roots
        )


class ServerCertificate:
    """What the server shows at a handshake. Handshakes are on gRPC's threads, all else is not."""

    def __init__(self, files: CertificateFiles, loaded: _Loaded) -> None:
        self._files = files
        self._loaded = loaded
        self._current = self._next = loaded.configuration()
        self.clients = None if loaded.roots is None else ClientCertificates(loaded.client_roots)
        """What client certificates are held against; None if none are asked for."""

    @classmethod
    async def open(cls, files: CertificateFiles) -> Self:
        """Read the files and try them out.

        Raises:
            AccessFileError: one can't be used, or no client can reach the service with them.
        """
        loaded = _load(files)
        await _try_out(files, loaded)
        return cls(files, loaded)

    @property
    def ends_at(self) -> float:
        """When the first certificate of its chain expires, seconds since the epoch."""
        return self._loaded.ends_at

    @property
    def paths(self) -> list[Path]:
        """The files that it is read from."""
        files = self._files
        return [p for p in (files.certificate, files.private_key, files.client_ca) if p]

    async def reload(self) -> bool:
        """Read the files anew; if they can't be used, what was read before stays.

        Returns:
            Whether there was anything new in them.

        Raises:
            AccessFileError: as from ``open``.
        """
        loaded = await asyncio.to_thread(_load, self._files)
        if loaded == self._loaded:
            return False
        await _try_out(self._files, loaded)
        self._loaded = loaded
        self._next = loaded.configuration()
        if self.clients is not None:
            self.clients.trust(loaded.client_roots)
        return True

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials that follow what has been read."""
        return grpc.dynamic_ssl_server_credentials(
            self._current,
            self._fetch,  # type: ignore[arg-type] # None is what gRPC wants if nothing is new
            require_client_authentication=self._files.client_ca is not None,
        )

    def _fetch(self) -> "grpc.ServerCertificateConfiguration | None":
        """Return what is new since the last handshake, if anything."""
        fresh = self._next
        if fresh is self._current:
            return None
        self._current = fresh
        return fresh


def _load(files: CertificateFiles) -> _Loaded:
    """Read the files.

    Raises:
        AccessFileError: one can't be used.
    """
    now = datetime.now(UTC)
    certificates = read_file(files.certificate)
    private_key = read_file(files.private_key, secret=True)
    roots = None if files.client_ca is None else read_file(files.client_ca)
    try:
        public = load_pem_private_key(private_key, None).public_key()
    except PARSER_ERRORS:
        raise AccessFileError(
            f"{files.private_key} holds no private key in PEM without a passphrase"
        ) from None
    try:
        chain = x509.load_pem_x509_certificates(certificates)
        form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        if public.public_bytes(*form) != chain[0].public_key().public_bytes(*form):
            raise AccessFileError(f"{files.private_key} is not the key of {files.certificate}")
        fault = _fault_of_chain(chain, now)
        ends_at = min(each.not_valid_after_utc for each in chain).timestamp()
    except PARSER_ERRORS:
        raise AccessFileError(f"{files.certificate} holds no readable certificate in PEM") from None
    if fault is not None:
        raise AccessFileError(f"{files.certificate} {fault}")
    client_roots: list[x509.Certificate] = []
    if files.client_ca is not None and roots is not None:
        client_roots = _client_roots(files.client_ca, roots, now)
    return _Loaded(certificates, private_key, ends_at, roots, client_roots)


def _fault_of_chain(chain: Sequence[x509.Certificate], now: datetime) -> str | None:
    """Return why a chain, the server's certificate first, can't be used; None if it can.

    Raises:
        PARSER_ERRORS: a certificate can't be read.
    """
    for certificate in chain:
        fault = fault_of_dates(certificate, now)
        if fault is not None:
            which = "" if certificate is chain[0] else "holds an intermediate certificate that "
            return which + fault
    key = chain[0].public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        return f"has an RSA key of {key.key_size} bits: clients want {MIN_RSA_BITS} or more"
    try:
        usage = chain[0].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return None
    return None if _SERVES.intersection(usage) else "is not for servers (extendedKeyUsage)"


def _client_roots(path: Path, content: bytes, now: datetime) -> list[x509.Certificate]:
    """Return the roots of client certificates that can be used.

    Raises:
        AccessFileError: there is none.
    """
    try:
        roots = x509.load_pem_x509_certificates(content)
        faults = [fault_of_root(root, now) for root in roots]
    except PARSER_ERRORS:
        raise AccessFileError(f"{path} holds no readable certificate in PEM") from None
    usable = [root for root, fault in zip(roots, faults, strict=True) if fault is None]
    if not usable:
        raise AccessFileError(f"{path} holds no usable root: one {faults[0]}")
    return usable


async def _try_out(files: CertificateFiles, loaded: _Loaded) -> None:
    """Check that a client of gRPC can shake hands with a server that has these files.

    Raises:
        AccessFileError: it can't.
    """
    try:
        name = name_in(loaded.certificates)
    except ValueError as error:
        raise AccessFileError(f"{files.certificate}: {error}") from None
    if name is None:
        raise AccessFileError(
            f"{files.certificate} names no host that a client could expect: it needs a"
            " subjectAltName of type DNS or IP"
        )
    reason = await handshake_failure(loaded.certificates, loaded.private_key, loaded.roots, name)
    if reason is not None:
        raise AccessFileError(
            f"no client of gRPC can reach the service with {files.certificate}: {reason}"
            f" (its key is {_kind_of_key(loaded.certificates)}; use RSA, P-256 or P-384)"
        )


def _kind_of_key(certificates: bytes) -> str:
    key = x509.load_pem_x509_certificate(certificates).public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key.curve.name
    return type(key).__name__.removesuffix("PublicKey").lstrip("_")


def name_in(certificate: bytes) -> str | None:
    """Return a name or address that a server's certificate is for, the first of a PEM file.

    Raises:
        ValueError: there is no certificate in it.
    """
    try:
        leaf = x509.load_pem_x509_certificates(certificate)[0]
        attributes = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [
            *names.get_values_for_type(x509.DNSName),
            *map(str, names.get_values_for_type(x509.IPAddress)),
        ]
    except x509.ExtensionNotFound:
        found = []
    except PARSER_ERRORS:
        raise ValueError("there is no readable certificate in PEM") from None
    # Without a fitting name, gRPC's clients go by the common name.
    return next(iter([*found, *(str(attribute.value) for attribute in attributes)]), None)
