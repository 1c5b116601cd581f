"""A load over several connections, each with channels of its own, from one process."""

import asyncio
import random
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from connect_loadgen.drive.channels import ChannelEnd, establish
from connect_loadgen.drive.pacing import SECOND, Line, closed_loop, drain, open_loop
from connect_loadgen.drive.peer import Peers
from connect_loadgen.drive.timeline import Timeline, Window
from connect_loadgen.drive.transport import open_transport
from connect_loadgen.drive.workload import Workload
from connect_loadgen.service.endpoint import Endpoint
from connect_loadgen.settings.arrivals import Arrivals, Schedule
from connect_loadgen.settings.load import LoadSettings

__all__ = ["Lines", "Outcome", "open_lines", "p50_of", "p99_of"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one phase on all lines did."""

    begins_at: int
    """Nanoseconds of the monotonic clock."""
    recorders: Sequence[Timeline]

    @property
    def seconds(self) -> float:
        """How long it lasts, or lasted if it was ended early."""
        return max(each.ends_at - self.begins_at for each in self.recorders) / SECOND

    @property
    def per_second(self) -> float:
        """Operations answered while it lasted, whatever the answer."""
        return sum(each.finished_in_time for each in self.recorders) / self.seconds

    @property
    def wrong(self) -> int:
        """Wrong answers."""
        return sum(each.wrong for each in self.recorders)

    @property
    def errors(self) -> Counter[str]:
        """Error statuses, counted."""
        total: Counter[str] = Counter()
        for each in self.recorders:
            total.update(each.errors)
        return total

    def windows(self) -> list[Window]:
        """Return the windows of all lines together; percentiles are of all operations."""
        return self.recorders[0].merged(self.recorders[1:]).windows()

    def take(self) -> list[Window]:
        """Return, and forget, the windows that have ended; for phases of hours."""
        first, *others = [each.split_off(time.perf_counter_ns()) for each in self.recorders]
        return first.merged(others).windows()


class Lines:
    """The connections; phases are put on all of them at once."""

    def __init__(self, lines: Sequence[Line], ends: Sequence[list[ChannelEnd]]) -> None:
        """Take over what ``open_lines`` has opened."""
        self.lines = lines
        self.ends = ends

    async def closed(self, seconds: float, concurrency: int, patience: float) -> Outcome:
        """Keep so many operations in flight, all lines together.

        Raises:
            TransportError: a connection failed.
        """
        outcome = self.begin(seconds, seconds)
        share = max(concurrency // len(self.lines), 1)
        await self._run(
            [closed_loop(line, concurrency=max(share, line.transport.batch)) for line in self.lines]
        )
        await self._drain(patience)
        return outcome

    async def open(self, phase: Outcome, rate: str, settings: LoadSettings) -> None:
        """Send at a rate, written as in the settings, all lines together, for a phase.

        Raises:
            TransportError: a connection failed.
        """
        count = len(self.lines)
        arrivals = Arrivals.parse(rate).divided(count)
        chance = random.Random(settings.seed)  # noqa: S311 - a load to be repeated
        await self._run(
            [
                open_loop(
                    line,
                    schedule=Schedule(
                        arrivals.times(phase.seconds, chance, index / count), phase.begins_at
                    ),
                    max_in_flight=max(settings.max_in_flight // count, 1),
                )
                for index, line in enumerate(self.lines)
            ]
        )
        await self._drain(settings.timeout_seconds)

    def stop(self, reason: str) -> None:
        """End the current phase now; nothing if it is over."""
        for line in self.lines:
            line.stop(reason)

    async def _drain(self, patience: float) -> None:
        await asyncio.gather(*(drain(line, patience=patience) for line in self.lines))

    def begin(self, seconds: float, window_seconds: float) -> Outcome:
        """Begin a phase now: what is answered from now on counts in it."""
        now = time.perf_counter_ns()
        recorders = [Timeline(now, now + int(seconds * SECOND), window_seconds) for _ in self.lines]
        for line, recorder in zip(self.lines, recorders, strict=True):
            # Phases of hours would hold on to all before them.
            line.recorders[:] = [recorder]
            line.stopped = None
        return Outcome(now, recorders)

    @staticmethod
    async def _run(loops: Sequence[Coroutine[None, None, None]]) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for each in loops:
                    tasks.create_task(each)
        except ExceptionGroup as group:
            raise group.exceptions[0] from None


@asynccontextmanager
async def open_lines(
    endpoint: Endpoint, settings: LoadSettings, connections: int
) -> AsyncIterator[Lines]:
    """Connect, establish the channels and yield the lines, nothing in flight.

    Raises:
        TransportError: the service can't be reached or refused a handshake.
    """
    async with AsyncExitStack() as stack:
        lines, all_ends = [], []
        for part in _parts(settings, connections):
            transport = await stack.enter_async_context(
                open_transport(endpoint, part, shares_connection=False)
            )
            ends = await establish(transport, part, endpoint)
            now = time.perf_counter_ns
            recorder = Timeline(now(), now(), 1.0)
            line = Line(Peers(ends, Workload.of(part).operations()), transport, recorder, now)
            transport.listen(line)
            lines.append(line)
            all_ends.append(ends)
        yield Lines(lines, all_ends)


def _parts(settings: LoadSettings, connections: int) -> Iterator[LoadSettings]:
    for index in range(connections):
        channels = settings.channels // connections + (index < settings.channels % connections)
        yield settings.model_copy(
            update={"channels": channels, "seed": settings.seed + (index << 32)}
        )


def p50_of(windows: Sequence[Window]) -> float | None:
    """Return the median of the windows' p50, in ms."""
    return _median(window.p50_ms for window in windows)


def p99_of(windows: Sequence[Window]) -> float | None:
    """Return the median of the windows' p99, in ms: what one stalled window can't move."""
    return _median(window.p99_ms for window in windows)


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
