"""Connections that speak HTTP/2 and never call anything, by the thousands in one process."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from connect_actor.network.addresses import parse_host_port
from connect_loadgen.drive.transport import TransportError, first_error

__all__ = ["hold_connections"]

# RFC 9113: preface (3.4), frame header (4.1), SETTINGS (6.5) and PING (6.7) with their ACK flag.
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADER = 9
_SETTINGS, _PING = 4, 6
_ACK = 1
# So many at a time: the service's queue of connections to accept is not what is tried here.
_AT_ONCE = 200


def _frame(kind: int, flags: int, content: bytes) -> bytes:
    return len(content).to_bytes(3, "big") + bytes((kind, flags, 0, 0, 0, 0)) + content


class _Idle(asyncio.Protocol):
    """Answers what has to be answered so that the connection is kept, and says nothing else."""

    def __init__(self) -> None:
        self.agreed = asyncio.get_running_loop().create_future()
        """Done once the service has sent its settings."""
        self._received = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Of a TCP connection it is one, though uvloop's class doesn't say so.
        self._transport = cast("asyncio.WriteTransport", transport)
        self._transport.write(_PREFACE + _frame(_SETTINGS, 0, b""))

    def data_received(self, data: bytes) -> None:
        received, transport = self._received, self._transport
        received += data
        while len(received) >= _HEADER and transport is not None:
            end = _HEADER + int.from_bytes(received[:3], "big")
            if len(received) < end:
                return
            kind, flags, content = received[3], received[4], bytes(received[_HEADER:end])
            del received[:end]
            if kind == _SETTINGS and not flags & _ACK:
                transport.write(_frame(_SETTINGS, _ACK, b""))
                if not self.agreed.done():
                    self.agreed.set_result(None)
            elif kind == _PING and not flags & _ACK:
                transport.write(_frame(_PING, _ACK, content))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.agreed.done():
            self.agreed.set_exception(
                TransportError(f"the service closed a new connection: {exc or 'no reason given'}")
            )

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


@asynccontextmanager
async def hold_connections(address: str, count: int) -> AsyncIterator[None]:
    """Hold so many connections open.

    Raises:
        TransportError: the service does not take them.
    """
    listens_at = parse_host_port(address)
    loop = asyncio.get_running_loop()
    held: list[_Idle] = []

    async def connect() -> None:
        try:
            _, idle = await loop.create_connection(_Idle, listens_at.host, listens_at.port)
        except OSError as error:
            raise TransportError(f"connection {len(held) + 1} can't be opened: {error}") from None
        held.append(idle)
        await idle.agreed

    try:
        for start in range(0, count, _AT_ONCE):
            try:
                async with asyncio.TaskGroup() as tasks:
                    for _ in range(min(_AT_ONCE, count - start)):
                        tasks.create_task(connect())
            except ExceptionGroup as group:
                raise first_error(group) from None
        yield
    finally:
        for idle in held:
            idle.close()
