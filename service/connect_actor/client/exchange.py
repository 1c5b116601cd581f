"""The batched stream, seen from the client: frames of operations out, results as they come."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self

import grpc

from connect_actor.client.errors import error_of
from connect_actor.v1 import connect_pb2 as wire

if TYPE_CHECKING:
    # Known to the type checker only.
    from connect_actor.v1.connect_pb2_grpc import ConnectServiceAsyncStub

    _Stream = grpc.aio.StreamStreamCall[wire.OperationFrame, wire.ResultFrame]

__all__ = ["ExchangeStream", "let_in", "require_success"]


async def let_in(stream: "_Stream") -> bool:
    """Wait until the service has let a stream in; return whether it has.

    To be done before anything is sent: a send that meets the refusal ends the call with an
    ``INTERNAL`` of grpcio's own, and the service's status is lost.
    """
    # The service names its call at once, and a refusal has no such metadata.
    return bool(await stream.initial_metadata())


class ExchangeStream:
    """One stream, as an async context manager. Any number of calls may be under way on it."""

    def __init__(self, stub: "ConnectServiceAsyncStub") -> None:
        """Prepare a stream; it opens on entering."""
        self._stub = stub
        self._next_id = 0
        self._waiting: dict[int, _Call] = {}
        self._outgoing: asyncio.Queue[wire.OperationFrame | None] = asyncio.Queue()
        self._let_in = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Open the stream."""
        self._reader = asyncio.ensure_future(self._read(self._stub.Exchange(self._frames())))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Finish what is under way, then end the stream; after an exception, end it at once."""
        reader = self._reader
        if reader is None:
            return
        self._outgoing.put_nowait(None)
        self._let_in.set()
        if kind is not None:
            reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)

    async def call(self, operations: Sequence[wire.Operation]) -> list[wire.OperationResult]:
        """Send operations as one frame and wait for the results, in the operations' order.

        Operations of one channel are carried out in this order, too. Each result holds its
        response or its error (``error_of`` makes an exception of it). Numbers in
        ``operation_id`` are the stream's own and overwritten.

        Raises:
            grpc.aio.AioRpcError: the stream broke; whether the operations were done is unknown.
            ConnectionError: the stream is not open, or the service ended it.
        """
        if not operations:
            return []
        if self._reader is None or self._reader.done():
            raise ConnectionError("the stream is not open")
        first = self._next_id
        self._next_id += len(operations)
        for number, operation in enumerate(operations, first):
            operation.operation_id = number
        call = _Call(first, len(operations))
        for number in range(first, first + len(operations)):
            self._waiting[number] = call
        self._outgoing.put_nowait(wire.OperationFrame(operations=operations))
        return await call.done

    async def _frames(self) -> AsyncIterator[wire.OperationFrame]:
        await self._let_in.wait()
        while (frame := await self._outgoing.get()) is not None:
            yield frame

    async def _read(self, stream: "_Stream") -> None:
        failure: BaseException = ConnectionError("the service ended the stream")
        try:
            if await let_in(stream):
                self._let_in.set()
            async for frame in stream:
                for result in frame.results:
                    call = self._waiting.pop(result.operation_id, None)
                    if call is not None:
                        call.take(result)
        except (grpc.aio.AioRpcError, asyncio.CancelledError) as error:
            failure = error
            raise
        finally:
            for call in self._waiting.values():
                call.fail(failure)
            self._waiting.clear()


class _Call:
    """The operations of one frame, and the results that have come."""

    __slots__ = ("_first", "_missing", "_results", "done")

    def __init__(self, first: int, size: int) -> None:
        self._first = first
        self._missing = size
        self._results = [wire.OperationResult()] * size
        self.done: asyncio.Future[list[wire.OperationResult]] = (
            asyncio.get_running_loop().create_future()
        )

    def take(self, result: wire.OperationResult) -> None:
        self._results[result.operation_id - self._first] = result
        self._missing -= 1
        if not self._missing and not self.done.done():
            self.done.set_result(self._results)

    def fail(self, error: BaseException) -> None:
        if not self.done.done():
            if isinstance(error, asyncio.CancelledError):
                self.done.cancel()
            else:
                self.done.set_exception(error)


def require_success(result: wire.OperationResult) -> wire.OperationResult:
    """Return a result that holds a response.

    Raises:
        ConnectError: it holds an error.
    """
    if result.HasField("error"):
        raise error_of(result.error)
    return result
