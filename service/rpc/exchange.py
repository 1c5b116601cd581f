"""One bidirectional stream: frames of operations in, frames of results out.

Operations go to their channels as they arrive; each result goes out as soon as there is one, with
whatever else has become ready in the same pass of the event loop (after a commit, that is most of
what the commit held). Within a channel results keep the order of the operations.

Bounded: at most ``max_in_flight`` operations of a stream are under way *or answered but not yet
written*; beyond, the stream is not read, so a slow reader holds up itself and no memory.
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

from pykka import Future

from protos.connect_actor.v1 import connect_pb2 as wire
from service.actors.router import Router
from service.errors import ConnectError, MalformedRequestError
from service.rpc.operations import OPERATIONS, OperationKind
from service.rpc.status import public_error, status_of

__all__ = ["Exchange"]

# Results in one frame: enough to make transport cheap, few enough to keep the first from waiting.
_MAX_RESULTS = 1_024


class _Slot(Future[Any]):
    """Where the answer to one operation of the stream goes: an ask's future without the waiting."""

    __slots__ = ("_exchange", "_kind", "_operation_id")

    def __init__(self, exchange: "Exchange", operation_id: int, kind: OperationKind) -> None:
        # Pykka's own state is for futures that are waited for; nobody can wait for this one.
        self._exchange = exchange
        self._operation_id = operation_id
        self._kind = kind

    def set(self, value: Any | None = None) -> None:  # noqa: ANN401 - Pykka's signature
        """Take the answer."""
        self._exchange.finished(self._operation_id, self._kind, value)

    def set_exception(self, exc_info: Any = None) -> None:  # noqa: ANN401 - Pykka's signature
        """Take the refusal."""
        error = (exc_info or sys.exc_info())[1]
        self._exchange.refused(self._operation_id, public_error(error))


class Exchange:
    """The state of one stream, on the event loop's thread."""

    def __init__(
        self,
        router: Router,
        *,
        deadline: float | None,
        max_message_bytes: int,
        max_frame_bytes: int,
        max_in_flight: int,
    ) -> None:
        """Serve through ``router``, within these limits."""
        self._router = router
        self._deadline = deadline
        self._max_message_bytes = max_message_bytes
        # Results outgrow requests by a payload's overhead at most; half leaves ample room.
        self._max_result_bytes = max_frame_bytes // 2
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._finished: list[tuple[int, OperationKind | None, Any]] = []
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    async def serve(
        self, frames: AsyncIterator[wire.OperationFrame]
    ) -> AsyncIterator[wire.ResultFrame]:
        """Yield frames of results until the peer has finished sending and all is answered."""
        reader = self._reader = asyncio.ensure_future(self._read(frames))
        reader.add_done_callback(lambda _: self._ready.set())
        try:
            while True:
                await self._ready.wait()
                self._ready.clear()
                while self._finished:
                    frame, taken = self._next_frame()
                    yield frame
                    # Only now has the frame been written.
                    self._in_flight -= taken
                    self._room.set()
                if reader.done() and not self._in_flight:
                    break
        finally:
            reader.cancel()
        if not reader.cancelled():
            reader.result()

    def stop_reading(self) -> None:
        """Take no more operations from the stream."""
        if self._reader is not None:
            self._reader.cancel()

    async def _read(self, frames: AsyncIterator[wire.OperationFrame]) -> None:
        async for frame in frames:
            for operation in frame.operations:
                while self._in_flight >= self._max_in_flight:
                    self._room.clear()
                    await self._room.wait()
                self._submit(operation)

    def _submit(self, operation: wire.Operation) -> None:
        self._in_flight += 1
        operation_id = operation.operation_id
        try:
            name = operation.WhichOneof("request")
            if name is None:
                raise MalformedRequestError("the operation holds no request this service knows")
            kind = OPERATIONS[name]
            connect_id, command = kind.command(
                getattr(operation, name), self._deadline, self._max_message_bytes
            )
        except ConnectError as error:
            self.refused(operation_id, error)
        else:
            self._router.route(connect_id, command, _Slot(self, operation_id, kind))

    def finished(self, operation_id: int, kind: OperationKind, answer: object) -> None:
        """Take an operation's answer."""
        self._finished.append((operation_id, kind, answer))
        self._ready.set()

    def refused(self, operation_id: int, error: ConnectError) -> None:
        """Take an operation's refusal."""
        self._finished.append((operation_id, None, error))
        self._ready.set()

    def _next_frame(self) -> tuple[wire.ResultFrame, int]:
        """Return a frame of what is ready, and how many operations it answers."""
        frame = wire.ResultFrame()
        taken = size = 0
        for operation_id, kind, answer in self._finished[:_MAX_RESULTS]:
            result = frame.results.add(operation_id=operation_id)
            if kind is None:
                result.error.CopyFrom(status_of(answer))
            else:
                kind.fill(getattr(result, kind.name), answer)
            taken += 1
            size += result.ByteSize()
            if size >= self._max_result_bytes:
                break
        del self._finished[:taken]
        return frame, taken
