"""The gate: says who a caller is, once for each call or stream, before anything else is done.

By bearer token where there is a token file, else by client certificate where these are asked for,
else everybody is the anonymous principal, and counted by the connection's address. With both, each
call needs a valid certificate of its connection and a token, which names the principal. Refusals
don't say what was wrong with a token.
"""

from collections.abc import Iterable
from typing import Protocol

from connect_actor.access.client_certificates import (
    ClientCertificate,
    ClientCertificates,
    SecuredCall,
)
from connect_actor.access.principals import ANONYMOUS, Principal
from connect_actor.access.quotas import Account, Accounts
from connect_actor.access.tokens import Holder, TokenFile
from connect_actor.errors import UnauthenticatedError
from connect_actor.network.peers import address_of

__all__ = ["Call", "Caller", "Gate"]

_SCHEME = "bearer"


class Call(SecuredCall, Protocol):
    """What the gate wants to know of a call: gRPC's ``ServicerContext`` has it."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Return what the caller sent beside the request."""

    def peer(self) -> str:
        """Return the connection's other end."""


class Caller:
    """Whoever makes a call, for as long as it lasts."""

    __slots__ = ("account", "certificate", "holder", "owner")

    def __init__(
        self,
        owner: bytes,
        account: Account | None,
        holder: Holder | None = None,
        certificate: ClientCertificate | None = None,
    ) -> None:
        self.owner = owner
        self.account = account
        """None if nothing of this caller is counted."""
        self.holder = holder
        """The token that was shown."""
        self.certificate = certificate
        """The certificate that the connection has shown."""

    def certificate_is_valid(self) -> bool:
        """Say whether the certificate, if there is one, is valid now. It may end at any time."""
        return self.certificate is None or self.certificate.is_valid()


class Gate:
    """See the module's text."""

    def __init__(
        self,
        *,
        tokens: TokenFile | None = None,
        certificates: ClientCertificates | None = None,
        accounts: Accounts | None = None,
    ) -> None:
        """Authenticate by tokens, by client certificates, or not at all; count in ``accounts``."""
        self._tokens = tokens
        self._certificates = certificates
        self._accounts = accounts

    def admit(self, call: Call) -> Caller:
        """Return who makes a call.

        Raises:
            UnauthenticatedError: they have not shown it.
        """
        certificate = None
        if self._certificates is not None:
            certificate = self._certificates.shown_by(call)
        if self._tokens is not None:
            token = _token_of(call)
            holder = None if token is None else self._tokens.holder_of(token)
            if holder is None:
                raise UnauthenticatedError("send 'authorization: Bearer TOKEN' with a valid token")
            return self._caller(holder.principal, holder, certificate)
        if certificate is not None:
            if certificate.principal is None:
                raise UnauthenticatedError(
                    "the client certificate names no principal: it needs exactly one URI or,"
                    " without any, exactly one common name, of visible characters and no spaces"
                )
            return self._caller(certificate.principal, None, certificate)
        accounts = self._accounts
        account = None if accounts is None else accounts.of_address(address_of(call.peer()))
        return Caller(ANONYMOUS.owner, account)

    def still_admits(self, caller: Caller) -> bool:
        """Say whether what a caller has shown is good enough still."""
        if not caller.certificate_is_valid():
            return False
        return caller.holder is None or self._tokens is None or self._tokens.holds(caller.holder)

    def _caller(
        self,
        principal: Principal,
        holder: Holder | None = None,
        certificate: ClientCertificate | None = None,
    ) -> Caller:
        account = None if self._accounts is None else self._accounts.of(principal)
        return Caller(principal.owner, account, holder, certificate)


def _token_of(call: Call) -> str | None:
    """Return the one bearer token that a call carries."""
    values = [value for key, value in call.invocation_metadata() or () if key == "authorization"]
    if len(values) != 1 or not isinstance(values[0], str):
        return None
    scheme, _, token = values[0].partition(" ")
    return token.strip() if scheme.lower() == _SCHEME else None
