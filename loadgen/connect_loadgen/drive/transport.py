"""How operations reach the service: one stream of frames, or a unary call for each.

``submit`` never waits: what gRPC does not take yet stays in a queue, which the pacing bounds (it
counts operations from ``submit`` on). Answers and failures go to a listener, on the event loop.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from google.rpc.status_pb2 import Status
from grpc import aio
from grpc_status import rpc_status

from connect_actor.client.exchange import let_in
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.service.endpoint import Endpoint
from connect_loadgen.settings.load import LoadSettings

if TYPE_CHECKING:
    # Known to the type checker only.
    from connect_actor.v1.connect_pb2_grpc import ConnectServiceAsyncStub

__all__ = [
    "OWN_CONNECTION",
    "Listener",
    "StreamTransport",
    "Transport",
    "TransportError",
    "UnaryTransport",
    "ask_all",
    "first_error",
    "open_transport",
]

# The service bounds what it takes; the generator must not be stricter with what comes back.
_CHANNEL_OPTIONS = (("grpc.max_receive_message_length", -1),)

# Without it, gRPC would share one connection among all that go to the same address.
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)

# The service takes frames of 4 MiB, by default; this leaves room for what goes around operations.
MAX_FRAME_BYTES = 4_000_000


class TransportError(Exception):
    """The service can't be reached, or has ended the stream."""


def first_error(group: ExceptionGroup[Exception]) -> Exception:
    """Return the first transport error of a group of tasks; the group, if there is none.

    For ``except ExceptionGroup``: before Python 3.11.4 what is raised within ``except*`` comes
    wrapped in a group.
    """
    failed = group.subgroup(TransportError)
    return group if failed is None else failed.exceptions[0]


class Listener(Protocol):
    """Whoever wants the answers."""

    def on_results(self, results: Iterable[wire.OperationResult]) -> None:
        """Take answers that have just arrived."""

    def on_failure(self, error: Exception) -> None:
        """Take note that no answer will come any more."""


class Transport(Protocol):
    """A way to the service."""

    @property
    def batch(self) -> int:
        """Operations that go out together, at most."""

    def listen(self, listener: Listener) -> None:
        """Send answers to ``listener`` from now on."""

    def submit(self, operations: list[wire.Operation]) -> None:
        """Send at most ``batch`` operations; their answers come to the listener."""


class _Answers:
    """The way back: answers, and a failure of whatever brings them, go to the listener."""

    def __init__(self) -> None:
        self._listener: Listener | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self, listener: Listener) -> None:
        """Send answers to ``listener`` from now on."""
        self._listener = listener

    async def aclose(self) -> None:
        """Stop; what was not answered stays unanswered."""
        self._listener = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or self._listener is None:
            return
        error = task.exception()
        if isinstance(error, Exception):
            self._listener.on_failure(error)

    def _deliver(self, results: Iterable[wire.OperationResult]) -> None:
        if self._listener is not None:
            self._listener.on_results(results)


class StreamTransport(_Answers):
    """One bidirectional stream; operations submitted together travel in one frame.

    Those too large for one are spread over as many as it takes.
    """

    def __init__(self, stub: "ConnectServiceAsyncStub", frame_operations: int) -> None:
        super().__init__()
        self.batch = frame_operations
        self._call = stub.Exchange()
        self._frames: asyncio.Queue[wire.OperationFrame] = asyncio.Queue()
        self._start(self._write())
        self._start(self._read())

    def submit(self, operations: list[wire.Operation]) -> None:
        """Send the operations, in one frame unless it would be too large."""
        frame, room = wire.OperationFrame(), MAX_FRAME_BYTES
        for operation in operations:
            size = operation.ByteSize()
            if size > room and frame.operations:
                self._frames.put_nowait(frame)
                frame, room = wire.OperationFrame(), MAX_FRAME_BYTES
            frame.operations.append(operation)
            room -= size
        self._frames.put_nowait(frame)

    async def aclose(self) -> None:
        """End the stream; what was not answered stays unanswered."""
        await super().aclose()
        self._call.cancel()

    async def _write(self) -> None:
        # What is sent to a service that is about to refuse the stream would hide the refusal.
        if not await let_in(self._call):
            return
        try:
            while True:
                await self._call.write(await self._frames.get())
        except (aio.AioRpcError, asyncio.InvalidStateError):
            # The reading half reports what ended the stream.
            return

    async def _read(self) -> None:
        try:
            async for frame in self._call:
                self._deliver(frame.results)
        except aio.AioRpcError as error:
            raise TransportError(
                f"the stream broke: {error.code().name}: {error.details()}"
            ) from error
        raise TransportError("the service has ended the stream")


