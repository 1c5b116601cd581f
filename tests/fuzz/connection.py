"""Target of the port itself: bytes on a connection to a service that runs as a process of its own.

What gRPC's own code makes of HTTP/2 is not ours, but what it costs us is: the process must live on,
serve everyone else, and give back memory and descriptors.
"""

import os
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import grpc

from connect_actor.network.connections import connect_blocking
from connect_actor.v1 import connect_pb2 as wire
from connect_actor.v1.connect_pb2_grpc import ConnectServiceStub
from tests.fuzz.target import FaultError, require
from tests.support.channels import establish_request
from tests.support.process import RunningService, scrape

__all__ = ["ConnectionTarget"]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 4, 6, 7, 8, 9
_END_STREAM, _END_HEADERS = 1, 4
_SERVICE = "/connect_actor.v1.ConnectService/"

# Inputs between two looks at the service.
_LOOK = 200
# Of the service, beyond what it held after the first inputs.
_MOST_MEMORY = 64 * 1024 * 1024
_MOST_DESCRIPTORS = 32
_PATIENCE = 30.0


def _frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return len(body).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + body


def _length(size: int) -> bytes:
    """Encode a string's length as HPACK does (RFC 7541, 5.1: a prefix of seven bits)."""
    if size < 127:
        return bytes((size,))
    encoded, rest = b"\x7f", size - 127
    while rest >= 128:
        encoded += bytes((rest % 128 + 128,))
        rest //= 128
    return encoded + bytes((rest,))


def _headers(method: str, *metadata: tuple[bytes, bytes]) -> bytes:
    """Return a call's headers, each spelled out (RFC 7541, 6.2.2)."""
    headers = (
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", (_SERVICE + method).encode()),
        (b":authority", b"localhost"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *metadata,
    )
    return b"".join(
        b"\x00" + _length(len(name)) + name + _length(len(value)) + value for name, value in headers
    )


def _call(method: str, message: bytes, *metadata: tuple[bytes, bytes]) -> bytes:
    """Return all that a client sends for one call on a new connection."""
    body = b"\x00" + len(message).to_bytes(4, "big") + message
    return (
        _PREFACE
        + _frame(_SETTINGS, 0, 0)
        + _frame(_HEADERS, _END_HEADERS, 1, _headers(method, *metadata))
        + _frame(_WINDOW_UPDATE, 0, 0, (1_000).to_bytes(4, "big"))
        + _frame(_DATA, _END_STREAM, 1, body)
    )


class ConnectionTarget:
    """Bytes from a stranger, and one channel that must not notice."""

    name: ClassVar[str] = "connection"
    style: ClassVar[str] = "frames"
    max_steps: ClassVar[int] = 0
    base_bytes: ClassVar[int] = 0

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        data = Path(self._folder.name)
        self._service = RunningService(
            ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", f"--data-dir={data / 'data'}"],
            data / "stderr",
        )
        host, _, port = self._service.ready["listen"].rpartition(":")
        self._address = (host, int(port))
        self._channel = connect_blocking(self._service.ready["listen"])
        self._stub = ConnectServiceStub(self._channel)
        request = establish_request(1)[1]
        self._connect_id = self._stub.Establish(request, timeout=_PATIENCE).connect_id
        self._standing = self._restore()
        self._inputs = 0
        self._memory = 0
        self._descriptors = 0

    def _restore(self) -> wire.RestoreResponse:
        """Ask for the channel, again if the server was just being taken the place of."""
        while True:
            try:
                return self._stub.Restore(
                    wire.RestoreRequest(connect_id=self._connect_id),
                    timeout=_PATIENCE,
                    wait_for_ready=True,
                )
            except grpc.RpcError as error:
                codes = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
                require(error.code() in codes, f"an answer that isn't to be expected: {error}")

    def seeds(self) -> Mapping[str, bytes]:
        restore = wire.RestoreRequest(connect_id=1).SerializeToString()
        frame = wire.OperationFrame(
            operations=[wire.Operation(operation_id=1, restore=wire.RestoreRequest(connect_id=1))]
        ).SerializeToString()
        return {
            "unary": _call("Restore", restore),
            "stream": _call("Exchange", frame) + _frame(_PING, 0, 0, bytes(8)),
            "unknown-method": _call("Dance", b""),
            "timeouts": _call("Restore", restore, (b"grpc-timeout", b"1n")),
            "impossible-timeout": _call("Restore", restore, (b"grpc-timeout", b"99999999999H")),
            "binary-metadata": _call(
                "Restore", restore, (b"x-request-id", b"\x00\xff\n"), (b"x-bin", b"!not base64!")
            ),
            "huge-metadata": _call("Restore", restore, (b"x-request-id", b"x" * 15_000)),
            "many-metadata": _call("Restore", restore, *((b"x-%d" % n, b"y") for n in range(300))),
            "compressed": _call("Restore", restore, (b"grpc-encoding", b"gzip")),
            "endless-headers": _PREFACE
            + _frame(_SETTINGS, 0, 0)
            + _frame(_HEADERS, 0, 1, _headers("Restore"))
            + _frame(_CONTINUATION, 0, 1, b"\x00\x01a\x01b") * 200,
            "goaway": _PREFACE + _frame(_SETTINGS, 0, 0) + _frame(_GOAWAY, 0, 0, bytes(8)),
            "http1": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
            "length-lie": _call("Restore", b"")[:-5] + b"\x00\xff\xff\xff\xff",
        }

    def run(self, data: bytes) -> bool:
        try:
            with socket.create_connection(self._address, _PATIENCE) as connection:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                # Until the service has had enough: it answers what it can, and hangs up.
                while connection.recv(65_536):
                    pass
        except TimeoutError as error:
            raise FaultError("a connection was held open for nobody") from error
        except OSError:
            pass  # it hung up earlier, or its server is being taken the place of
        self._inputs += 1
        if self._inputs % _LOOK == 0:
            self._look()
        return True

    @property
    def _log(self) -> str:
        # Its end, and whatever came over the wire with it.
        with (Path(self._folder.name) / "stderr").open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - 32 * 1024, 0))
            return file.read().decode(errors="replace")

    def _look(self) -> None:
        code = self._service.process.poll()
        require(code is None, f"the service has ended with {code}: {self._log[-2_000:]}")
        require(self._restore() == self._standing, "a stranger's bytes changed a channel")
        require("met a defect" not in self._log, f"it logged: {self._log}")
        memory, descriptors = (self._told(name) for name in ("resident_memory_bytes", "open_fds"))
        if self._inputs <= 5 * _LOOK:
            self._memory, self._descriptors = memory, descriptors
        require(memory < self._memory + _MOST_MEMORY, f"it holds {memory:,} bytes")
        require(descriptors < self._descriptors + _MOST_DESCRIPTORS, f"{descriptors} descriptors")

    def _told(self, name: str) -> int:
        """Return what the service says that its process uses: it may be nobody else's to read."""
        lines = scrape(self._service.ready["metrics"]).splitlines()
        (value,) = (line.split()[-1] for line in lines if line.startswith(f"process_{name}"))
        return int(float(value))

    def close(self) -> None:
        self._look()
        self._channel.close()
        self._service.process.terminate()
        try:
            code = self._service.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._service.process.kill()
            raise
        require(code == 0, f"the service ended with {code}: {self._log}")
        assert self._service.process.stdout is not None
        self._service.process.stdout.close()
        self._folder.cleanup()
