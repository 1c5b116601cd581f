"""A recorder that also keeps what happened when, window by window.

Throughput counts in the window of its answer; latency in the window that the operation was due in,
so that what a stall does to later operations shows where they were due.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from connect_loadgen.drive.pacing import SECOND
from connect_loadgen.drive.peer import Finished, Outcome
from connect_loadgen.drive.recording import Recorder

__all__ = ["Timeline", "Window"]


class Window(BaseModel):
    """What happened in one stretch of time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_seconds: float
    """Its beginning, from the phase's."""
    seconds: float
    right: int
    """Operations answered rightly in it."""
    errors: dict[str, int]
    """Operations answered in it by another status, by its name."""
    due: int
    """Operations that were due in it and were answered rightly at some time."""
    p50_ms: float | None
    """Of those, from when they were due."""
    p99_ms: float | None


@dataclass(slots=True)
class _Counts:
    right: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    latencies: list[int] = field(default_factory=list)


class Timeline(Recorder):
    """Counts a phase as a whole, and each window of it."""

    def __init__(self, begins_at: int, ends_at: int, window_seconds: float) -> None:
        """Begin with nothing; times are nanoseconds, the window is seconds."""
        super().__init__(begins_at, ends_at)
        self._window = int(window_seconds * SECOND)
        self._counts: defaultdict[int, _Counts] = defaultdict(_Counts)

    def record_finished(self, finished: Finished, arrived_at: int) -> None:
        """See ``Recorder``."""
        super().record_finished(finished, arrived_at)
        answered_in = self._counts[(arrived_at - self.begins_at) // self._window]
        if finished.outcome is Outcome.RIGHT:
            answered_in.right += 1
            due_at = finished.pending.intended_at
            due_in = self._counts[(due_at - self.begins_at) // self._window]
            due_in.latencies.append(arrived_at - due_at)
        elif finished.outcome is Outcome.ERROR:
            answered_in.errors[finished.status] += 1

    def merged(self, others: Sequence["Timeline"]) -> "Timeline":
        """Return the windows of this and of other recorders of the same phase, as one."""
        merged = Timeline(self.begins_at, self.ends_at, self._window / SECOND)
        for recorder in (self, *others):
            for index, counts in recorder._counts.items():  # noqa: SLF001 - this very class
                total = merged._counts[index]
                total.right += counts.right
                total.errors.update(counts.errors)
                total.latencies += counts.latencies
        return merged

    def windows(self) -> list[Window]:
        """Return the windows from the first to the last that has anything, in order."""
        first, last = min(self._counts, default=0), max(self._counts, default=-1)
        return [self._figures(index) for index in range(first, last + 1)]

    def split_off(self, now: int) -> "Timeline":
        """Return the windows before the last one that had ended at ``now``, and forget them.

        What is answered even later is missing in the latencies of the window that it was due in.
        """
        ended = Timeline(self.begins_at, self.ends_at, self._window / SECOND)
        current = (now - self.begins_at) // self._window
        for index in [each for each in self._counts if each < current - 1]:
            ended._counts[index] = self._counts.pop(index)
        return ended

    def _figures(self, index: int) -> Window:
        counts = self._counts[index]
        latencies = sorted(counts.latencies)
        return Window(
            at_seconds=index * self._window / SECOND,
            seconds=self._window / SECOND,
            right=counts.right,
            errors=dict(counts.errors),
            due=len(latencies),
            p50_ms=_percentile(latencies, 0.5),
            p99_ms=_percentile(latencies, 0.99),
        )


def _percentile(ordered: list[int], share: float) -> float | None:
    """Return the milliseconds that so large a share of the nanoseconds, in order, is within."""
    if not ordered:
        return None
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] / 1e6
