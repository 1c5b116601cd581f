"""Client certificates: whom one names, and whether it is valid now.

gRPC verifies a certificate once, at the handshake. A connection may outlive it, a TLS session
ticket brings it back without a new look, and roots may have been replaced since. So validity is
checked here for each call: the dates of every certificate up to the root, and that root against
the roots as last read. gRPC's own properties of a certificate end at a NUL; names are therefore
read from the certificate itself.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Protocol

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from connect_actor.access.principals import Principal, principal_named
from connect_actor.errors import UnauthenticatedError

__all__ = [
    "MIN_RSA_BITS",
    "PARSER_ERRORS",
    "ClientCertificate",
    "ClientCertificates",
    "SecuredCall",
    "fault_of_dates",
    "fault_of_root",
]

PARSER_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What reading a certificate or key can raise; their texts may quote what was read."""

# Some 3 KB each with its intermediates. Beyond, the oldest is parsed and verified anew (0.3 ms).
_MAX_KEPT = 4_096
# Seconds until a certificate that was refused is verified again.
_REFUSAL_KEPT = 30.0
MIN_RSA_BITS = 2_048
# As browsers do.
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
# All other extensions gRPC has checked at the handshake, against the roots of then.
_CA_POLICY = ExtensionPolicy.permit_all().require_present(
    x509.BasicConstraints, Criticality.AGNOSTIC, None
)
_POLICY = PolicyBuilder().extension_policies(
    ca_policy=_CA_POLICY, ee_policy=ExtensionPolicy.permit_all()
)


class SecuredCall(Protocol):
    """A call as far as its transport goes."""

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return what the transport has verified."""


class ClientCertificate:
    """A certificate that was shown, with what was shown between it and its root."""

    __slots__ = (
        "_judge",
        "intermediates",
        "leaf",
        "principal",
        "roots",
        "since",
        "trusted",
        "until",
    )

    def __init__(self, judge: "ClientCertificates", leaf: bytes, intermediates: bytes) -> None:
        """Read it from PEM; ``judge`` knows the roots.

        Raises:
            PARSER_ERRORS: it can't be read.
        """
        self._judge = judge
        self.leaf = x509.load_pem_x509_certificate(leaf)
        self.intermediates = x509.load_pem_x509_certificates(intermediates) if intermediates else []
        self.principal = _principal_of(self.leaf)
        """Whom it names; None if that is not exactly one acceptable name."""
        self.roots: Store | None = None
        """Those of the verdict below, which holds between the two times, in seconds since 1970."""
        self.trusted = False
        self.since = self.until = 0.0

    def is_valid(self) -> bool:
        """Say whether it is valid now, under the current roots."""
        return self._judge.admits(self)


class ClientCertificates:
    """The certificates that callers show, against the current roots. On the event loop's thread."""

    def __init__(
        self, roots: list[x509.Certificate], clock: Callable[[], float] = time.time
    ) -> None:
        """Trust ``roots``; ``clock`` tells seconds since 1970."""
        self._clock = clock
        self._kept: dict[bytes, ClientCertificate] = {}
        self.trust(roots)

    def trust(self, roots: list[x509.Certificate]) -> None:
        """Trust other roots from now on."""
        self._roots = Store(roots)
        self._policy = _POLICY.store(self._roots)

    def shown_by(self, call: SecuredCall) -> ClientCertificate:
        """Return the certificate that a call's connection has shown, if it is valid now.

        Raises:
            UnauthenticatedError: there is none, or it isn't.
        """
        verified = call.auth_context()
        leaf = b"".join(verified.get("x509_pem_cert", ()))
        intermediates = b"".join(verified.get("x509_pem_cert_chain", ()))
        digest = sha256(leaf + intermediates).digest()
        certificate = self._kept.get(digest)
        if certificate is None:
            try:
                certificate = ClientCertificate(self, leaf, intermediates)
            except PARSER_ERRORS:
                raise UnauthenticatedError(
                    "the client certificate can't be read: use another"
                ) from None
            if len(self._kept) >= _MAX_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[digest] = certificate
        if not certificate.is_valid():
            raise UnauthenticatedError(
                "the client certificate has expired, or no root that is trusted now verifies it:"
                " connect with a valid one"
            )
        return certificate

    def admits(self, certificate: ClientCertificate) -> bool:
        """Say whether a certificate is valid now, under the current roots."""
        now = self._clock()
        if certificate.roots is not self._roots or not certificate.since <= now < certificate.until:
            self._verify(certificate, now)
        return certificate.trusted

    def _verify(self, certificate: ClientCertificate, now: float) -> None:
        verifier = self._policy.time(datetime.fromtimestamp(now, UTC)).build_client_verifier()
        certificate.roots = self._roots
        try:
            chain = verifier.verify(certificate.leaf, certificate.intermediates).chain
        except (VerificationError, *PARSER_ERRORS):
            certificate.trusted = False
            certificate.since, certificate.until = now, now + _REFUSAL_KEPT
        else:
            certificate.trusted = True
            certificate.since = max(c.not_valid_before_utc for c in chain).timestamp()
            certificate.until = min(c.not_valid_after_utc for c in chain).timestamp()


def _principal_of(certificate: x509.Certificate) -> Principal | None:
    """Return whom a certificate names: its only URI or, without any, its only common name."""
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        names = extension.value.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        names = []
    if not names:
        attributes = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        names = [str(attribute.value) for attribute in attributes]
    try:
        (name,) = names
        return principal_named(name)
    except ValueError:
        return None


def fault_of_dates(certificate: x509.Certificate, now: datetime) -> str | None:
    """Return why a certificate isn't valid now, if it isn't."""
    if certificate.not_valid_after_utc < now:
        return f"expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if now < certificate.not_valid_before_utc:
        return f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    return None


def fault_of_root(root: x509.Certificate, now: datetime) -> str | None:
    """Return why no client's certificate can be verified by a root; None if it can.

    Raises:
        PARSER_ERRORS: it can't be read.
    """
    if root.version is not x509.Version.v3:
        return "is not of X.509 version 3"
    key = root.public_key()
    if not (
        (isinstance(key, rsa.RSAPublicKey) and key.key_size >= MIN_RSA_BITS)
        or (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES))
    ):
        return f"has no key of RSA with {MIN_RSA_BITS} bits or more, P-256, P-384 or P-521"
    fault = fault_of_dates(root, now)
    if fault is None:
        try:
            _POLICY.store(Store([root])).time(now).build_client_verifier().verify(root, [])
        except VerificationError:
            return "is not as RFC 5280 has it, such as its serial number: issue it anew"
    return fault
