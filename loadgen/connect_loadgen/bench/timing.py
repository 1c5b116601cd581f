"""Timing, by pyperf: each benchmark in worker processes of its own, calibrated and warmed up.

``python -m connect_loadgen.bench.timing [pyperf's options] NAME...`` is run by the command, and by
pyperf itself for every worker.
"""

import argparse
import gc
from time import perf_counter

import pyperf

from connect_loadgen.bench.cases import Benchmark
from connect_loadgen.bench.suite import SUITE

__all__ = ["main"]

_MODULE = "connect_loadgen.bench.timing"


def _time(loops: int, benchmark: Benchmark) -> float:
    """Return the seconds that so many calls take."""
    calls = range(loops)
    with benchmark.prepare(loops) as operation:
        gc.collect()
        begun = perf_counter()
        for _ in calls:
            operation()
        return perf_counter() - begun


def _pass_names(command: list[str], arguments: argparse.Namespace) -> None:
    command.extend(arguments.names)


def main() -> None:
    """Time the benchmarks that are named."""
    runner = pyperf.Runner(program_args=("-m", _MODULE), add_cmdline_args=_pass_names)
    runner.argparser.add_argument("names", nargs="+")
    for name in runner.parse_args().names:
        benchmark = SUITE[name]
        runner.bench_time_func(name, _time, benchmark, inner_loops=benchmark.operations)


if __name__ == "__main__":
    main()
