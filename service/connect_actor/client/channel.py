"""A channel as a client sees it: the peer's end in its own memory, the service's end over gRPC.

    channel.seal / channel.open          the peer's end: local, no call
    channel.encrypt / channel.decrypt    the service's end: a call

What one end encrypts the other decrypts, in both directions. A call whose answer got lost is
repeated where that is safe: a decrypt, and an encrypt with an idempotency key.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import grpc

from connect_actor.client.errors import translated
from connect_actor.errors import WriteUncertainError
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.primitives import Random
from connect_actor.protocol.session import Session
from connect_actor.protocol.wire import payload_from_wire, payload_to_wire
from connect_actor.v1 import connect_pb2 as wire

if TYPE_CHECKING:
    # Known to the type checker only.
    from connect_actor.v1.connect_pb2_grpc import ConnectServiceAsyncStub

__all__ = ["Channel", "wall_clock"]

_Response = TypeVar("_Response")

# Long enough together for a service that restarts.
_RETRY_PAUSES = (0.1, 0.5, 2.0)


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
        retry_pauses: Sequence[float] = _RETRY_PAUSES,
    ) -> None:
        """Join a session that has been made with the stub that reaches its other end.

        ``retry_pauses``, in seconds, come before each repetition of a call whose answer got lost.
        """
        self.connect_id = connect_id
        self.session = session
        self.last_delivery_number = 0
        """The largest that an answer has named; 0 if the channel keeps no deliveries."""
        self._retry_pauses = retry_pauses
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
        self,
        plaintext: bytes,
        *,
        request_id: int = 0,
        idempotency_key: bytes = b"",
        timeout: float | None = None,
    ) -> wire.CipherPayload:
        """Let the service encrypt a message for the peer.

        Args:
            plaintext: any bytes.
            request_id: the caller's name for the message, 64 bits.
            idempotency_key: 1 to 64 bytes, another for each message; with one the call is repeated
                if its answer gets lost, and gives one and the same payload.
            timeout: seconds, of each attempt.

        Raises:
            ConnectError: what the service said instead.
        """
        request = wire.EncryptRequest(
            connect_id=self.connect_id,
            plaintext=plaintext,
            request_id=request_id,
            idempotency_key=idempotency_key,
        )
        call = partial(self._stub.Encrypt, request, timeout=timeout)
        with translated():
            response = await (_repeated(call, self._retry_pauses) if idempotency_key else call())
        self._note_delivery(response.delivery_number)
        return response.payload

    async def decrypt(self, payload: wire.CipherPayload, *, timeout: float | None = None) -> bytes:
        """Let the service decrypt a message of the peer; repeated if its answer gets lost.

        Args:
            payload: as the peer sealed it.
            timeout: seconds, of each attempt.

        Raises:
            ConnectError: what the service said instead; after a lost answer also
                ``MessageReplayedError``, if the channel does not keep the delivery.
        """
        request = wire.DecryptRequest(connect_id=self.connect_id, payload=payload)
        call = partial(self._stub.Decrypt, request, timeout=timeout)
        with translated():
            response = await _repeated(call, self._retry_pauses)
        self._note_delivery(response.delivery_number)
        return response.plaintext

    async def acknowledge(self, up_to: int | None = None, *, timeout: float | None = None) -> None:
        """Let the service forget how to give answers again.

        Args:
            up_to: a delivery number; without it, the largest that an answer has named, which takes
                that no earlier answer is still awaited.
            timeout: seconds.

        Raises:
            ConnectError: what the service said instead.
        """
        number = self.last_delivery_number if up_to is None else up_to
        if not number:
            return  # there is nothing to forget
        request = wire.AcknowledgeRequest(connect_id=self.connect_id, up_to_delivery_number=number)
        with translated():
            await self._stub.Acknowledge(request, timeout=timeout)

    def _note_delivery(self, number: int) -> None:
        self.last_delivery_number = max(self.last_delivery_number, number)

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


async def _repeated(call: Callable[[], Awaitable[_Response]], pauses: Sequence[float]) -> _Response:
    """Make a call, and again after each pause for as long as its outcome is unknown."""
    for pause in pauses:
        try:
            with translated():
                return await call()
        except WriteUncertainError:
            pass
        except grpc.aio.AioRpcError as error:
            # Without a status of ours: the connection broke, or the service is not there (yet).
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
        await asyncio.sleep(pause)
    return await call()
