"""The suite: all benchmarks, in the order of the table."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from loadgen.bench import channels, journals, payloads, protocol, storage
from loadgen.bench.cases import Benchmark

__all__ = ["SUITE", "chosen"]

SUITE: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        *protocol.BENCHMARKS,
        *payloads.BENCHMARKS,
        *storage.BENCHMARKS,
        *journals.BENCHMARKS,
        *channels.BENCHMARKS,
    )
}


def chosen(patterns: tuple[str, ...]) -> list[Benchmark]:
    """Return the benchmarks whose names match one of the patterns (``*``, ``?``); all without."""
    if not patterns:
        return list(SUITE.values())
    return [
        benchmark
        for name, benchmark in SUITE.items()
        if any(
            fnmatchcase(name, pattern) or fnmatchcase(name, f"*{pattern}*") for pattern in patterns
        )
    ]
