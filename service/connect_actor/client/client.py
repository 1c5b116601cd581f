"""The client: a connection to the service, and the channels made over it."""

import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from connect_actor.client.bearer import send_token
from connect_actor.client.channel import Channel, wall_clock
from connect_actor.client.errors import translated
from connect_actor.client.exchange import ExchangeStream
from connect_actor.network.client_tls import ClientTls
from connect_actor.network.connections import connect
from connect_actor.protocol.handshake import Initiation
from connect_actor.protocol.keys import DEFAULT_ONE_TIME_PREKEYS, Identity
from connect_actor.protocol.primitives import Random
from connect_actor.v1 import connect_pb2 as wire
from connect_actor.v1.connect_pb2_grpc import ConnectServiceStub

if TYPE_CHECKING:
    # Known to the type checker only.
    from connect_actor.v1.connect_pb2_grpc import ConnectServiceAsyncStub

__all__ = ["ConnectClient"]

# The service's own default for the largest gRPC message.
_MAX_FRAME_BYTES = 4_194_304
_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_FRAME_BYTES),
    ("grpc.max_send_message_length", _MAX_FRAME_BYTES),
)


class ConnectClient:
    """A connection to one service, as an async context manager.

    identity = Identity.generate(os.urandom)
    async with ConnectClient("127.0.0.1:50051") as client:
        channel = await client.establish(identity)
        payload = await channel.encrypt(b"from the service's end")
        assert channel.open(payload) == b"from the service's end"
        assert await channel.decrypt(channel.seal(b"from the peer's end")) == ...
    """

    def __init__(
        self,
        target: str,
        *,
        pinned_identity: bytes | None = None,
        tls: ClientTls | None = None,
        token: str | None = None,
        use_proxy: bool = False,
        clock: Callable[[], int] = wall_clock,
        random: Random = os.urandom,
    ) -> None:
        """Connect lazily.

        Args:
            target: the service's address: host:port, with an IPv6 host in brackets, or unix:path.
            pinned_identity: the service's Ed25519 identity key, 32 bytes. Without it whoever
                answers is believed.
            tls: whom to trust, and what to show; without it the connection is in clear text.
            token: sent with every call, to say who calls.
            use_proxy: whether to connect by the HTTP proxy that the environment names
                (``grpc_proxy``, ``https_proxy`` or ``http_proxy``, in this order, unless
                ``no_proxy`` excludes the target). Otherwise the connection is direct.
            clock: microseconds since the epoch.
            random: source of all key material of the peer's end.
        """
        self._pinned_identity = pinned_identity
        self._clock = clock
        self._random = random
        self._connection = connect(target, tls, _OPTIONS, use_proxy=use_proxy)
        self.stub: ConnectServiceAsyncStub = ConnectServiceStub(self._connection)
        if token is not None:
            send_token(self.stub, token)

    async def __aenter__(self) -> Self:
        """Return the client itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection."""
        await self.close()

    async def close(self) -> None:
        """Close the connection; channels live on in the service."""
        await self._connection.close()

    async def establish(
        self,
        identity: Identity,
        *,
        one_time_prekeys: int = DEFAULT_ONE_TIME_PREKEYS,
        timeout: float | None = None,
    ) -> Channel:
        """Make a channel.

        Args:
            identity: the peer's long-lived identity.
            one_time_prekeys: how many the peer's bundle holds.
            timeout: seconds.

        Raises:
            ConnectError: what the service said instead.
            HandshakeRefusedError: the service's answer is not acceptable.
        """
        initiation = self.begin(identity, one_time_prekeys)
        with translated():
            response = await self.stub.Establish(initiation.request, timeout=timeout)
        return self.complete(initiation, response)

    def begin(
        self, identity: Identity, one_time_prekeys: int = DEFAULT_ONE_TIME_PREKEYS
    ) -> Initiation:
        """Make the request of a handshake, for whoever sends it in some other way (a stream)."""
        return Initiation.begin(identity, self._random, one_time_prekeys)

    def complete(self, initiation: Initiation, response: wire.EstablishResponse) -> Channel:
        """Make the channel of a handshake that has been answered.

        Raises:
            HandshakeRefusedError: the answer is not acceptable.
        """
        session = initiation.complete(response, pinned_identity=self._pinned_identity)
        return Channel(
            response.connect_id, session, self.stub, clock=self._clock, random=self._random
        )

    def exchange(self) -> ExchangeStream:
        """Open a batched stream: ``async with client.exchange() as stream: ...``."""
        return ExchangeStream(self.stub)