class UnaryTransport(_Answers):
    """A unary call for each operation, on one HTTP/2 connection."""

    batch = 1

    def __init__(self, stub: "ConnectServiceAsyncStub", timeout: float) -> None:
        super().__init__()
        self._stub = stub
        self._timeout = timeout

    def submit(self, operations: list[wire.Operation]) -> None:
        """Call the service for each operation."""
        for operation in operations:
            self._start(self._run(operation))

    async def _run(self, operation: wire.Operation) -> None:
        result = wire.OperationResult(operation_id=operation.operation_id)
        try:
            await self._call(operation, result)
        except aio.AioRpcError as error:
            status = rpc_status.from_call(error)
            if status is None:
                status = Status(code=error.code().value[0], message=error.details() or "")
            result.error.CopyFrom(status)
        self._deliver((result,))

    async def _call(self, operation: wire.Operation, result: wire.OperationResult) -> None:
        stub, timeout = self._stub, self._timeout
        match operation.WhichOneof("request"):
            case "establish":
                answer = await stub.Establish(operation.establish, timeout=timeout)
                result.establish.CopyFrom(answer)
            case "encrypt":
                result.encrypt.CopyFrom(await stub.Encrypt(operation.encrypt, timeout=timeout))
            case "decrypt":
                result.decrypt.CopyFrom(await stub.Decrypt(operation.decrypt, timeout=timeout))
            case "restore":
                result.restore.CopyFrom(await stub.Restore(operation.restore, timeout=timeout))
            case "close":
                result.close.CopyFrom(await stub.Close(operation.close, timeout=timeout))
            case other:
                raise TransportError(f"no load is made of {other} operations")


@asynccontextmanager
async def open_transport(
    endpoint: Endpoint, settings: LoadSettings, *, shares_connection: bool = True
) -> AsyncIterator[StreamTransport | UnaryTransport]:
    """Connect to the service by the transport that the settings name.

    Args:
        endpoint: of the service.
        settings: which transport, and how patient.
        shares_connection: whether others of this process that are there may be used.

    Raises:
        TransportError: nobody answers there in time.
    """
    options = (*_CHANNEL_OPTIONS, *(() if shares_connection else OWN_CONNECTION))
    async with endpoint.connect(options) as channel:
        try:
            await asyncio.wait_for(channel.channel_ready(), settings.timeout_seconds)
        except TimeoutError:
            raise TransportError(
                f"nobody answers at {endpoint.address} within {settings.timeout_seconds:g} s: is"
                f" the service running there, and {'by' if endpoint.tls else 'without'} TLS?"
            ) from None
        stub = endpoint.stub(channel)
        transport: StreamTransport | UnaryTransport
        if settings.transport == "stream":
            transport = StreamTransport(stub, settings.frame_operations)
        else:
            transport = UnaryTransport(stub, settings.timeout_seconds)
        try:
            yield transport
        finally:
            await transport.aclose()


async def ask_all(
    transport: Transport, operations: Sequence[wire.Operation], *, patience: float
) -> list[wire.OperationResult]:
    """Send all operations at once and return their answers, in the order of the operations.

    Args:
        transport: whose listener this replaces.
        operations: each with an id of its own.
        patience: how long to wait for the last answer, seconds.

    Raises:
        TransportError: the transport failed, an answer is missing after ``patience``, or one came
            that was not asked for.
    """
    collector = _Collector(operations)
    transport.listen(collector)
    for start in range(0, len(operations), transport.batch):
        transport.submit(list(operations[start : start + transport.batch]))
    try:
        await asyncio.wait_for(collector.done, patience)
    except TimeoutError:
        raise TransportError(
            f"{len(collector.missing)} of {len(operations)} answers"
            f" are missing after {patience:g} s"
        ) from None
    return [collector.results[operation.operation_id] for operation in operations]


class _Collector:
    def __init__(self, operations: Sequence[wire.Operation]) -> None:
        self.results: dict[int, wire.OperationResult] = {}
        self.missing = {operation.operation_id for operation in operations}
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self.missing:
            self.done.set_result(None)

    def on_results(self, results: Iterable[wire.OperationResult]) -> None:
        for result in results:
            if result.operation_id not in self.missing:
                self.on_failure(
                    TransportError(f"nobody asked for answer number {result.operation_id}")
                )
                return
            self.missing.remove(result.operation_id)
            self.results[result.operation_id] = result
        if not self.missing and not self.done.done():
            self.done.set_result(None)

    def on_failure(self, error: Exception) -> None:
        if not self.done.done():
            self.done.set_exception(error)
