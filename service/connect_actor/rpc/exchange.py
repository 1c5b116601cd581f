"""One bidirectional stream: frames of operations in, frames of results out.

Operations go to their channels as they arrive; each result goes out as soon as there is one, with
whatever else has become ready in the same pass of the event loop (after a commit, that is most of
what the commit held). Within a channel results keep the order of the operations.

Bounded: at most ``max_in_flight`` operations, and so many bytes, of a stream are under way *or
answered but not yet written*; beyond, the stream is not read, so a slow reader holds up itself and
no memory. Nor is a stream read while the whole service has enough to do; what a frame brings beyond
that is refused (``rpc.admission``). Nor is it read while its caller owes work that the
stream has caused (``actors.work``). Large frames are taken up and made in turns, between
those of other callers. A peer that does not read for too long, or has nothing
to say for too long, loses its stream.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import grpc

from connect_actor.access.gate import Caller
from connect_actor.actors.router import Routes
from connect_actor.errors import (
    CallerError,
    ConnectError,
    MalformedRequestError,
    MessageTooLargeError,
    OverloadedError,
    UnauthenticatedError,
)
from connect_actor.observe.tracing import note, tracing
from connect_actor.reply import Reply
from connect_actor.rpc.admission import OVERHEAD_BYTES, Admission
from connect_actor.rpc.entrance import Visit, parse, pushed_out
from connect_actor.rpc.statistics import UNKNOWN_OPERATION, Arrival, Arrivals, RequestStatistics
from connect_actor.rpc.status import public_error, status_of, tell_if_slow, tell_refusal
from connect_actor.v1 import connect_pb2 as wire

__all__ = ["MAX_OPERATIONS", "Exchange", "StreamLimits"]

MAX_OPERATIONS = 16_384
"""In one frame. What protobuf makes of one takes 48 bytes, on the wire it may be two: bounded by
its bytes alone, a frame could become 25 times as large."""

# Results in one frame: enough to make transport cheap, few enough to keep the first from waiting.
_MAX_RESULTS = 1_024

# Operations that are taken up, or answers that are put together, without waiting for a turn: they
# take less than what gRPC has to do for their frame.
_AT_ONCE = 8

# Streams are looked at this many times within the shorter of their two time limits.
_LOOKS_PER_TIMEOUT = 4

_SLOW_READER = OverloadedError(
    "the peer has read no answers for too long: open a new stream, and read what it brings"
)

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


class _Slot(Reply):
    """One operation, and its answer."""

    __slots__ = ("arrival", "counted", "error", "exchange", "held", "operation_id", "value")

    def __init__(self, exchange: "Exchange", operation_id: int, arrival: Arrival) -> None:
        # As ``Reply`` does; one is made for every operation.
        self.payer = self.exchange = exchange
        self.request_id = None
        self.operation_id = operation_id
        self.arrival = arrival
        self.counted = False
        """Whether the caller's account counts it until it is answered."""
        self.held = 0
        """Bytes that count as held for it, once it is admitted."""
        self.value: Any = None
        self.error: ConnectError | None = None

    def answer(self, value: Any) -> None:  # noqa: ANN401 - each command has its own
        """See ``Reply``."""
        self.value = value
        self.exchange.done(self)

    def refuse(self, error: BaseException) -> None:
        """See ``Reply``."""
        self.error = public_error(error)
        self.exchange.done(self)

    def fill(self, result: wire.OperationResult) -> int:
        """Write the answer into its place on the wire; return about how many bytes that takes."""
        kind = self.arrival.kind
        if self.error is not None:
            result.error.CopyFrom(status_of(self.error))
        elif kind is not None:
            kind.fill(getattr(result, kind.name), self.value)
            if kind.answers_in_kind:
                return self.held
        return result.ByteSize()


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """What one stream may ask for."""

    message_bytes: int
    """Of one plaintext or ciphertext."""
    frame_bytes: int
    in_flight: int
    """Operations under way, or answered and not yet read."""


