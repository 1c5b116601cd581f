"""Certificates made for a test, and gone with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import TypedDict, Unpack

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.support.secret_files import write_secret

__all__ = ["Certificate", "Parts", "make_authority", "make_certificate"]

_DAY = timedelta(days=1)


class Parts(TypedDict, total=False):
    """What a certificate is made of."""

    subject: x509.Name
    names: Sequence[x509.GeneralName]
    days: tuple[float, float]
    """From now, to its beginning and its end."""
    key: CertificateIssuerPrivateKeyTypes
    is_authority: bool
    extensions: Sequence[x509.ExtensionType]


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: CertificateIssuerPrivateKeyTypes

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def write(self, directory: Path, name: str) -> tuple[Path, Path]:
        """Write both; return where they are."""
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        certificate.write_bytes(self.pem)
        write_secret(key, self.key_pem)
        return certificate, key

    def issue(
        self,
        name: str | None,
        *,
        uri: str | None = None,
        expired: bool = False,
        **rest: Unpack[Parts],
    ) -> "Certificate":
        """Issue a certificate for 127.0.0.1, with this one as its authority."""
        names: list[x509.GeneralName] = [x509.IPAddress(ip_address("127.0.0.1"))]
        if uri is not None:
            names.append(x509.UniformResourceIdentifier(uri))
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
        days = (-2, -1) if expired else (-2, 1)
        parts: Parts = {"subject": subject, "names": names, "days": days}
        parts.update(rest)
        return make_certificate(self, **parts)


def make_authority(name: str = "authority", **rest: Unpack[Parts]) -> Certificate:
    """Make a root."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    parts: Parts = {"subject": subject, "is_authority": True}
    parts.update(rest)
    return make_certificate(None, **parts)


def make_certificate(authority: Certificate | None, **parts: Unpack[Parts]) -> Certificate:
    """Make any certificate, signed by an authority or by itself."""
    subject, days = parts["subject"], parts.get("days", (-2, 1))
    names, is_authority = parts.get("names", ()), parts.get("is_authority", False)
    key = parts.get("key") or ec.generate_private_key(ec.SECP256R1())
    signer = key if authority is None else authority.key
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if authority is None else authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * _DAY)
        .not_valid_after(now + days[1] * _DAY)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in parts.get("extensions", ()):
        builder = builder.add_extension(extension, critical=False)
    has_own_hash = isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey)
    return Certificate(builder.sign(signer, None if has_own_hash else SHA256()), key)
