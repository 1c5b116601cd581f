"""What is asked of the service beyond what it can do, by a process that has nothing else to do.

``python -m connect_loadgen.drive.pressure``: its first line of standard input is a
``Pressure``; it establishes its channels and prints a line. At the next line it sends frames, or
makes unary calls, at the rate that was asked for, and prints how they were answered, window by
window.

It only counts answers, since opening them would cost it as much as making them costs the service;
that they are right is seen on the lines of ``drive.lines``, beside it.
"""

import asyncio
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from typing import TYPE_CHECKING

import uvloop
from grpc import aio
from pydantic import BaseModel, ConfigDict

from connect_actor.client import Identity
from connect_actor.network.connections import connect
from connect_actor.protocol.handshake import Initiation
from connect_actor.v1 import connect_pb2 as wire
from connect_actor.v1.connect_pb2_grpc import ConnectServiceStub
from connect_loadgen.drive.peer import status_name
from connect_loadgen.drive.transport import OWN_CONNECTION, TransportError
from connect_loadgen.program.child import kill_child, start_child
from connect_loadgen.settings.overload import CALLS_AT_ONCE, TransportName

if TYPE_CHECKING:
    # Known to the type checker only.
    from connect_actor.v1.connect_pb2_grpc import ConnectServiceAsyncStub

__all__ = ["Answers", "Pressure", "PressureProcess", "start_pressure"]

_LONGEST_LINE = 1 << 20
# What could not be sent within this time of when it was due is left out.
_MAX_LATENESS = 0.05


class Pressure(BaseModel):
    """What is to be sent."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str
    transport: TransportName
    connections: int
    channels: int
    frame_operations: int
    plaintext_bytes: int
    seconds: float
    window_seconds: float


class Answers(BaseModel):
    """What came of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    accepted: list[int]
    """Operations answered by a result in each window."""
    refused: list[dict[str, int]]
    """Operations answered by another status in each window, by its name."""
    held_back: int
    """Operations that were not sent, since the service did not take more, or this was late."""


