"""A trial handshake: whether gRPC's clients can reach a server that shows a certificate."""

import grpc

from connect_actor.network.client_tls import ClientTls
from connect_actor.network.connections import connect

__all__ = ["handshake_failure"]

# Seconds; it takes a few milliseconds.
_TIMEOUT = 10.0


async def handshake_failure(
    certificates: bytes, private_key: bytes, roots: bytes | None, server_name: str
) -> str | None:
    """Have gRPC's client shake hands with gRPC's server, over the loopback interface.

    Args:
        certificates: of the server, in PEM; the client trusts them.
        private_key: of the first of them, in PEM.
        roots: of client certificates, in PEM; loaded, but no certificate is asked for.
        server_name: that the client expects in the first certificate.

    Returns:
        Why it fails; None if it succeeds.
    """
    # A port of 0 is no one else's, and it must not be shared with another process.
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    credentials = grpc.ssl_server_credentials([(private_key, certificates)], roots)
    try:
        port = server.add_secure_port("127.0.0.1:0", credentials)
        await server.start()
        tls = ClientTls(certificates, server_name=server_name)
        async with connect(f"127.0.0.1:{port}", tls) as channel:
            trial: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/trial/Trial"
            )
            await trial(b"", timeout=_TIMEOUT)
    except RuntimeError:
        return "gRPC can't load it"
    except grpc.aio.AioRpcError as error:
        # The server has no methods: to be told so takes a handshake that has succeeded.
        if error.code() is grpc.StatusCode.UNIMPLEMENTED:
            return None
        return (error.details() or error.code().name).rpartition(f"127.0.0.1:{port}: ")[2]
    finally:
        await server.stop(None)
    return None
