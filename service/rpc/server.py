"""The gRPC server: the service itself, health, reflection and their limits."""

import contextlib
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from protos.connect_actor.v1 import connect_pb2
from protos.connect_actor.v1.connect_pb2_grpc import add_ConnectServiceServicer_to_server
from service.access.certificates import ServerCertificate
from service.rpc.servicer import ConnectServicer

__all__ = ["ListenError", "RpcServer"]

_SERVICE = connect_pb2.DESCRIPTOR.services_by_name["ConnectService"].full_name

# Seconds between two looks at whether the server still serves.
_LOOK = 0.1


class ListenError(Exception):
    """The address can't be listened on; the message says which."""


@dataclass(slots=True)
class RpcServer:
    """A server that listens, and can be stopped gracefully."""

    address: str
    """host:port, with the port that was really taken."""
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
    ) -> "RpcServer":
        """Listen and serve: by TLS with a certificate, in clear text without.

        Health and reflection are open to whoever can connect: they tell nothing of any channel.

        Raises:
            ListenError: the address is malformed or taken.
        """
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", max_frame_bytes),
                ("grpc.max_send_message_length", max_frame_bytes),
                # Otherwise a second server on the same port would share its connections unseen.
                ("grpc.so_reuseport", 0),
            ]
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
            raise ListenError(f"can't listen on {listen}: is it in use?") from error
        await server.start()
        for name in ("", _SERVICE):
            await health_servicer.set(name, health_pb2.HealthCheckResponse.SERVING)
        # A path has no port.
        address = listen if listen.startswith("unix") else f"{listen.rpartition(':')[0]}:{port}"
        return cls(address, server, health_servicer, servicer)

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
