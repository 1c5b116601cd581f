"""The server's certificate: read from PEM files, checked, and read anew without a restart.

gRPC asks for it at every handshake (``grpc.dynamic_ssl_server_credentials``), so that a new one
holds for new connections at once; those that there are go on as they are.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from service.access.files import AccessFileError, read_file

__all__ = ["CertificateFiles", "ServerCertificate", "name_in"]


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where the PEM files are."""

    certificate: Path
    """The server's, followed by those between it and its root."""
    private_key: Path
    client_ca: Path | None = None
    """Roots of client certificates: without it none is asked for, with it each client needs one."""


class ServerCertificate:
    """What the server shows at a handshake. Handshakes are on gRPC's threads, reloads elsewhere."""

    def __init__(self, files: CertificateFiles) -> None:
        """Read the files.

        Raises:
            AccessFileError: one can't be used.
        """
        self._files = files
        self._current = self._next = _load(files)

    @property
    def paths(self) -> list[Path]:
        """The files that it is read from."""
        files = self._files
        return [p for p in (files.certificate, files.private_key, files.client_ca) if p]

    def reload(self) -> None:
        """Read the files anew; if they can't be used, what was read before stays.

        Raises:
            AccessFileError: one can't be used.
        """
        self._next = _load(self._files)

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


def _load(files: CertificateFiles) -> grpc.ServerCertificateConfiguration:
    certificate, key = read_file(files.certificate), read_file(files.private_key)
    roots = None if files.client_ca is None else read_file(files.client_ca)
    leaf = _certificates(files.certificate, certificate)[0]
    try:
        public = load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise AccessFileError(
            f"{files.private_key} holds no private key in PEM without a passphrase"
        ) from None
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if public.public_bytes(*form) != leaf.public_key().public_bytes(*form):
        raise AccessFileError(f"{files.private_key} is not the key of {files.certificate}")
    if leaf.not_valid_after_utc <= datetime.now(UTC):
        raise AccessFileError(
            f"{files.certificate} expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        )
    if files.client_ca is not None and roots is not None:
        _certificates(files.client_ca, roots)
    return grpc.ssl_server_certificate_configuration([(key, certificate)], roots)


def name_in(certificate: bytes) -> str | None:
    """Return a name or address that a server's certificate is for, the first of a PEM file.

    Raises:
        ValueError: there is no certificate in it.
    """
    leaf = x509.load_pem_x509_certificates(certificate)[0]
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    found = [
        *names.get_values_for_type(x509.DNSName),
        *map(str, names.get_values_for_type(x509.IPAddress)),
    ]
    return found[0] if found else None


def _certificates(path: Path, content: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(content)
    except ValueError:
        raise AccessFileError(f"{path} holds no certificate in PEM") from None
