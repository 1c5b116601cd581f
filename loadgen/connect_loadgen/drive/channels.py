"""The channels of a load: established over the load's own transport, with the client library."""

import asyncio
import os
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import grpc

from connect_actor.client import Channel, ConnectClient, Identity
from connect_actor.errors import ConnectError
from connect_actor.protocol.session import Session
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.peer import PeerEnd, RefusedByPeerError
from connect_loadgen.drive.transport import Transport, TransportError, ask_all
from connect_loadgen.service.endpoint import Endpoint
from connect_loadgen.settings.load import LoadSettings

__all__ = ["ChannelEnd", "decode_end", "encode_end", "establish"]

_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
# As the service says: milliseconds. Seconds.
_BEFORE_ANOTHER_TRY = 0.02

# Handshakes in flight: enough to keep the service busy, few enough that none waits for long.
_HANDSHAKES_AT_ONCE = 64


class ChannelEnd:
    """The client library's channel, as the peers see it."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.connect_id = channel.connect_id
        self.seal = channel.seal
        self._open = channel.open

    def open(self, payload: wire.CipherPayload) -> bytes:
        """Decrypt a message of the service's end.

        Raises:
            RefusedByPeerError: it is not authentic, or came before.
        """
        try:
            return self._open(payload)
        except ConnectError as error:
            raise RefusedByPeerError(str(error)) from error


def encode_end(end: ChannelEnd) -> dict[str, str | int]:
    """Return a channel's end as JSON can hold it: a secret, for a pipe to our own process."""
    session = b64encode(end.channel.session.encode()).decode()
    return {"connect_id": end.connect_id, "session": session}


def decode_end(encoded: Mapping[str, Any], client: ConnectClient) -> ChannelEnd:
    """Return the end that ``encode_end`` encoded; its service's end is reached by ``client``."""
    session = Session.decode(b64decode(encoded["session"]))
    return ChannelEnd(Channel(encoded["connect_id"], session, client.stub))


async def establish(
    transport: Transport, settings: LoadSettings, endpoint: Endpoint
) -> list[ChannelEnd]:
    """Make all channels and return the peers' ends, in the order of the workload's indexes.

    Args:
        transport: the way to the service; its listener is replaced.
        settings: how many channels, with how many one-time prekeys.
        endpoint: of the service.

    Raises:
        TransportError: the transport failed, or the service refused a handshake.
    """
    identity = Identity.generate(os.urandom)
    ends: list[ChannelEnd] = []
    numbers = count(1)
    async with endpoint.client() as client:
        while len(ends) < settings.channels:
            size = min(_HANDSHAKES_AT_ONCE, settings.channels - len(ends))
            initiations = [client.begin(identity, settings.one_time_prekeys) for _ in range(size)]
            operations = [
                wire.Operation(operation_id=next(numbers), establish=initiation.request)
                for initiation in initiations
            ]
            results = await ask_all(transport, operations, patience=settings.timeout_seconds)
            for initiation, result in zip(initiations, results, strict=True):
                if result.WhichOneof("outcome") != "establish":
                    raise TransportError(
                        f"the service refused a handshake: {result.error.message or 'no answer'}"
                    )
                try:
                    channel = client.complete(initiation, result.establish)
                except ConnectError as error:
                    raise TransportError(f"the service's handshake is refused: {error}") from error
                ends.append(ChannelEnd(channel))
    if settings.skipped_keys:
        await _skip_messages(transport, ends, settings)
    return ends


async def _skip_messages(
    transport: Transport, ends: Sequence[PeerEnd], settings: LoadSettings
) -> None:
    """Let every channel hold keys for messages that never come: seal them, send only the next."""
    operations = []
    for number, end in enumerate(ends, 1):
        for _ in range(settings.skipped_keys):
            end.seal(b"")
        request = wire.DecryptRequest(connect_id=end.connect_id, payload=end.seal(b""))
        operations.append(wire.Operation(operation_id=number, decrypt=request))
    patience = settings.timeout_seconds
    async with asyncio.timeout(patience):
        while operations:
            results = await ask_all(transport, operations, patience=patience)
            refused = []
            for operation, result in zip(operations, results, strict=True):
                if result.error.code == _EXHAUSTED:
                    # So much derivation at once is beyond a caller's share: it comes later.
                    refused.append(operation)
                elif result.WhichOneof("outcome") != "decrypt":
                    raise TransportError(
                        f"the service refused a message ahead of others: {result.error.message}"
                    )
            operations = refused
            if refused:
                await asyncio.sleep(_BEFORE_ANOTHER_TRY)
