"""The suite: all benchmarks, in the order of the table."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from connect_loadgen.bench import channels, endurance, journals, payloads, protocol, storage
from connect_loadgen.bench.cases import Benchmark

__all__ = ["SUITE", "chosen"]

SUITE: Mapping[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        *protocol.BENCHMARKS,
        *payloads.BENCHMARKS,
        *storage.BENCHMARKS,
        *journals.BENCHMARKS,
        *channels.BENCHMARKS,
        *endurance.BENCHMARKS,
    )
}


def chosen(patterns: tuple[str, ...]) -> list[Benchmark]:
    """Return the benchmarks that one of the patterns means; all without.

    A pattern with ``*`` or ``?`` is held against the whole name, any other is a part of it.
    """
    if not patterns:
        return list(SUITE.values())
    return [
        benchmark
        for name, benchmark in SUITE.items()
        if any(_means(pattern, name) for pattern in patterns)
    ]


def _means(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern) if {"*", "?"} & {*pattern} else pattern in name
