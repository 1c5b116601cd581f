"""A bare gRPC server: what Encrypt would cost if the service did nothing for it.

``python -m connect_loadgen.service.bare`` takes the flags of ``connect-actor serve`` and ignores
them. It answers Encrypt with a payload of the size that the service's has, under the service's own
options of gRPC, and has no other rooms: no admission, no router, no ratchet, no journal. Its
metrics are those of its process.
"""

import asyncio
import json
import os
import signal
import sys
from typing import Any

import grpc
import uvloop

from connect_actor.observe.exposition import serve_collector
from connect_actor.observe.process import OwnProcess
from connect_actor.protocol.primitives import KEY_SIZE, NONCE_SIZE, TAG_SIZE
from connect_actor.rpc.server import ConnectionBounds
from connect_actor.v1 import connect_pb2 as wire

__all__ = ["ECHO_COMMAND", "EchoEnd", "main"]

ECHO_COMMAND = (sys.executable, "-m", "connect_loadgen.service.bare")

# As the service's settings have it by default.
_MAX_MESSAGE_BYTES = 4_194_304
# As large on the wire as a real one.
_NOW_MICROS = 1_800_000_000_000_000
_GRACE = 1.0


async def _encrypt(
    request: wire.EncryptRequest, context: grpc.aio.ServicerContext[Any, Any]
) -> wire.EncryptResponse:
    """Answer with what was asked, in the shape and size of a real answer."""
    del context
    return wire.EncryptResponse(
        payload=wire.CipherPayload(
            nonce=bytes(NONCE_SIZE),
            ratchet_index=1,
            ciphertext=request.plaintext + bytes(TAG_SIZE),
            created_at_unix_micros=_NOW_MICROS,
            dh_public_key=bytes(KEY_SIZE),
        )
    )


_HANDLER = grpc.method_handlers_generic_handler(
    wire.DESCRIPTOR.services_by_name["ConnectService"].full_name,
    {
        "Encrypt": grpc.unary_unary_rpc_method_handler(
            _encrypt,
            request_deserializer=wire.EncryptRequest.FromString,
            response_serializer=wire.EncryptResponse.SerializeToString,
        )
    },
)


class EchoEnd:
    """The peer of such a channel."""

    def __init__(self, connect_id: int) -> None:
        self.connect_id = connect_id

    def seal(self, plaintext: bytes) -> wire.CipherPayload:
        """Encrypt nothing."""
        return wire.CipherPayload(ciphertext=plaintext + bytes(TAG_SIZE))

    def open(self, payload: wire.CipherPayload) -> bytes:
        """Take the place of the tag away."""
        return payload.ciphertext[:-TAG_SIZE]


async def _serve() -> None:
    bounds = ConnectionBounds()
    server = grpc.aio.server(
        maximum_concurrent_rpcs=bounds.max_calls,
        options=[
            *bounds.options(),
            ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
            ("grpc.so_reuseport", 0),
        ],
    )
    server.add_generic_rpc_handlers((_HANDLER,))
    port = server.add_insecure_port("127.0.0.1:0")
    metrics = serve_collector(OwnProcess(registry=None), "127.0.0.1:0")
    await server.start()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    told = {
        "event": "ready",
        "listen": f"127.0.0.1:{port}",
        "metrics": f"127.0.0.1:{metrics.server_port}",
        "pid": os.getpid(),
    }
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()
    await stopping.wait()
    await server.stop(_GRACE)


def main() -> None:
    """Serve until SIGTERM."""
    uvloop.run(_serve())


if __name__ == "__main__":
    main()
