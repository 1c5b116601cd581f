"""The way to one life of the service: a stream and unary calls, over a connection of their own.

Each operation gets exactly one end, and its rule is told: an answer, a broken connection, or, at
the limit, a hang. ``ask`` returns then and never later.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from connect_actor.network.connections import connect
from connect_actor.v1 import connect_pb2 as wire
from connect_actor.v1.connect_pb2_grpc import ConnectServiceStub
from connect_loadgen.crash.faults import FaultKind
from connect_loadgen.crash.ledger import Ledger
from connect_loadgen.crash.rules import Rule, Verdict
from connect_loadgen.drive.transport import (
    StreamTransport,
    Transport,
    TransportError,
    UnaryTransport,
)

if TYPE_CHECKING:
    # Known to the type checker only.
    from connect_actor.v1.connect_pb2_grpc import ConnectServiceAsyncStub

__all__ = ["Line", "Lines", "WayName", "open_lines"]

WayName = Literal["stream", "unary"]

_FRAME_OPERATIONS = 64
# How often the oldest operation's age is looked at; a hang is told this much late at the most.
_LOOKS_PER_LIMIT = 20


@dataclass(slots=True)
class _Waiting:
    rule: Rule
    sent_at: float
    ended: asyncio.Future[None]


class Line:
    """One transport, and what waits for its answers."""

    def __init__(self, transport: Transport, ledger: Ledger, clock: Callable[[], float]) -> None:
        self.broken = asyncio.Event()
        """Set once no answer can come any more."""
        self._transport = transport
        self._ledger = ledger
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._outbox: list[wire.Operation] = []
        self._waiting: dict[int, _Waiting] = {}
        self._given_up: dict[int, Rule] = {}
        transport.listen(self)

    def in_flight(self) -> list[str]:
        """Return the names of the operations that wait for an answer."""
        return [waiting.rule.name for waiting in self._waiting.values()]

    async def ask(self, rule: Rule) -> Verdict:
        """Send an operation and return how it ended."""
        if self.broken.is_set():
            rule.unknown()
            return rule.verdict
        ended: asyncio.Future[None] = self._loop.create_future()
        number = rule.operation.operation_id
        self._waiting[number] = _Waiting(rule, self._clock(), ended)
        if not self._outbox:
            # What else is asked for in this pass of the loop goes out in the same frame.
            self._loop.call_soon(self._send)
        self._outbox.append(rule.operation)
        await ended
        return rule.verdict

    def _send(self) -> None:
        operations, self._outbox = self._outbox, []
        for start in range(0, len(operations), self._transport.batch):
            self._transport.submit(operations[start : start + self._transport.batch])

    # --- Ends -------------------------------------------------------------------------------------

    def on_results(self, results: Iterable[wire.OperationResult]) -> None:
        """See ``Listener``."""
        for result in results:
            waiting = self._waiting.pop(result.operation_id, None)
            if waiting is not None:
                _judge(waiting, result)
            elif (late := self._given_up.pop(result.operation_id, None)) is not None:
                late.take_late(result)
            else:
                self._ledger.fault(
                    FaultKind.UNASKED, "an answer came that nobody waits for, or a second one"
                )

    def on_failure(self, error: Exception) -> None:
        """See ``Listener``."""
        self.broken.set()
        for waiting in self._take_all():
            if isinstance(error, TransportError):
                waiting.rule.unknown()
                _end(waiting)
            else:
                # A defect of ours, which must not look like the service's end.
                waiting.ended.set_exception(error)

    def give_up_older_than(self, seconds: float) -> None:
        """End what has waited for so long, as a hang."""
        # In the order of sending, so the first that is young enough ends the search.
        for number, waiting in list(self._waiting.items()):
            if self._clock() - waiting.sent_at < seconds:
                return
            self._ledger.fault(
                FaultKind.HUNG,
                f"{waiting.rule.name}: no answer and no broken connection after {seconds:g} s",
                waiting.rule,
            )
            del self._waiting[number]
            self._given_up[number] = waiting.rule
            waiting.rule.unknown()
            _end(waiting)

    def _take_all(self) -> list[_Waiting]:
        taken = list(self._waiting.values())
        self._waiting.clear()
        return taken


def _judge(waiting: _Waiting, result: wire.OperationResult) -> None:
    try:
        waiting.rule.take(result)
    except Exception as error:
        waiting.ended.set_exception(error)
        raise
    _end(waiting)


def _end(waiting: _Waiting) -> None:
    # Whoever waited may have been cancelled.
    if not waiting.ended.done():
        waiting.ended.set_result(None)


class Lines:
    """All lines to one life of the service."""

    def __init__(self, lines: dict[WayName, Line]) -> None:
        self._lines = lines

    @property
    def broken(self) -> bool:
        """Whether the service is gone, as far as a line can tell."""
        return any(line.broken.is_set() for line in self._lines.values())

    def in_flight(self) -> list[str]:
        """Return the names of the operations that wait for an answer."""
        return [name for line in self._lines.values() for name in line.in_flight()]

    async def ask(self, rule: Rule, way: WayName) -> Verdict:
        """Send an operation and return how it ended."""
        return await self._lines[way].ask(rule)

    async def watch(self, limit: float) -> None:
        """End, for as long as this runs, whatever waits for longer than ``limit`` seconds."""
        while True:
            await asyncio.sleep(limit / _LOOKS_PER_LIMIT)
            for line in self._lines.values():
                line.give_up_older_than(limit)


@asynccontextmanager
async def open_lines(address: str, ledger: Ledger, hang_limit: float) -> AsyncIterator[Lines]:
    """Connect to a life of the service that is ready, at HOST:PORT.

    Args:
        address: of the service.
        ledger: told what nobody asked for, and what hangs.
        hang_limit: seconds within which every operation ends.
    """
    clock = asyncio.get_running_loop().time
    async with connect(address) as channel:
        stub: ConnectServiceAsyncStub = ConnectServiceStub(channel)
        stream = StreamTransport(stub, _FRAME_OPERATIONS)
        # The deadline of a call is later than the limit: it is for us to see what hangs.
        unary = UnaryTransport(stub, 2 * hang_limit)
        lines = Lines({"stream": Line(stream, ledger, clock), "unary": Line(unary, ledger, clock)})
        watch = asyncio.create_task(lines.watch(hang_limit))
        try:
            yield lines
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
            await stream.aclose()
            await unary.aclose()
