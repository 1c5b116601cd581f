"""``loadgen bench``: times and counts the benchmarks asked for, in processes of their own.

The benchmarks of a group take turns, round by round, so that what changes slowly (the disk's mood,
a neighbour on the machine) falls out of their ratios.
"""

import itertools
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from connect_loadgen.bench.cases import Benchmark
from connect_loadgen.bench.memory import MemoryFigures
from connect_loadgen.bench.results import BenchResult, Row, compare, make_row
from connect_loadgen.bench.settings import BenchSettings
from connect_loadgen.bench.suite import chosen
from connect_loadgen.bench.workers import count_in_worker, time_in_worker
from connect_loadgen.experiment.environment import describe_environment
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.settings.load import ConfigurationError

__all__ = ["execute_bench", "read_saved", "select"]

# Long enough that a clock's tick is nothing, short enough for a hundred benchmarks.
_SECONDS_A_VALUE = 0.05


def select(settings: BenchSettings) -> list[Benchmark]:
    """Return the benchmarks that the settings ask for.

    Raises:
        ConfigurationError: there is none for one of the patterns.
    """
    for pattern in settings.only:
        if not chosen((pattern,)):
            raise ConfigurationError(
                f"--only: no benchmark is called like {pattern!r}; --list names them"
            )
    return chosen(settings.only)


async def execute_bench(settings: BenchSettings, progress: CommandProgress) -> BenchResult:
    """Time and count.

    Raises:
        Ended: the command ended before a group was done.
        ConfigurationError: no benchmark is called like that, or the saved run is none.
        BenchError: a benchmark failed, or did not do its work.
    """
    benchmarks, saved = select(settings), read_saved(settings)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    rows: list[Row] = []
    try:
        for name, members in itertools.groupby(benchmarks, key=lambda benchmark: benchmark.group):
            group = list(members)
            ends = len(rows) + len(group)
            with progress.within(f"{len(rows) + 1} to {ends} of {len(benchmarks)}: "):
                progress.step(name)
                rows += await ending().part(_measure(group, settings, progress))
    except Ended:
        if not rows:
            raise
    return BenchResult(
        started_at=started_at,
        settings=settings.model_dump(mode="json"),
        environment=describe_environment(Path(tempfile.gettempdir())),
        cut_short=ending().reason,
        rows=rows,
        compared=[] if saved is None else compare(saved, rows, settings.threshold),
    )


def read_saved(settings: BenchSettings) -> BenchResult | None:
    """Return the saved run to compare with, if one is named.

    Raises:
        ConfigurationError: it is not there, no benchmark run, or has none of the benchmarks chosen.
    """
    if settings.compare is None:
        return None
    try:
        saved = BenchResult.model_validate_json(settings.compare.read_bytes())
    except (OSError, ValueError):
        raise ConfigurationError(
            f"--compare: {settings.compare} is no bench.json of this version"
        ) from None
    # A comparison of nothing would pass whatever became slower.
    if not {row.name for row in saved.rows} & {one.name for one in chosen(settings.only)}:
        raise ConfigurationError(
            f"--compare: {settings.compare} has none of the benchmarks that are to run"
        )
    return saved


async def _measure(
    group: Sequence[Benchmark], settings: BenchSettings, progress: CommandProgress
) -> list[Row]:
    memory = {benchmark.name: await count_in_worker(benchmark) for benchmark in group}
    return _rows(group, await _time_in_turn(group, settings, progress), memory)


async def _time_in_turn(
    group: Sequence[Benchmark], settings: BenchSettings, progress: CommandProgress
) -> dict[str, list[list[float]]]:
    """Return the values of every benchmark, by round."""
    rounds: dict[str, list[list[float]]] = {benchmark.name: [] for benchmark in group}
    loops = dict.fromkeys(rounds, 0)
    for number in range(settings.rounds):
        # Back and forth, so that none is always first.
        for position, benchmark in enumerate(group if number % 2 == 0 else reversed(group)):
            done = number * len(group) + position
            progress.tick(done / (settings.rounds * len(group)), benchmark.name)
            timed = await time_in_worker(
                benchmark,
                values=settings.values,
                seconds_a_value=_SECONDS_A_VALUE,
                loops=loops[benchmark.name],
            )
            loops[benchmark.name] = timed.loops
            rounds[benchmark.name].append(list(timed.seconds))
    return rounds


def _rows(
    group: Sequence[Benchmark],
    rounds: Mapping[str, list[list[float]]],
    memory: Mapping[str, MemoryFigures],
) -> list[Row]:
    baseline = next((rounds[one.name] for one in group if one.is_baseline), None)
    return [
        make_row(
            benchmark.name,
            group=benchmark.group,
            is_baseline=benchmark.is_baseline,
            rounds=rounds[benchmark.name],
            baseline=baseline,
            allocated_bytes=memory[benchmark.name].allocated_bytes,
            allocated_blocks=memory[benchmark.name].allocated_blocks,
            collections=memory[benchmark.name].collections,
        )
        for benchmark in group
    ]
