"""A gRPC peer that keeps to HTTP/2 and to nothing else: what is sent, and when, is the test's."""

import asyncio
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

__all__ = ["RawPeer", "framed"]

_METHOD = "/connect_actor.v1.ConnectService/"


def framed(message: bytes, announced: int | None = None) -> bytes:
    """Return a gRPC message, which may announce another length than it has."""
    return struct.pack(">BI", 0, len(message) if announced is None else announced) + message


class RawPeer:
    """One connection."""

    def __init__(
        self, address: str, *, window: int | None = None, source: str | None = None
    ) -> None:
        """Connect to host:port at ``__aenter__``; of each answer take ``window`` bytes.

        ``source`` is the local address to connect from, if not the system's choice.
        """
        self._source = None if source is None else (source, 0)
        self._host, _, self._port = address.rpartition(":")
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self._window = window
        self._acknowledged = 0
        self._changed = asyncio.Event()
        self.statuses: dict[int, tuple[int, str]] = {}
        """gRPC's status and message of each call that has one."""
        self.over: set[int] = set()
        """Calls that have ended, with or without a status."""
        self.data = 0
        """Bytes of answers that have come."""
        self.closed = False

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(
            self._host, int(self._port), local_addr=self._source
        )
        self._http.initiate_connection()
        asked = 1
        if self._window is not None:
            # Set before, it would not be sent.
            self._http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: self._window})
            asked += 1
        self._send()
        self._receiving = asyncio.ensure_future(self._receive())
        # What each side wants of the other is known from here on.
        await self.until(lambda: self._acknowledged == asked)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._receiving.cancel()
        self._writer.transport.abort()

    def call(
        self,
        method: str,
        *data: bytes,
        end: bool = False,
        metadata: Sequence[tuple[str, str]] = (),
    ) -> int:
        """Open a call, with these bytes as far as the windows let them go; return its number.

        Args:
            method: of the service itself, or a path.
            data: each a frame of HTTP/2.
            end: whether nothing else will come.
            metadata: beside what gRPC wants.
        """
        number = self._http.get_next_available_stream_id()
        headers: list[tuple[str, str | bytes]] = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", (method if method.startswith("/") else _METHOD + method).encode("latin-1")),
            (":authority", "test"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            *metadata,
        ]
        self._http.send_headers(number, headers, end_stream=end and not data)
        for position, part in enumerate(data, start=1):
            self._http.send_data(number, part, end_stream=end and position == len(data))
        self._send()
        return number

    def send(self, number: int, most: int) -> int:
        """Send zeros on a call, as many as its window takes; return how many."""
        if number in self.over:
            return 0
        room = min(self._http.local_flow_control_window(number), most)
        sent = 0
        while sent < room:
            part = min(room - sent, self._http.max_outbound_frame_size)
            self._http.send_data(number, bytes(part))
            sent += part
        self._send()
        return sent

    def write(self, number: int, data: bytes) -> int:
        """Send something whole on a call, if its window takes that; return how many bytes."""
        window = 0 if number in self.over else self._http.local_flow_control_window(number)
        if window < len(data):
            return 0
        for at in range(0, len(data), self._http.max_outbound_frame_size):
            self._http.send_data(number, data[at : at + self._http.max_outbound_frame_size])
        self._send()
        return len(data)

    def reset(self, number: int) -> None:
        """Reset a call."""
        self._http.reset_stream(number)
        self._send()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something that this peer can see is so."""
        while not condition():
            if self.closed:
                raise ConnectionError("the service has closed the connection")
            self._changed.clear()
            await self._changed.wait()

    async def drained(self) -> None:
        """Wait until the system has taken what was sent.

        Raises:
            ConnectionError: the service has closed the connection.
        """
        if self.closed:
            raise ConnectionError("the service has closed the connection")
        await self._writer.drain()

    def _send(self) -> None:
        if data := self._http.data_to_send():
            self._writer.write(data)

    async def _receive(self) -> None:
        # A connection that breaks, or that the service takes leave of, is a closed one.
        with suppress(OSError, ProtocolError):
            while data := await self._reader.read(65_536):
                for event in self._http.receive_data(data):
                    self._take(event)
                self._send()
                self._changed.set()
        self.closed = True
        self._changed.set()

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.SettingsAcknowledged):
            self._acknowledged += 1
        elif isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived):
            headers = dict(event.headers or ())
            if b"grpc-status" in headers:
                told = (int(headers[b"grpc-status"]), headers.get(b"grpc-message", b"").decode())
                self.statuses[event.stream_id or 0] = told
        elif isinstance(event, h2.events.DataReceived):
            self.data += len(event.data or b"")
        if isinstance(event, h2.events.StreamEnded | h2.events.StreamReset):
            self.over.add(event.stream_id or 0)
