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
from service.access.gate import Caller
from service.access.quotas import Account
from service.actors.router import Router
from service.errors import ConnectError, MalformedRequestError
from service.rpc.operations import OPERATIONS
from service.rpc.statistics import UNKNOWN_OPERATION, Arrival, Arrivals, RequestStatistics
from service.rpc.status import public_error, status_of, tell_refusal
from service.tracing import note, tracing

__all__ = ["Exchange"]

# Results in one frame: enough to make transport cheap, few enough to keep the first from waiting.
_MAX_RESULTS = 1_024


class _Slot(Future[Any]):
    """One operation, and where its answer goes: an ask's future without the waiting."""

    __slots__ = (
        "_account",
        "_exchange",
        "answer",
        "arrival",
        "error",
        "kind",
        "operation_id",
        "request_id",
    )

    error: ConnectError | None
    """Set with the answer, or as the answer."""
    request_id: str
    """Set only if steps are told."""

    def __init__(self, exchange: "Exchange", operation_id: int, arrival: Arrival) -> None:
        # Pykka's own state is for futures that are waited for; nobody can wait for this one.
        self._exchange = exchange
        self._account: Account | None = None
        self.operation_id = operation_id
        self.arrival = arrival
        self.kind = OPERATIONS.get(arrival.operation)

    def charge(self, account: Account, operation: wire.Operation) -> None:
        """Count the operation with its caller until it is answered.

        Raises:
            ConnectError: the caller may not have another.
        """
        account.admit(operation)
        self._account = account

    def set(self, value: Any | None = None) -> None:  # noqa: ANN401 - Pykka's signature
        """Take the answer."""
        self.answer = value
        self.error = None
        self._answered()

    def set_exception(self, exc_info: Any = None) -> None:  # noqa: ANN401 - Pykka's signature
        """Take the refusal."""
        self.error = public_error((exc_info or sys.exc_info())[1])
        self._answered()

    def _answered(self) -> None:
        if self._account is not None:
            self._account.leave()
        self._exchange.answered(self)

    def fill(self, result: wire.OperationResult) -> None:
        """Write the answer into its place on the wire."""
        result.operation_id = self.operation_id
        if self.error is not None:
            result.error.CopyFrom(status_of(self.error))
        elif self.kind is not None:
            self.kind.fill(getattr(result, self.kind.name), self.answer)


class Exchange:
    """The state of one stream, on the event loop's thread."""

    def __init__(
        self,
        router: Router,
        statistics: RequestStatistics,
        caller: Caller,
        *,
        deadline: float | None,
        max_message_bytes: int,
        max_frame_bytes: int,
        max_in_flight: int,
        stream_id: str,
    ) -> None:
        """Serve a caller through ``router``, within these limits; count in ``statistics``.

        Operations are told of as ``stream_id``/operation id.
        """
        self.caller = caller
        self.revoked = False
        """Whether the stream ends because its caller is no longer let in."""
        self._stream_id = stream_id
        self._tracing = tracing()
        self._router = router
        self._statistics = statistics
        self._deadline = deadline
        self._max_message_bytes = max_message_bytes
        # Results outgrow requests by a payload's overhead at most; half leaves ample room.
        self._max_result_bytes = max_frame_bytes // 2
        self._max_in_flight = max_in_flight
        self._in_flight = 0
        self._answered: list[_Slot] = []
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
                while self._answered:
                    frame, taken = self._next_frame()
                    yield frame
                    # Only now has the frame been written.
                    self._leave(taken)
                    self._room.set()
                if reader.done() and not self._in_flight:
                    break
        finally:
            reader.cancel()
            self._leave(self._in_flight)
        if not reader.cancelled():
            reader.result()

    def _leave(self, operations: int) -> None:
        self._in_flight -= operations
        self._statistics.stream_in_flight -= operations

    def stop_reading(self) -> None:
        """Take no more operations from the stream."""
        if self._reader is not None:
            self._reader.cancel()

    def revoke(self) -> None:
        """End the stream once what it has sent so far is answered: its caller is let in no more."""
        self.revoked = True
        self.stop_reading()

    async def _read(self, frames: AsyncIterator[wire.OperationFrame]) -> None:
        async for frame in frames:
            arrivals = self._statistics.frame_accepted(len(frame.operations))
            for operation in frame.operations:
                while self._in_flight >= self._max_in_flight:
                    self._room.clear()
                    await self._room.wait()
                self._submit(operation, arrivals)

    def _submit(self, operation: wire.Operation, arrivals: Arrivals) -> None:
        self._in_flight += 1
        self._statistics.stream_in_flight += 1
        name = operation.WhichOneof("request") or UNKNOWN_OPERATION
        slot = _Slot(self, operation.operation_id, arrivals[name])
        if self._tracing:
            slot.request_id = self._request_id(slot)
        try:
            kind = slot.kind
            if self.caller.account is not None:
                slot.charge(self.caller.account, operation)
            if kind is None:
                raise MalformedRequestError("the operation holds no request this service knows")
            connect_id, command = kind.command(
                getattr(operation, name), self._deadline, self._max_message_bytes
            )
        except ConnectError:
            slot.set_exception()
        else:
            if self._tracing:
                note("received", slot.request_id, operation=name, connect_id=connect_id)
            self._router.route(connect_id, command, slot, self.caller.owner)

    def _request_id(self, slot: _Slot) -> str:
        return f"{self._stream_id}/{slot.operation_id}"

    def answered(self, slot: _Slot) -> None:
        """Take an operation that has its answer."""
        self._answered.append(slot)
        self._ready.set()

    def _next_frame(self) -> tuple[wire.ResultFrame, int]:
        """Return a frame of what is ready, and how many operations it answers."""
        frame = wire.ResultFrame()
        size = 0
        answers = self._answered[:_MAX_RESULTS]
        for taken, slot in enumerate(answers, start=1):
            result = frame.results.add()
            slot.fill(result)
            if slot.error is not None:
                tell_refusal(slot.arrival.operation, self._request_id(slot), slot.error)
            elif self._tracing:
                note("answered", slot.request_id, operation=slot.arrival.operation)
            size += result.ByteSize()
            if size >= self._max_result_bytes:
                del answers[taken:]
                break
        del self._answered[: len(answers)]
        self._statistics.frame_answered(answers)
        return frame, len(answers)
