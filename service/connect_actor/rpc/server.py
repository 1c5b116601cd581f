"""The gRPC server: the service itself, health, reflection and their limits."""

import errno
from dataclasses import dataclass, replace

import grpc

from connect_actor.access.certificates import ServerCertificate
from connect_actor.network.addresses import ListenError, UnixSocket, parse, why_not_listening
from connect_actor.rpc.calls import guarded_server
from connect_actor.rpc.public import Health, public_handlers
from connect_actor.rpc.servicer import ConnectServicer
from connect_actor.v1 import connect_pb2

__all__ = ["ConnectionBounds", "RpcServer"]

_SERVICE = connect_pb2.DESCRIPTOR.services_by_name["ConnectService"].full_name

# Bytes that a call's peer may send before it is read.
_WINDOW = 65_535
# Bytes that gRPC may hold of an open call: a window, and as much that is to be written. Of one that
# waits to be taken up, which may be twice as many, it is the window alone.
_BUFFERS = 2 * 65_536
# Calls that may be open whatever the bound on bytes: those of one connection.
_LEAST_CALLS = 256


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """What connections may do before, between and beside calls. Times are seconds."""

    max_connections: int = 20_000
    max_calls: int = 20_000
    """Calls and streams open in the whole server; beyond, gRPC refuses them unread."""
    max_calls_per_connection: int = 256
    """Beyond, callers are held up by the transport and cost the server nothing."""
    keepalive_interval: float = 60.0
    """How long a connection is silent before its peer is asked for a sign of life."""
    keepalive_timeout: float = 20.0
    """How long that sign may take."""
    idle_timeout: float = 900.0
    """How long a connection may be without a call; its peer is told, and connects anew."""
    handshake_timeout: float = 10.0
    """How long a new connection may take to speak HTTP/2."""

    def within(self, max_bytes: int) -> "ConnectionBounds":
        """Return the same with no more calls than can hold so many bytes in gRPC's buffers."""
        calls = max(max_bytes // _BUFFERS, _LEAST_CALLS)
        return replace(self, max_calls=min(self.max_calls, calls))

    def options(self) -> list[tuple[str, int]]:
        """Return the same as gRPC's channel arguments."""
        return [
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            ("grpc.max_concurrent_streams", self.max_calls_per_connection),
            # Calls that were reset count until they are freed: without it a peer that opens and
            # resets them has any number at work. As many as may be open may be on their way out:
            # a commit answers all calls of a connection at once, and their caller then makes as
            # many new ones before the first of the old ones is freed.
            ("grpc.http.overload_protection", 1),
            ("grpc.http2.max_deallocating_streams", self.max_calls_per_connection),
            # gRPC holds what a peer sends before it is read. Windows that it fits to the line's
            # speed would let it hold megabytes for each call, instead of this.
            ("grpc.http2.bdp_probe", 0),
            ("grpc.http2.lookahead_bytes", _WINDOW),
            # Of more than 1,000 calls that wait to be taken up, gRPC would cancel some by chance,
            # which tells their callers nothing of what to do.
            ("grpc.server.max_pending_requests", 2 * self.max_calls),
            ("grpc.server.max_pending_requests_hard_limit", 2 * self.max_calls),
            ("grpc.keepalive_time_ms", _millis(self.keepalive_interval)),
            ("grpc.keepalive_timeout_ms", _millis(self.keepalive_timeout)),
            # A connection without calls is asked, too: its peer may be gone.
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.max_connection_idle_ms", _millis(self.idle_timeout)),
            ("grpc.server_handshake_timeout_ms", _millis(self.handshake_timeout)),
        ]


def _millis(seconds: float) -> int:
    return max(round(seconds * 1_000), 1)


@dataclass(slots=True)
class RpcServer:
    """A server that listens, and can be stopped gracefully."""

    address: str
    """Where it listens, with the port that was really taken."""
    _server: grpc.aio.Server
    _health: Health
    _servicer: ConnectServicer

    @classmethod
    async def start(
        cls,
        servicer: ConnectServicer,
        listen: str,
        *,
        max_frame_bytes: int,
        certificate: ServerCertificate | None = None,
        connections: ConnectionBounds | None = None,
        share_address: bool = False,
    ) -> "RpcServer":
        """Listen and serve: by TLS with a certificate, in clear text without.

        Health and reflection are open to all who can connect: they tell nothing of any channel.

        Args:
            servicer: serves the calls.
            listen: as ``network.addresses`` has it.
            max_frame_bytes: of one message.
            certificate: what the service shows; without it everything is in clear text.
            connections: what they may do; the bounds' defaults if not given.
            share_address: with whatever else of this user listens there and shares it.

        Raises:
            ListenError: the address can't be listened on.
        """
        address = parse(listen)
        if isinstance(address, UnixSocket) and address.is_served:
            # gRPC would take the path over unasked.
            raise ListenError.of("listen", listen, OSError(errno.EADDRINUSE, ""))
        bounds = (connections or ConnectionBounds()).within(servicer.admission.bounds.max_bytes)
        healthy = Health([_SERVICE])
        server = guarded_server(
            {**servicer.handlers(), **public_handlers(healthy, servicer.entrance)},
            [
                *bounds.options(),
                ("grpc.max_receive_message_length", max_frame_bytes),
                ("grpc.max_send_message_length", max_frame_bytes),
                # Otherwise a second server on the same port would share its connections unseen.
                ("grpc.so_reuseport", int(share_address)),
            ],
        )
        servicer.entrance.max_calls = bounds.max_calls
        # Strangers alone must not have every call that may be open.
        strangers = servicer.entrance.strangers
        strangers.size = min(strangers.size, max(bounds.max_calls // 4, 1))
        try:
            if certificate is None:
                port = server.add_insecure_port(listen)
            else:
                port = server.add_secure_port(listen, certificate.credentials())
        except RuntimeError as error:
            why = why_not_listening(address) or OSError("gRPC gives no reason")
            raise ListenError.of("listen", listen, why) from error
        await server.start()
        return cls(str(address.with_port(port)), server, healthy, servicer)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, finish those accepted, within ``grace`` seconds."""
        self._health.stop()
        self._servicer.stop_reading()
        await self._server.stop(grace)
