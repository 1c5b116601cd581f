"""The probes of the runtime (event loop, garbage collector, allocation), and their metrics."""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import Metric

from connect_actor.observe.allocation import HOOK_SOURCE, NO_SOURCE, AllocationProbe
from connect_actor.observe.families import Families
from connect_actor.observe.gc_pauses import GcPauses
from connect_actor.observe.logs import lines_dropped, suppressed_lines
from connect_actor.observe.loop_lag import LoopLag

__all__ = ["Probes", "runtime_metrics"]


@dataclass(frozen=True, slots=True)
class Probes:
    """What watches this process's interpreter and event loop, all the time."""

    allocation: AllocationProbe | None
    """None where there is no hook for it."""
    gc_pauses: GcPauses
    loop_lag: LoopLag

    @classmethod
    def start(cls, loop: asyncio.AbstractEventLoop) -> "Probes":
        """Begin to watch, on the loop's thread."""
        probes = cls(AllocationProbe.install(), GcPauses(), LoopLag(loop))
        probes.gc_pauses.install()
        probes.loop_lag.start()
        return probes

    def stop(self) -> None:
        """Watch no more, but for allocation: its hook stays while the process lives."""
        self.gc_pauses.remove()
        self.loop_lag.stop()


def runtime_metrics(families: Families, probes: Probes) -> Iterator[Metric]:
    """Yield what the probes have found; gross allocation only where there is a hook for it."""
    yield families.histogram(
        "event_loop_lag_seconds", "How late the event loop wakes.", probes.loop_lag.lag
    )
    yield families.histograms(
        "gc_pause_seconds",
        "Time of a collection.",
        ["generation"],
        [
            ((str(generation),), pauses)
            for generation, pauses in probes.gc_pauses.by_generation.items()
        ],
    )
    yield families.counter(
        "log_lines_dropped", "Lines of output dropped instead of written.", lines_dropped()
    )
    yield families.gauge(
        "allocated_blocks", "Blocks alive in Python's allocator.", sys.getallocatedblocks()
    )
    yield families.counter(
        "suppressed_log_lines",
        "Log lines held back, as too many came from one place.",
        suppressed_lines(),
    )
    yield families.info(
        "allocation_probe",
        "Where figures of allocation come from.",
        {"source": NO_SOURCE if probes.allocation is None else HOOK_SOURCE},
    )
    if probes.allocation is None:
        return
    counts = probes.allocation.counts()
    yield families.counters(
        "allocations",
        "Allocations asked of Python's allocators.",
        ["domain"],
        [((domain,), count.allocations) for domain, count in counts.items()],
    )
    yield families.counters(
        "allocated_bytes",
        "Bytes asked of Python's allocators.",
        ["domain"],
        [((domain,), count.bytes) for domain, count in counts.items()],
    )
