"""Where the service is that gets the load, who it must be, and what it wants to see."""

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from grpc import aio

from connect_actor.client import ConnectClient
from connect_actor.client.bearer import send_token
from connect_actor.network.client_tls import ClientTls
from connect_actor.network.connections import connect
from connect_actor.v1.connect_pb2_grpc import ConnectServiceStub

if TYPE_CHECKING:
    # Known to the type checker only.
    from connect_actor.v1.connect_pb2_grpc import ConnectServiceAsyncStub

__all__ = ["Endpoint"]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One service."""

    address: str
    """As ``network.addresses`` has it."""
    identity: bytes | None = None
    """Its Ed25519 key, if known: whoever answers with another is refused."""
    tls: ClientTls | None = None
    """Whom to trust, and what to show; without it the load goes in clear text."""
    token: str | None = field(default=None, repr=False)
    """Sent with every call, to say who calls."""

    def connect(self, options: Sequence[tuple[str, str | int]]) -> aio.Channel:
        """Return a connection that opens at its first call."""
        return connect(self.address, self.tls, options)

    def stub(self, connection: aio.Channel) -> "ConnectServiceAsyncStub":
        """Return what calls the service over a connection."""
        stub: ConnectServiceAsyncStub = ConnectServiceStub(connection)
        if self.token is not None:
            send_token(stub, self.token)
        return stub

    def client(self) -> ConnectClient:
        """Return a client for what does not go over the load's own connections."""
        return ConnectClient(
            self.address, pinned_identity=self.identity, tls=self.tls, token=self.token
        )

    def encode(self) -> dict[str, Any]:
        """Return it as JSON can hold it: with its secrets, for a pipe to our own process."""
        tls = self.tls
        return {
            "address": self.address,
            "identity": _text(self.identity),
            "tls": tls
            and {
                "ca": _text(tls.ca),
                "certificate": _text(tls.certificate),
                "private_key": _text(tls.private_key),
                "server_name": tls.server_name,
            },
            "token": self.token,
        }

    @classmethod
    def decode(cls, encoded: Mapping[str, Any]) -> Self:
        """Return what ``encode`` encoded."""
        tls = encoded["tls"]
        return cls(
            encoded["address"],
            _bytes(encoded["identity"]),
            tls
            and ClientTls(
                _bytes(tls["ca"]) or b"",
                _bytes(tls["certificate"]),
                _bytes(tls["private_key"]),
                tls["server_name"],
            ),
            encoded["token"],
        )


def _text(value: bytes | None) -> str | None:
    return None if value is None else b64encode(value).decode()


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else b64decode(value)
