"""What the terminal shows of a run and of a comparison."""

from collections.abc import Iterator

from connect_loadgen.experiment.results import CompareResult, RunResult
from connect_loadgen.report.blocks import Block, Bullets, Prose
from connect_loadgen.report.compare_tables import how_to_read, ratio_table, variant_table
from connect_loadgen.report.findings import answer, nothing_worse, what_got_worse
from connect_loadgen.report.run_tables import (
    cost_table,
    generator_table,
    latency_table,
    load_table,
    run_warnings,
)

__all__ = ["compare_blocks", "run_blocks"]


def run_blocks(result: RunResult) -> Iterator[Block]:
    """Yield what is shown of a run."""
    yield load_table(result)
    yield latency_table(result)
    yield cost_table(result)
    yield generator_table(result)
    if warnings := run_warnings(result):
        yield Bullets(tuple(warnings), is_alarm=True)


def compare_blocks(result: CompareResult) -> Iterator[Block]:
    """Yield what is shown of a comparison."""
    yield variant_table(result)
    yield ratio_table(result)
    yield Prose(" ".join(how_to_read(result)))
    yield Bullets(tuple(answer(result)))
    if worse := what_got_worse(result):
        yield Bullets(tuple(f"Worse in every round - {sentence}" for sentence in worse))
    else:
        yield Prose(nothing_worse(result))
    if result.warnings:
        yield Bullets(tuple(result.warnings), is_alarm=True)