class Exchange:
    """The state of one stream, on the event loop's thread."""

    def __init__(
        self,
        router: Routes,
        statistics: RequestStatistics,
        admission: Admission,
        caller: Caller,
        limits: StreamLimits,
        visit: Visit,
        *,
        deadline: float | None,
        stream_id: str,
    ) -> None:
        """Serve a caller through ``router``, within these limits; count in ``statistics``.

        The stream is that of ``visit``. Operations are told of as ``stream_id``/operation id.
        """
        self.caller = caller
        self.flow: Hashable = None if caller.account is None else caller.account.flow
        """See ``Payer``."""
        self.refusal: ConnectError | None = None
        """Why the stream ends before its peer has finished sending; set with the last answer."""
        self._stream_id = stream_id
        self._tracing = tracing()
        self._router = router
        self._statistics = statistics
        self._admission = admission
        self._visit = visit
        self._dispatcher = router.dispatcher
        self._owing = False
        """Whether the caller has come into debt by work for this stream."""
        self._deadline = deadline
        self._max_message_bytes = limits.message_bytes
        # Results outgrow requests by a payload's overhead at most; half leaves ample room.
        self._max_result_bytes = limits.frame_bytes // 2
        self._max_in_flight = limits.in_flight
        self._in_flight = 0
        self._held_bytes = 0
        self._writing_since: float | None = None
        self._writing = 0
        """Bytes of the answers that are being written."""
        self._active_at = 0.0
        self._answered: list[_Slot] = []
        self._done = self._leaving = 0
        """Operations answered in this pass of the loop; and those that the account counts."""
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    async def serve(self) -> AsyncGenerator[wire.ResultFrame, None]:
        """Yield frames of results until the peer has finished sending and all is answered."""
        reader = self._reader = asyncio.ensure_future(self._read())
        reader.add_done_callback(lambda _: self._ready.set())
        watch = asyncio.ensure_future(self._watch())
        try:
            while True:
                await self._ready.wait()
                self._ready.clear()
                while self._answered:
                    frame, answers = await self._in_turn(len(self._answered), self._next_frame)
                    self._writing = sum([answer.held for answer in answers])
                    self._writing_since = self._now()
                    yield frame
                    # Only now has the frame been written.
                    self._writing_since = None
                    self._leave(len(answers), self._writing)
                    self._writing = 0
                    self._room.set()
                if reader.done() and not self._in_flight:
                    break
        finally:
            watch.cancel()
            reader.cancel()
            # Where it was cancelled leads back here.
            self._reader = None
            # What is being written stays with gRPC until the call is over.
            self._visit.when_over(partial(self._admission.let_go, self._writing))
            self._held_bytes -= self._writing
            self._leave(self._in_flight, self._held_bytes)
        if not reader.cancelled():
            reader.result()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    async def _watch(self) -> None:
        """End the stream once its peer has been too slow, or idle, for too long."""
        bounds = self._admission.bounds
        self._active_at = self._now()
        pause = min(bounds.slow_reader_timeout, bounds.stream_idle_timeout) / _LOOKS_PER_TIMEOUT
        while True:
            await asyncio.sleep(pause)
            if not self.caller.certificate_is_valid():
                self.revoke()
            now = self._now()
            if self._writing_since is not None:
                self._active_at = now
                if now - self._writing_since >= bounds.slow_reader_timeout:
                    _log.warning(
                        "a stream is ended: its peer has read nothing for %g s",
                        bounds.slow_reader_timeout,
                    )
                    self._visit.give_up(_SLOW_READER)
            elif self._in_flight:
                self._active_at = now
            elif now - self._active_at >= bounds.stream_idle_timeout:
                self.stop_reading()

    def _leave(self, operations: int, held: int) -> None:
        self._in_flight -= operations
        self._statistics.stream_in_flight -= operations
        self._held_bytes -= held
        self._admission.let_go(held)

    def stop_reading(self) -> None:
        """Take no more operations from the stream."""
        if self._reader is not None:
            self._reader.cancel()

    def revoke(self) -> None:
        """End the stream once what it has sent so far is answered: its caller is let in no more."""
        self.refusal = UnauthenticatedError(
            "the stream's token or certificate is no longer valid: open a stream with a valid one"
        )
        self.stop_reading()

    def _lose_place(self) -> None:
        """End the stream: others need the place in which it waits for a frame, or for room."""
        self.refusal = pushed_out()
        if self._writing_since is None:
            self.stop_reading()
        else:
            # Its peer does not read either, so gRPC would keep what it has of the next frame.
            self._visit.give_up(self.refusal)

    async def _read(self) -> None:
        while True:
            # Until its operations are submitted, a frame is nobody's but this place's.
            place = self._visit.reading(self._lose_place)
            try:
                message = await self._visit.context.read()
                if message is grpc.aio.EOF:
                    return
                self._active_at = self._now()
                if not self.caller.certificate_is_valid():
                    self.revoke()
                    return
                frame = parse(wire.OperationFrame.FromString, message)
                # It may take a while until there is room for all that it brings.
                del message
                await self._take(frame)
            except CallerError as refusal:
                # What came before it is answered first. Its traceback would hold this stream.
                self.refusal = refusal.with_traceback(None)
                return
            finally:
                self._visit.read(place)
            del frame
            await self._admission.room(self.flow)

    async def _take(self, frame: wire.OperationFrame) -> None:
        """Submit a frame's operations, as there is room for them in the stream.

        Raises:
            MessageTooLargeError: it has too many; none of them was begun.
        """
        count = len(frame.operations)
        if count > MAX_OPERATIONS:
            raise MessageTooLargeError(
                f"a frame of {count} operations, at most {MAX_OPERATIONS}: none of them was"
                " begun, those of earlier frames are answered; open a new stream"
            )
        arrivals = self._statistics.frame_accepted(count)
        await self._submit_all(frame.operations, arrivals)

    async def _submit_all(self, operations: Sequence[wire.Operation], arrivals: Arrivals) -> None:
        """Submit a frame's operations, in turns, and as there is room for them in the stream."""
        submitted = 0
        while submitted < len(operations):
            while self._full:
                self._room.clear()
                await self._room.wait()
            await self._out_of_debt()
            submitted = await self._in_turn(
                len(operations) - submitted,
                partial(self._submit_some, operations, submitted, arrivals),
            )

    async def _out_of_debt(self) -> None:
        """Wait until all that this stream has its caller owe is paid, and what comes on top."""
        while self._owing:
            await asyncio.sleep(self.debt)
            self._owing = self.debt > 0

    @property
    def _full(self) -> bool:
        return (
            self._in_flight >= self._max_in_flight
            or self._held_bytes >= self._admission.bounds.max_stream_bytes
        )

    def _submit_some(
        self, operations: Sequence[wire.Operation], begin: int, arrivals: Arrivals
    ) -> int:
        """Submit operations from the one with this number on; return that of the next one."""
        end = begin
        while end < len(operations):
            count = min(_AT_ONCE, self._max_in_flight - self._in_flight)
            end += self._submit_together(operations[end : end + count], arrivals)
            if self._owing or self._full or self._dispatcher.turn_over():
                break
        return end

    def _submit_together(self, operations: Sequence[wire.Operation], arrivals: Arrivals) -> int:
        """Submit a few operations, as far as there is room for their bytes; return how many.

        Service and caller's account admit them as one, or else each on its own.
        """
        room = self._admission.bounds.max_stream_bytes - self._held_bytes
        held = []
        for operation in operations:
            size = operation.ByteSize() + OVERHEAD_BYTES
            held.append(size)
            room -= size
            if room <= 0:
                break
        count = len(held)
        self._in_flight += count
        self._statistics.stream_in_flight += count
        account = self.caller.account
        admitted = self._admission.admit_all(count, sum(held))
        counted = (
            admitted
            and account is not None
            and account.admit_all(count, sum(held) - count * OVERHEAD_BYTES)
        )
        for operation, size in zip(operations, held, strict=False):
            name = operation.WhichOneof("request") or UNKNOWN_OPERATION
            slot = _Slot(self, operation.operation_id, arrivals[name])
            slot.counted = counted
            if admitted:
                self._held_bytes += size
                slot.held = size
            self._submit(operation, slot)
        return count

    async def _in_turn(self, size: int, work: Callable[[], _T]) -> _T:
        """Do work for so many operations: at once if it is little and nobody waits for a turn."""
        if size <= _AT_ONCE and self._dispatcher.may_serve():
            return self._dispatcher.take_turn(work)
        return await self._dispatcher.turn(work, self.flow)

    # --- Payer ------------------------------------------------------------------------------------

    @property
    def debt(self) -> float:
        """See ``Payer``."""
        account = self.caller.account
        return 0.0 if account is None else account.debt

    def charge(self, work: int) -> None:
        """See ``Payer``."""
        account = self.caller.account
        if account is not None:
            account.charge(work)
            self._owing = self._owing or account.debt > 0

    # --- Operations and their answers -------------------------------------------------------------

    def _submit(self, operation: wire.Operation, slot: _Slot) -> None:
        if self._tracing:
            slot.request_id = self._request_id(slot)
        if not slot.held:
            try:
                slot.held = self._admission.admit(operation.ByteSize())
            except OverloadedError:
                slot.error = public_error()
                self._answer(slot)
                return
            self._held_bytes += slot.held
        kind = slot.arrival.kind
        try:
            account = self.caller.account
            if account is not None and not slot.counted:
                account.admit(operation)
                slot.counted = True
            if kind is None:
                raise MalformedRequestError("the operation holds no request this service knows")
            connect_id, command = kind.command(
                getattr(operation, kind.name), self._deadline, self._max_message_bytes
            )
        except ConnectError as error:
            slot.refuse(error)
        else:
            if self._tracing:
                note("received", slot.request_id, operation=kind.name, connect_id=connect_id)
            self._router.route(connect_id, command, slot, self.caller.owner)

    def _request_id(self, slot: _Slot) -> str:
        return f"{self._stream_id}/{slot.operation_id}"

    def done(self, slot: _Slot) -> None:
        """Take an admitted operation that has its answer, whether the stream lives or not."""
        # What is answered in one pass of the loop is counted as one.
        if not self._done:
            self._dispatcher.loop.call_soon(self._count_answered)
        self._done += 1
        self._leaving += slot.counted
        self._answer(slot)

    def _count_answered(self) -> None:
        done, self._done = self._done, 0
        leaving, self._leaving = self._leaving, 0
        self._admission.answered(done)
        if self.caller.account is not None:
            self.caller.account.leave(leaving)

    def _answer(self, slot: _Slot) -> None:
        # Behind the first, whoever writes the answers is awake.
        if not self._answered:
            self._ready.set()
        self._answered.append(slot)

    def _next_frame(self) -> tuple[wire.ResultFrame, list[_Slot]]:
        """Return a frame of what is ready, and the operations that it answers."""
        frame = wire.ResultFrame()
        size = 0
        answers = self._answered[:_MAX_RESULTS]
        add = frame.results.add
        for taken, slot in enumerate(answers, start=1):
            size += slot.fill(add(operation_id=slot.operation_id))
            if slot.error is not None:
                tell_refusal(slot.arrival.operation, self._request_id(slot), slot.error)
            elif self._tracing:
                note("answered", slot.request_id, operation=slot.arrival.operation)
            if size >= self._max_result_bytes or (
                taken % _AT_ONCE == 0 and self._dispatcher.turn_over()
            ):
                del answers[taken:]
                break
        del self._answered[: len(answers)]
        if (earliest := self._statistics.frame_answered(answers)) is not None:
            arrival, seconds = earliest
            slot = next(each for each in answers if each.arrival is arrival and not each.error)
            tell_if_slow(arrival.operation, self._request_id(slot), seconds)
        return frame, answers
