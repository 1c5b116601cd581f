"""``loadgen bench``: times and counts the benchmarks asked for, in processes of their own."""

import asyncio
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyperf

from loadgen.bench.cases import Benchmark
from loadgen.bench.memory import MemoryFigures
from loadgen.bench.results import BenchResult, Row, make_row
from loadgen.bench.settings import BenchSettings
from loadgen.bench.suite import chosen
from loadgen.environment import describe_environment
from loadgen.progress import CommandProgress
from loadgen.settings import ConfigurationError

__all__ = ["BenchError", "execute_bench", "select"]

# Long enough that a clock's tick is nothing, short enough for ninety benchmarks.
_SECONDS_A_VALUE = "0.05"


class BenchError(Exception):
    """A benchmark failed; the message says which and how."""


def select(settings: BenchSettings) -> list[Benchmark]:
    """Return the benchmarks that the settings ask for.

    Raises:
        ConfigurationError: there is none.
    """
    benchmarks = chosen(settings.only)
    if not benchmarks:
        raise ConfigurationError(
            f"--only: no benchmark is called like {', '.join(settings.only)}; --list names them"
        )
    return benchmarks


async def execute_bench(settings: BenchSettings, progress: CommandProgress) -> BenchResult:
    """Time and count.

    Raises:
        ConfigurationError: no benchmark is called like that.
        BenchError: a benchmark failed, or did not do its work.
    """
    benchmarks = select(settings)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    memory: dict[str, MemoryFigures] = {}
    times: dict[str, Sequence[float]] = {}
    for number, benchmark in enumerate(benchmarks, 1):
        with progress.within(f"{number} of {len(benchmarks)}: "):
            progress.step(benchmark.name)
            progress.tick((number - 1) / len(benchmarks), "")
            memory[benchmark.name] = await _count(benchmark)
            times[benchmark.name] = await _time(benchmark, settings)
    return BenchResult(
        started_at=started_at,
        settings=settings.model_dump(mode="json"),
        environment=describe_environment(Path(tempfile.gettempdir())),
        rows=_rows(benchmarks, times, memory),
    )


def _rows(
    benchmarks: Sequence[Benchmark],
    times: Mapping[str, Sequence[float]],
    memory: Mapping[str, MemoryFigures],
) -> list[Row]:
    baselines = {
        benchmark.group: times[benchmark.name] for benchmark in benchmarks if benchmark.is_baseline
    }
    return [
        make_row(
            benchmark.name,
            group=benchmark.group,
            is_baseline=benchmark.is_baseline,
            seconds=times[benchmark.name],
            baseline=baselines.get(benchmark.group),
            allocated_bytes=memory[benchmark.name].allocated_bytes,
            allocated_blocks=memory[benchmark.name].allocated_blocks,
            collections=memory[benchmark.name].collections,
        )
        for benchmark in benchmarks
    ]


async def _count(benchmark: Benchmark) -> MemoryFigures:
    printed = await _run("-m", "loadgen.bench.memory", benchmark.name)
    return MemoryFigures(**json.loads(printed))


async def _time(benchmark: Benchmark, settings: BenchSettings) -> Sequence[float]:
    processes = 1 if settings.quick else settings.processes
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        file = Path(directory, "values.json")
        await _run(
            *("-m", "loadgen.bench.timing", "--quiet", "--copy-env"),
            f"--processes={processes}",
            f"--values={settings.values}",
            f"--min-time={_SECONDS_A_VALUE}",
            f"--output={file}",
            benchmark.name,
        )
        timed = pyperf.BenchmarkSuite.load(str(file)).get_benchmark(benchmark.name)
    values: Sequence[float] = timed.get_values()
    return values


async def _run(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        printed, said = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode != 0:
        lines = said.decode(errors="replace").strip().splitlines()
        raise BenchError(f"{arguments[-1]}: {lines[-1] if lines else 'no word of why'}")
    return printed.decode()
