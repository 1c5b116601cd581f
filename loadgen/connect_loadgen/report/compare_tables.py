"""The tables of a comparison, the same for the terminal and the page."""

from collections.abc import Sequence

from connect_loadgen.experiment.figures import Figure
from connect_loadgen.experiment.numbers import count, ratio_with_spread, share, with_spread
from connect_loadgen.experiment.numbers import figure as written
from connect_loadgen.experiment.results import CompareResult, Spread, VariantFigures
from connect_loadgen.report.blocks import Cell, Column, Table, Tone, missing
from connect_loadgen.report.findings import (
    FIGURE,
    MATERIAL,
    Verdict,
    chance_of_one_side,
    contenders,
    verdict_on,
)
from connect_loadgen.report.method import measured_from

__all__ = ["HEADLINES", "how_to_read", "ratio_table", "variant_table", "why_missing"]

HEADLINES = (
    "messages_per_second",
    "p50_ms",
    "p99_ms",
    "p99_9_ms",
    "cpu_seconds_per_1000_messages",
    "record_bytes_per_message",
    "disk_write_bytes_per_message",
    "commits",
    "snapshots",
    "restore_seconds",
)

_TONE = {Verdict.BETTER: Tone.BETTER, Verdict.WORSE: Tone.WORSE}


def variant_table(
    result: CompareResult, names: Sequence[str] = HEADLINES, *, spread: bool = False
) -> Table:
    """Return a row for each variant, a column for each figure: medians over the rounds.

    Args:
        result: the comparison.
        names: the figures, as in ``figures``.
        spread: whether lowest and highest stand beside the median.
    """
    figures = [FIGURE[name] for name in names]
    return Table(
        title=f"Medians over {_rounds(result)}",
        columns=(
            Column("Variant", is_text=True),
            *(Column(figure.title, figure.unit, figure.meaning) for figure in figures),
        ),
        rows=tuple(
            (
                Cell(variant.name),
                *(_figure_cell(variant, figure, spread=spread) for figure in figures),
            )
            for variant in result.variants
        ),
    )


def ratio_table(result: CompareResult, names: Sequence[str] = HEADLINES) -> Table:
    """Return a row for each figure, a column for each variant but the baseline: ratios to it."""
    variants = [variant for variant in result.variants if variant.name != result.baseline]
    return Table(
        title=f"Ratio to {result.baseline} of the same round: median [lowest, highest]",
        columns=(
            Column("Figure", is_text=True),
            *(Column(variant.name) for variant in variants),
        ),
        rows=tuple(
            (
                Cell(FIGURE[name].title),
                *(_ratio_cell(result, variant, FIGURE[name]) for variant in variants),
            )
            for name in names
        ),
    )


def how_to_read(result: CompareResult) -> list[str]:
    """Return what the figures and the brackets mean, for this result."""
    load = result.variants[0].rounds[0].load
    rounds = len(result.variants[0].rounds)
    spread = (
        "With one round there is no spread."
        if rounds == 1
        else f"[ ] are the lowest and the highest of {_rounds(result)}; ! or worse means worse"
        f" than {result.baseline} in every one, by {share(MATERIAL)} or more in the median."
        f" Where nothing differs, {_rounds(result)} still agree by chance"
        f" {share(chance_of_one_side(rounds))} of the time."
    )
    in_flight = (
        f"{load.intended_rate:g} operations/s were due"
        if load.intended_rate is not None
        else f"{result.settings['concurrency']} operations were always in flight"
    )
    return [
        (
            f"{spread} Each run was {load.duration_seconds:g} s, {load.model}: {in_flight}. Latency"
            f" counts from {measured_from(load)} to the right answer."
        ),
        (
            "CPU is that of the service's process. Record is what the strategy wrote for a message;"
            " Disk writes are what the kernel wrote for the process, log and whole pages included."
            " Recovery is Restore of all channels after kill -9."
        ),
    ]


def _figure_cell(variant: VariantFigures, figure: Figure, *, spread: bool) -> Cell:
    value = variant.summary.figures[figure.name]
    if value is None:
        return missing(why_missing(variant, figure))
    return Cell(with_spread(value) if spread else _plain(value, figure), sort_by=value.median)


def _plain(value: Spread, figure: Figure) -> str:
    return count(value.median) if figure.unit == "in all" else written(value.median)


def _ratio_cell(result: CompareResult, variant: VariantFigures, figure: Figure) -> Cell:
    value = variant.summary.ratios[figure.name]
    if value is None:
        if variant.summary.figures[figure.name] is None:
            return missing(why_missing(variant, figure))
        return missing(
            f"{figure.title}: {result.baseline} has 0 or none in the same round, so there is no"
            " ratio"
        )
    # What persists nothing is no contender: it is neither better nor worse.
    verdict = verdict_on(figure, value) if variant in contenders(result) else None
    tone = Tone.NEUTRAL if verdict is None else _TONE.get(verdict, Tone.NEUTRAL)
    return Cell(ratio_with_spread(value), sort_by=value.median, tone=tone)


def why_missing(variant: VariantFigures, figure: Figure) -> str:
    """Return why a variant lacks a figure, in a phrase."""
    if variant.summary.rounds_left_out == len(variant.rounds):
        return f"{variant.name}: the generator was the limit in every round"
    if figure.is_of_disk and variant.journal == "memory":
        return f"{variant.name}: nothing is kept on disk"
    return f"{variant.name}, {figure.title}: {figure.absent}"


def _rounds(result: CompareResult) -> str:
    rounds = len(result.variants[0].rounds)
    return "one round" if rounds == 1 else f"{rounds} rounds"
