"""Processes in which benchmarks run: one at a time, and none outlives the command.

Each leads a process group of its own, since pyperf starts workers in turn: who gives up ends the
whole group.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pyperf

from connect_loadgen.bench.cases import Benchmark
from connect_loadgen.bench.memory import MemoryFigures
from connect_loadgen.program.child import kill_child, start_child
from connect_loadgen.program.scratch import scratch_directory

__all__ = ["BenchError", "Timed", "count_in_worker", "time_in_worker"]


class BenchError(Exception):
    """A benchmark failed; the message says which and how."""


@dataclass(frozen=True, slots=True)
class Timed:
    """What one worker process took."""

    seconds: Sequence[float]
    """Of one operation, value by value."""
    loops: int
    """Calls that made a value: what the next worker need not find out again."""


async def count_in_worker(benchmark: Benchmark) -> MemoryFigures:
    """Check a benchmark's result, then count what it allocates and collects.

    Raises:
        BenchError: it failed, or did not do its work.
    """
    printed = await _run("-m", "connect_loadgen.bench.memory", benchmark.name)
    return MemoryFigures(**json.loads(printed))


async def time_in_worker(
    benchmark: Benchmark, *, values: int, seconds_a_value: float, loops: int
) -> Timed:
    """Time a benchmark in a fresh process, after a warm-up there.

    Args:
        benchmark: what to time.
        values: how many values to take.
        seconds_a_value: how long one is to last, where the calls have to be found out.
        loops: calls that make a value; 0 to find them out.

    Raises:
        BenchError: it failed.
    """
    with scratch_directory() as directory:
        file = directory / "values.json"
        await _run(
            *("-m", "connect_loadgen.bench.timing", "--quiet", "--copy-env", "--processes=1"),
            f"--values={values}",
            f"--min-time={seconds_a_value}",
            f"--loops={loops}",
            f"--output={file}",
            benchmark.name,
        )
        timed = pyperf.BenchmarkSuite.load(str(file)).get_benchmark(benchmark.name)
    return Timed(timed.get_values(), timed.get_loops())


async def _run(*arguments: str) -> str:
    process = await start_child(
        sys.executable, *arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        printed, said = await process.communicate()
    finally:
        kill_child(process)
        await process.wait()
    if process.returncode != 0:
        lines = said.decode(errors="replace").strip().splitlines()
        raise BenchError(f"{arguments[-1]}: {lines[-1] if lines else 'no word of why'}")
    return printed.decode()
