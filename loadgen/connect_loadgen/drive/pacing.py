"""When operations are sent: as answers come (closed loop), or on time whatever happens (open loop).

A closed loop keeps a number of operations in flight. A service that stalls is asked less, so its
latencies are service times and say nothing about users who come on their own. An open loop sends
at intended times and measures from them, so a stall shows in every operation that it delays. At a
cap on what is in flight a send is skipped and counted; it is never made up for by a burst.
"""

import asyncio
import sys
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Literal

from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.peer import Peers, Pending
from connect_loadgen.drive.recording import Recorder
from connect_loadgen.drive.transport import Transport
from connect_loadgen.settings.arrivals import Schedule

__all__ = ["LONGEST_NAP", "NO_ANSWER", "Line", "LoopName", "closed_loop", "drain", "open_loop"]

SECOND = 1_000_000_000

LoopName = Literal["open", "closed"]

NO_ANSWER = "NO_ANSWER"
"""Status of an operation that got no answer in time."""

# Event loops wake up by milliseconds, so shorter sleeps would only spin.
_TICK = SECOND // 1000

# However long nothing is due, a broken transport and an early end are seen.
LONGEST_NAP = SECOND // 4

# A send that the generator itself missed by this much is skipped and counted, like those at the
# cap: made up for later, it would be a burst. Users of wrk2 and k6 see pauses below this as noise.
MAX_LATENESS = SECOND // 20


class Line:
    """What goes out and comes back: peers, a transport, and the recorder of the current phase."""

    def __init__(
        self, peers: Peers, transport: Transport, recorder: Recorder, now: Callable[[], int]
    ) -> None:
        self.peers = peers
        self.transport = transport
        self.recorders = [recorder]
        """Of all phases so far; the last is the current one's."""
        self.now = now
        self.changed = asyncio.Event()
        """Set when an answer has come, or the transport has failed."""
        self.sends_follow_ups_at_once = False
        self.loop: LoopName | None = None
        """The loop that runs, or ran last."""
        self.turn_ends_at = sys.maxsize
        """When the current loop ends, if that is before the phase does."""
        self.stopped: str | None = None
        """Why the current phase was ended early, if it was."""
        self._failure: Exception | None = None

    @property
    def recorder(self) -> Recorder:
        """The current phase's."""
        return self.recorders[-1]

    @property
    def loop_ends_at(self) -> int:
        """When the current loop ends."""
        return min(self.recorder.ends_at, self.turn_ends_at)

    def submit(self, operations: list[Pending]) -> None:
        """Hand operations to the transport, as one batch."""
        sent_at = self.now()
        for pending in operations:
            if pending.sent_at:
                continue
            pending.sent_at = sent_at
            self.recorder.sent += 1
            if pending.intended_at:
                self.recorder.send_lag.record(sent_at - pending.intended_at)
            else:
                pending.intended_at = sent_at
        self.transport.submit([pending.request for pending in operations])

    def submit_follow_ups(self) -> None:
        """Hand all waiting second halves of round trips to the transport."""
        while count := min(self.peers.waiting_follow_ups, self.transport.batch):
            self.submit([self.peers.follow_up() for _ in range(count)])

    def stop(self, reason: str) -> None:
        """End the current phase now, unless it is over."""
        now = self.now()
        if self.stopped is None and now < self.recorder.ends_at:
            self.stopped = reason
            self.recorder.ends_at = now
            self.changed.set()

    def ask(self, operation: wire.Operation) -> "asyncio.Future[wire.OperationResult]":
        """Send an operation that is no part of the workload, in a batch of its own."""
        answer: asyncio.Future[wire.OperationResult] = asyncio.get_running_loop().create_future()

        def take(result: wire.OperationResult) -> None:
            # Whoever waited may have gone.
            if not answer.done():
                answer.set_result(result)

        self.peers.ask(operation, take)
        self.transport.submit([operation])
        return answer

    def require_working(self) -> None:
        """Check that answers can still come.

        Raises:
            TransportError: the transport has failed.
        """
        if self._failure is not None:
            raise self._failure

    # --- As the transport's listener ------------------------------------------------------------

    def on_results(self, results: Iterable[wire.OperationResult]) -> None:
        """Take answers that have just arrived."""
        arrived_at = self.now()
        for result in results:
            try:
                finished = self.peers.settle(result)
            except KeyError:
                self.recorder.wrong += 1
                continue
            if finished is not None:
                self.recorder.record_finished(finished, arrived_at)
        if self.sends_follow_ups_at_once:
            self.submit_follow_ups()
        self.changed.set()

    def on_failure(self, error: Exception) -> None:
        """Take note that no answer will come any more."""
        self._failure = error
        self.changed.set()


