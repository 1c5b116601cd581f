"""A channel as a client sees it: the peer's end in its own memory, the service's end over gRPC.

    channel.seal / channel.open          the peer's end: local, no call
    channel.encrypt / channel.decrypt    the service's end: a call

What one end encrypts the other decrypts, in both directions.
"""

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from protos.connect_actor.v1 import connect_pb2 as wire
from service.client.errors import translated
from service.protocol.payload import Payload
from service.protocol.primitives import Random
from service.protocol.session import Session
from service.protocol.wire import payload_from_wire, payload_to_wire

if TYPE_CHECKING:
    # Known to the type checker only.
    from protos.connect_actor.v1.connect_pb2_grpc import ConnectServiceAsyncStub

__all__ = ["Channel", "wall_clock"]


def wall_clock() -> int:
    """Return microseconds since the epoch."""
    return time.time_ns() // 1_000


class Channel:
    """Both ends of one channel. Made by ``ConnectClient.establish``.

    The peer's end lives in this object alone: whoever needs it beyond the process stores
    ``channel.session.encode()``, as a secret.
    """

    def __init__(
        self,
        connect_id: int,
        session: Session,
        stub: "ConnectServiceAsyncStub",
        *,
        clock: Callable[[], int] = wall_clock,
        random: Random = os.urandom,
    ) -> None:
        """Join a session that has been made with the stub that reaches its other end."""
        self.connect_id = connect_id
        self.session = session
        self._stub = stub
        self._clock = clock
        self._random = random

    def __repr__(self) -> str:
        return f"Channel(connect_id={self.connect_id})"

    # --- The peer's end ---------------------------------------------------------------------------

    def seal(self, plaintext: bytes, request_id: int = 0) -> wire.CipherPayload:
        """Encrypt a message for the service's end.

        Raises:
            ChannelExpiredError: the channel's lifetime is over.
        """
        payload, _ = self.session.encrypt(
            plaintext, now=self._clock(), random=self._random, request_id=request_id
        )
        message = wire.CipherPayload()
        payload_to_wire(payload, message)
        return message

    def open(self, payload: wire.CipherPayload) -> bytes:
        """Decrypt a message of the service's end, in any order of arrival.

        Raises:
            ChannelExpiredError: the channel's lifetime is over.
            MalformedRequestError: a part of the payload has the wrong size.
            PeerError: the message is forged, was opened before, or is too far ahead.
        """
        parsed: Payload = payload_from_wire(payload)
        plaintext, _ = self.session.decrypt(parsed, now=self._clock())
        return plaintext

    # --- The service's end ------------------------------------------------------------------------

    async def encrypt(
        self, plaintext: bytes, *, request_id: int = 0, timeout: float | None = None
    ) -> wire.CipherPayload:
        """Let the service encrypt a message for the peer.

        Raises:
            ConnectError: what the service said instead.
        """
        request = wire.EncryptRequest(
            connect_id=self.connect_id, plaintext=plaintext, request_id=request_id
        )
        with translated():
            return (await self._stub.Encrypt(request, timeout=timeout)).payload

    async def decrypt(self, payload: wire.CipherPayload, *, timeout: float | None = None) -> bytes:
        """Let the service decrypt a message of the peer.

        Raises:
            ConnectError: what the service said instead.
        """
        request = wire.DecryptRequest(connect_id=self.connect_id, payload=payload)
        with translated():
            return (await self._stub.Decrypt(request, timeout=timeout)).plaintext

    async def restore(self, *, timeout: float | None = None) -> wire.RestoreResponse:
        """Ask the service whether the channel can go on, and where it stands.

        Raises:
            ConnectError: what the service said instead.
        """
        with translated():
            return await self._stub.Restore(
                wire.RestoreRequest(connect_id=self.connect_id), timeout=timeout
            )

    async def close(self, *, timeout: float | None = None) -> None:
        """End the channel for good.

        Raises:
            ConnectError: what the service said instead.
        """
        with translated():
            await self._stub.Close(wire.CloseRequest(connect_id=self.connect_id), timeout=timeout)
