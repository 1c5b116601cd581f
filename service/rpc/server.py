"""The gRPC server: the service itself, health, reflection and their limits."""

import contextlib
import errno
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from protos.connect_actor.v1 import connect_pb2
from protos.connect_actor.v1.connect_pb2_grpc import add_ConnectServiceServicer_to_server
from service.access.certificates import ServerCertificate
from service.addresses import ListenError, UnixSocket, parse, why_not_listening
from service.rpc.servicer import ConnectServicer

__all__ = ["ConnectionBounds", "RpcServer"]

_SERVICE = connect_pb2.DESCRIPTOR.services_by_name["ConnectService"].full_name

# Seconds between two looks at whether the server still serves.
_LOOK = 0.1


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

    def options(self) -> list[tuple[str, int]]:
        """Return the same as gRPC's channel arguments."""
        return [
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            ("grpc.max_concurrent_streams", self.max_calls_per_connection),
            # Would refuse calls within that bound while ended ones are not freed yet.
            ("grpc.http.overload_protection", 0),
            # Of more than 1,000 calls that wait to be taken up, gRPC would cancel some by chance,
            # which tells their callers nothing of what to do.
            ("grpc.server.max_pending_requests", self.max_calls),
            ("grpc.server.max_pending_requests_hard_limit", self.max_calls),
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
    _health: HealthServicer
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

        Health and reflection are open to whoever can connect: they tell nothing of any channel.

        Args:
            servicer: serves the calls.
            listen: as ``service.addresses`` has it.
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
        bounds = connections or ConnectionBounds()
        server = grpc.aio.server(
            maximum_concurrent_rpcs=bounds.max_calls,
            options=[
                *bounds.options(),
                ("grpc.max_receive_message_length", max_frame_bytes),
                ("grpc.max_send_message_length", max_frame_bytes),
                # Otherwise a second server on the same port would share its connections unseen.
                ("grpc.so_reuseport", int(share_address)),
            ],
        )
        add_ConnectServiceServicer_to_server(servicer, server)
        health_servicer = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health_servicer, server)
        reflection.enable_server_reflection(
            [_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], server
        )
        try:
            if certificate is None:
                port = server.add_insecure_port(listen)
            else:
                port = server.add_secure_port(listen, certificate.credentials())
        except RuntimeError as error:
            why = why_not_listening(address) or OSError("gRPC gives no reason")
            raise ListenError.of("listen", listen, why) from error
        await server.start()
        for name in ("", _SERVICE):
            await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        return cls(str(address.with_port(port)), server, health_servicer, servicer)

    async def ended(self) -> None:
        """Wait until the server serves no more, told to or not, and has let go of its address."""
        # Whatever ended it has been logged by gRPC. It is looked at now and then, since waiting
        # for the end alone waits for every call under way, which nobody answers any more.
        with contextlib.suppress(Exception):
            while await self._server.wait_for_termination(_LOOK):
                pass
        with contextlib.suppress(Exception):
            await self._server.stop(None)

    async def stop(self, grace: float) -> None:
        """Refuse new calls, finish those accepted, within ``grace`` seconds."""
        await self._health.enter_graceful_shutdown()
        self._servicer.stop_reading()
        await self._server.stop(grace)