async def closed_loop(
    line: Line, *, concurrency: int, think: Callable[[], float] | None = None
) -> None:
    """Keep ``concurrency`` operations in flight until the phase, or the loop's turn, ends.

    They go out in full batches; but what waits for a user to have thought goes out as soon as that
    is over, whatever it fills.

    Args:
        line: the way to the service.
        concurrency: operations in flight, or thought about.
        think: returns how long to wait from an answer until it is replaced, seconds.

    Raises:
        TransportError: the transport has failed.
    """
    peers, recorder, batch = line.peers, line.recorder, line.transport.batch
    line.loop, line.sends_follow_ups_at_once = "closed", False
    thinking: list[int] = []
    answered = recorder.finished
    loop = asyncio.get_running_loop()
    while (now := line.now()) < line.loop_ends_at:
        line.require_working()
        line.changed.clear()
        if think is not None:
            for _ in range(recorder.finished - answered):
                heappush(thinking, now + int(think() * SECOND))
            answered = recorder.finished
            while thinking and thinking[0] <= now:
                heappop(thinking)
        in_flight = peers.unanswered - peers.waiting_follow_ups
        free = concurrency - in_flight - len(thinking)
        if free < (batch if think is None else 1):
            wakes_at = min([line.loop_ends_at, *thinking[:1]])
            timer = loop.call_later(max(wakes_at - now, _TICK) / SECOND, line.changed.set)
            try:
                await line.changed.wait()
            finally:
                timer.cancel()
            continue
        size = min(free, batch)
        follow_ups = min(peers.waiting_follow_ups, size)
        operations = [peers.follow_up() for _ in range(follow_ups)]
        operations.extend(peers.begin() for _ in range(size - follow_ups))
        line.submit(operations)
        await asyncio.sleep(0)


async def open_loop(line: Line, *, schedule: Schedule, max_in_flight: int) -> None:
    """Send what is due at its time, and last until the phase, or the loop's turn, ends.

    Raises:
        TransportError: the transport has failed.
    """
    peers, recorder = line.peers, line.recorder
    line.loop, line.sends_follow_ups_at_once = "open", True
    while (now := line.now()) < line.loop_ends_at or schedule.next_at < line.loop_ends_at:
        line.require_working()
        operations: list[Pending] = []
        for intended in schedule.due(min(now, line.loop_ends_at - 1)):
            if now - intended > MAX_LATENESS:
                recorder.skipped_late += 1
                peers.skip()
            elif peers.unanswered >= max_in_flight:
                recorder.skipped_at_cap += 1
                peers.skip()
            else:
                pending = peers.begin()
                pending.intended_at = intended
                operations.append(pending)
        _submit_in_batches(line, operations)
        pause = min(schedule.next_at, line.loop_ends_at) - line.now()
        await asyncio.sleep(min(max(pause, _TICK), LONGEST_NAP) / SECOND)


async def drain(line: Line, *, patience: float) -> None:
    """Send what is held back and wait for all answers; those that don't come are errors.

    Args:
        line: as the loop left it.
        patience: how long to wait, seconds.

    Raises:
        TransportError: the transport has failed.
    """
    line.sends_follow_ups_at_once = True
    line.submit_follow_ups()
    _submit_in_batches(line, line.peers.release_held())
    try:
        async with asyncio.timeout(patience):
            while line.peers.unanswered:
                line.require_working()
                line.changed.clear()
                await line.changed.wait()
    except TimeoutError:
        for finished in line.peers.give_up(NO_ANSWER):
            line.recorder.record_finished(finished, line.now())


def _submit_in_batches(line: Line, operations: list[Pending]) -> None:
    batch = line.transport.batch
    for start in range(0, len(operations), batch):
        line.submit(operations[start : start + batch])
