"""Exposition: serves metrics over HTTP, with those of the process and the interpreter.

From a thread of its own, so that a scrape is answered while the service's event loop has no time.
The port may be reached by others than Prometheus: connections, the size of a request and the time
for it are bounded, and however many ask at a time, the metrics are collected once for all of them.
"""

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.registry import Collector

from connect_actor.network.addresses import parse_host_port
from connect_actor.observe.process import OwnProcess

__all__ = ["MetricsServer", "serve_collector", "serve_metrics"]

# Connections at a time. Beyond, the oldest is closed: a scrape is over within milliseconds.
_MAX_CONNECTIONS = 32
# Bytes of a request. Prometheus sends some 300.
_MAX_REQUEST = 8_192
# Seconds for a request to come, and again for its answer to be read.
_PATIENCE = 5.0


def serve_metrics(collector: Collector, address: str) -> "MetricsServer":
    """Serve the metrics from a thread of its own.

    Args:
        collector: what to serve besides the process's and the interpreter's own metrics.
        address: HOST:PORT to listen on; port 0 picks a free one, and the server returned knows
            which (``server_port``).

    Raises:
        OSError: the address can't be listened on.
    """
    registry = CollectorRegistry()
    OwnProcess(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(collector)
    return MetricsServer(registry, address)


def serve_collector(collector: Collector, address: str) -> "MetricsServer":
    """Serve what a collector yields and nothing else, likewise.

    Raises:
        OSError: the address can't be listened on.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    return MetricsServer(registry, address)


class MetricsServer:
    """Answers every GET with the metrics of a registry, until it is shut down."""

    def __init__(self, registry: CollectorRegistry, address: str) -> None:
        """Listen on HOST:PORT.

        Raises:
            OSError: the address can't be listened on.
        """
        family, at = parse_host_port(address).resolved()[0]
        self._socket = socket.create_server(
            at, family=family, dualstack_ipv6=family is socket.AF_INET6
        )
        self.server_port: int = self._socket.getsockname()[1]
        self._registry = registry
        self._connections: dict[asyncio.Task[None], None] = {}
        self._collecting: dict[_Wanted, asyncio.Task[bytes]] = {}
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def shutdown(self) -> None:
        """Close the port and every connection."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen())

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._socket, limit=_MAX_REQUEST)
        async with server:
            await self._stopping.wait()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:  # never within a connection
            return
        self._connections[task] = None
        if len(self._connections) > _MAX_CONNECTIONS:
            next(iter(self._connections)).cancel()
        # Whatever goes wrong with a connection ends it, and is for nobody else to know.
        with suppress(OSError, EOFError, TimeoutError, asyncio.CancelledError):
            try:
                await self._answer(reader, writer)
            finally:
                del self._connections[task]
                writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_PATIENCE):
                request = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            status, body, kind = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, b"", "text/plain"
        else:
            line, _, headers = request.partition(b"\r\n")
            method, _, target = line.partition(b" ")
            if method == b"GET":
                status = HTTPStatus.OK
                encode, kind = choose_encoder(_accepted(headers))
                body = await self._metrics((encode, _names(target)))
            else:
                status, body, kind = HTTPStatus.METHOD_NOT_ALLOWED, b"", "text/plain"
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        # What is not read by then is thrown away with the connection.
        async with asyncio.timeout(_PATIENCE):
            writer.write(head.encode() + body)
            writer.close()
            await writer.wait_closed()

    async def _metrics(self, wanted: "_Wanted") -> bytes:
        """Return the metrics of some names, or all, by an encoder."""
        collecting = self._collecting.get(wanted)
        if collecting is None:
            # In another thread, as it may wait for others (``process.worker_metrics``).
            collecting = asyncio.ensure_future(asyncio.to_thread(self._collect, wanted))
            self._collecting[wanted] = collecting
            collecting.add_done_callback(lambda _: self._collecting.pop(wanted))
        return await asyncio.shield(collecting)

    def _collect(self, wanted: "_Wanted") -> bytes:
        encode, names = wanted
        chosen = self._registry.restricted_registry(names) if names else self._registry
        return encode(chosen)


_Encoder = Callable[[Any], bytes]
_Wanted = tuple[_Encoder, frozenset[str]]


def _accepted(headers: bytes) -> str:
    for line in headers.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"accept":
            return value.strip().decode("latin-1")
    return ""


def _names(target: bytes) -> frozenset[str]:
    """Return the names of metrics that a request's target asks for; none: all."""
    query = target.partition(b" ")[0].partition(b"?")[2].decode("latin-1")
    return frozenset(parse_qs(query).get("name[]", ()))
