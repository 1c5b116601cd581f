"""What benchmarks allocate, and how often they make the garbage collector run: counted, not timed.

Never in a process that times: the counting, the order of benchmarks and the caches that they warm
would show. ``python -m connect_loadgen.bench.memory NAME...`` prints one line of JSON for each.
"""

import gc
import json
import sys
from dataclasses import asdict, dataclass

from connect_loadgen.bench.cases import Benchmark
from connect_loadgen.bench.suite import SUITE
from connect_loadgen.probes.allocation import AllocationUnavailableError, measure

__all__ = ["MemoryFigures", "main", "measure_memory"]

# Enough calls for a mean, few enough that the slowest benchmark takes a second.
_OPERATIONS = 200
# The collector runs once in some hundred operations: it takes more of them to see it.
_COLLECTED_OPERATIONS = 1_000
_WARM_UP = 3


@dataclass(frozen=True, slots=True)
class MemoryFigures:
    """Of one operation; allocations are missing without the counting hook."""

    name: str
    allocated_bytes: float | None
    allocated_blocks: float | None
    collections: float
    """Runs of the garbage collector, of all generations, for 1,000 operations."""


def measure_memory(benchmark: Benchmark) -> MemoryFigures:
    """Count what one operation of a benchmark allocates and collects."""
    calls = max(_OPERATIONS // benchmark.operations, 2)
    allocated_bytes = allocated_blocks = None
    try:
        with benchmark.prepare(calls + _WARM_UP) as operation:
            counted = measure(operation, calls=calls, warm_up=_WARM_UP)
        allocated_bytes = counted.bytes_per_call / benchmark.operations
        allocated_blocks = counted.blocks_per_call / benchmark.operations
    except AllocationUnavailableError:
        pass
    calls = max(_COLLECTED_OPERATIONS // benchmark.operations, 2)
    with benchmark.prepare(calls) as operation:
        gc.collect()
        before = _collections()
        for _ in range(calls):
            operation()
        collections = _collections() - before
    return MemoryFigures(
        name=benchmark.name,
        allocated_bytes=allocated_bytes,
        allocated_blocks=allocated_blocks,
        collections=1_000 * collections / (calls * benchmark.operations),
    )


def _collections() -> int:
    return sum(generation["collections"] for generation in gc.get_stats())


def main() -> None:
    """Count for the benchmarks that are named."""
    for name in sys.argv[1:]:
        benchmark = SUITE[name]
        benchmark.require_right()
        sys.stdout.write(json.dumps(asdict(measure_memory(benchmark))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