class PressureProcess:
    """The process, ready to begin."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        """Take over a process that has established its channels."""
        self._process = process

    async def put(self, rate: float) -> Answers:
        """Send so many operations a second, and return how they were answered.

        Raises:
            TransportError: the process failed.
        """
        line = await _ask(self._process, f"{rate}\n")
        return Answers.model_validate_json(line)


@asynccontextmanager
async def start_pressure(pressure: Pressure) -> AsyncIterator[PressureProcess]:
    """Start the process and wait until it is ready.

    Raises:
        TransportError: it failed.
    """
    process = await start_child(
        sys.executable,
        "-m",
        "connect_loadgen.drive.pressure",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=None,
        longest_line=_LONGEST_LINE,
    )
    try:
        await _ask(process, f"{pressure.model_dump_json()}\n")
        yield PressureProcess(process)
    finally:
        kill_child(process)
        await process.wait()


async def _ask(process: asyncio.subprocess.Process, line: str) -> bytes:
    if process.stdin is None or process.stdout is None:
        raise RuntimeError("the process's input and output are not ours")
    # The pipe of a process that has died is closed already; its exit code says more than that.
    with suppress(RuntimeError, ConnectionError):
        process.stdin.write(line.encode())
    answer = await process.stdout.readline()
    if not answer:
        code = await process.wait()
        raise TransportError(f"the process that puts pressure on died: exit code {code}")
    return answer


# --- The process itself ---------------------------------------------------------------------------


class _Counter:
    def __init__(self, pressure: Pressure) -> None:
        self.accepted: Counter[int] = Counter()
        self.refused: defaultdict[int, Counter[str]] = defaultdict(Counter)
        self.held_back = 0
        self._window = pressure.window_seconds
        self._windows = round(pressure.seconds / pressure.window_seconds)
        self.begins_at = time.monotonic()

    def take(self, frame: wire.ResultFrame) -> None:
        errors = [result.error.code for result in frame.results if result.HasField("error")]
        self.count(len(frame.results) - len(errors), errors)

    def count(self, accepted: int, errors: Sequence[int]) -> None:
        window = int((time.monotonic() - self.begins_at) / self._window)
        self.accepted[window] += accepted
        self.refused[window].update(map(status_name, errors))

    def answers(self) -> Answers:
        # What is answered after the end is no throughput of the time that was measured.
        windows = range(self._windows)
        return Answers(
            accepted=[self.accepted[window] for window in windows],
            refused=[dict(self.refused[window]) for window in windows],
            held_back=self.held_back,
        )


async def _establish(stub: "ConnectServiceAsyncStub", count: int) -> list[int]:
    ids = []
    for _ in range(count):
        initiation = Initiation.begin(Identity.generate(os.urandom), os.urandom)
        ids.append((await stub.Establish(initiation.request)).connect_id)
    return ids


class _Sender:
    """Sends at a rate over one connection, for a while."""

    def __init__(
        self, stub: "ConnectServiceAsyncStub", ids: Sequence[int], pressure: Pressure
    ) -> None:
        self._stub = stub
        self._requests = [
            wire.EncryptRequest(connect_id=each, plaintext=bytes(pressure.plaintext_bytes))
            for each in ids
        ]
        self._pressure = pressure
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, rate: float, counter: _Counter) -> None:
        """Send so many operations a second until the end."""
        end = counter.begins_at + self._pressure.seconds
        if self._pressure.transport == "stream":
            await self._send_frames(self._pressure.frame_operations / rate, counter, end)
        else:
            await self._call(1 / rate, counter, end)

    async def _send_frames(self, gap: float, counter: _Counter, end: float) -> None:
        size, requests = self._pressure.frame_operations, self._requests
        frame = wire.OperationFrame(
            operations=[
                wire.Operation(operation_id=number, encrypt=requests[number % len(requests)])
                for number in range(size)
            ]
        )
        call = self._stub.Exchange()

        async def read() -> None:
            async for results in call:
                counter.take(results)

        self._start(read())
        async for _ in _due(gap, size, counter, end):
            writing = asyncio.ensure_future(call.write(frame))
            # The service may not read on until the end; giving a write up would end the call.
            done, _ = await asyncio.wait([writing], timeout=max(end - time.monotonic(), 0.001))
            if not done:
                break
            await writing

    async def _call(self, gap: float, counter: _Counter, end: float) -> None:
        encrypt = self._stub.Encrypt

        async def call(request: wire.EncryptRequest) -> None:
            try:
                await encrypt(request)
            except aio.AioRpcError as error:
                counter.count(0, [error.code().value[0]])
            else:
                counter.count(1, [])

        requests = cycle(self._requests)
        async for _ in _due(gap, 1, counter, end):
            if len(self._tasks) < CALLS_AT_ONCE:
                self._start(call(next(requests)))
            else:
                counter.held_back += 1

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _due(gap: float, size: int, counter: _Counter, end: float) -> AsyncIterator[None]:
    """Yield whenever so many operations are due; those that are late are held back."""
    due = time.monotonic()
    while (due := due + gap) < end:
        now = time.monotonic()
        if now - due > _MAX_LATENESS:
            counter.held_back += size
            continue
        if now < due:
            await asyncio.sleep(due - now)
        yield


async def _main() -> None:
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
    )
    pressure = Pressure.model_validate_json(await lines.readline())
    connections = [
        connect(pressure.address, options=OWN_CONNECTION) for _ in range(pressure.connections)
    ]
    stubs: list[ConnectServiceAsyncStub] = [ConnectServiceStub(each) for each in connections]
    share = max(pressure.channels // pressure.connections, 1)
    senders = [_Sender(stub, await _establish(stub, share), pressure) for stub in stubs]
    _say("{}")
    rate = float(await lines.readline()) / pressure.connections
    counter = _Counter(pressure)
    await asyncio.gather(*(sender.send(rate, counter) for sender in senders))
    _say(counter.answers().model_dump_json())
    # Until it is killed, with all its streams and calls open.
    await asyncio.get_running_loop().create_future()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(_main())
