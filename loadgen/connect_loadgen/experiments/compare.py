"""``loadgen compare``: the same load on each strategy, in rounds, and what each cost.

Every run has a service and a data directory of its own.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from connect_loadgen.experiment.bounds import Bound, Verdict
from connect_loadgen.experiment.conduct import Conduct
from connect_loadgen.experiment.figures import FIGURE, FIGURES, Figure, latency_of, warnings_about
from connect_loadgen.experiment.model import Asked, Quantity, judge
from connect_loadgen.experiment.numbers import (
    Spread,
    figure,
    ratio_to,
    share,
    spread_of,
)
from connect_loadgen.experiment.results import Result, Row, Side, Withheld
from connect_loadgen.experiment.turns import Turns
from connect_loadgen.probes.trial import Variant, trial_probe
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.report.blocks import Block, Table
from connect_loadgen.report.page import NO_WINDOW, Look
from connect_loadgen.report.plots import bars_plot, ratio_plot, rounds_plot, spectrum_plot
from connect_loadgen.report.tables import figure_cell, plain_table, ratio_cell
from connect_loadgen.settings.load import LoadSettings, QuickSettings

__all__ = [
    "BASELINE",
    "LOOK",
    "VARIANTS",
    "CompareSettings",
    "caveats",
    "faults_of",
    "parts_of",
    "pivot",
    "rows_of",
    "run_compare",
    "warnings_of",
    "withheld_of",
]

BASELINE = "full"
VARIANTS = (
    Variant("full", "full"),
    Variant("cached", "cached"),
    Variant("differential", "differential"),
    # What the service could do at most if persisting were free.
    Variant("memory", "differential", journal="memory"),
)

HEADLINES = (
    "messages_per_second",
    "p50_ms",
    "p99_ms",
    "p99_9_ms",
    "cpu_seconds_per_1000_messages",
    "record_bytes_per_message",
    "disk_write_bytes_per_message",
    "restore_seconds",
)
_RECOVERY = ("restart_seconds", "restore_seconds")
_BYTES = (
    "record_bytes_per_message",
    "snapshot_bytes_per_message",
    "disk_write_bytes_per_message",
    "file_growth_bytes_per_message",
)

# Shorter than this, start-up effects and one slow sync weigh on the figures.
_SHORT_SECONDS = 10


class CompareSettings(QuickSettings, LoadSettings):
    """Put the same load on each strategy, in interleaved rounds, and compare what it cost."""

    command: ClassVar[str] = "compare"
    # About two minutes on two shared cores, start to report: 12 runs of a good nine seconds.
    quick_values: ClassVar[Mapping[str, object]] = {
        "channels": 200,
        "rounds": 3,
        "warm_up_seconds": 1.0,
        "duration_seconds": 4.0,
    }

    rounds: int = Field(
        5, ge=1, le=100, description="times that each variant is run, in an order shuffled by seed"
    )
    dry_run: bool = Field(default=False, description="only say what would be done")


async def run_compare(settings: CompareSettings, progress: CommandProgress) -> Result[None]:
    """Run all rounds and return what they showed.

    Raises:
        Ended: the command ended before a round was complete.
        ServiceError: a service did not start, or died.
        TransportError: a service could not be reached, or did not recover what it held.
        MetricsError: a service's counters could not be read.
    """
    conduct = Conduct(settings)
    turns = Turns(settings.seed, progress)
    probes = [trial_probe(each.name, each, settings) for each in VARIANTS]
    sides = await turns.take("", probes, settings.rounds)
    if not sides[BASELINE].rounds:
        raise Ended(ending().reason)
    left_out = turns.left_out
    return conduct.result(Path(tempfile.gettempdir()), None, left_out=left_out, **parts_of(sides))


def parts_of(sides: Mapping[str, Side]) -> dict[str, Any]:
    """Return what the result says of these sides."""
    rows = rows_of(sides)
    return {
        "answer": answer(rows, sides),
        "rows": rows,
        "sides": sides,
        "warnings": warnings_of(sides),
        "faults": faults_of(sides),
        "withheld": withheld_of(sides),
    }


# --- From rounds to rows --------------------------------------------------------------------------


def rows_of(
    sides: Mapping[str, Side], baseline: str = BASELINE, names: Sequence[str] = ()
) -> list[Row]:
    """Return a row for each figure of each side, beside the baseline's of the same round."""
    rows = []
    for side in sides.values():
        is_baseline = side.name == baseline
        for each in FIGURES:
            if names and each.name not in names:
                continue
            bound = None
            # What persists nothing is no contender: it is neither better nor worse.
            if not is_baseline and side.name != "memory" and each.more_is_better is not None:
                bound = Bound.difference(more_is_better=each.more_is_better)
            row = judge(
                Asked(
                    f"{side.name}.{each.name}",
                    f"{side.name}: {each.title}",
                    each.unit,
                    Quantity(side.name, each.name),
                    None if is_baseline else Quantity(baseline, each.name),
                    "" if is_baseline else baseline,
                    bound,
                    more_is_better=each.more_is_better,
                ),
                sides,
            )
            rows.append(_alone(row, side, each))
    return rows


def _alone(row: Row, side: Side, each: Figure) -> Row:
    """Return the row with the figures of all its own valid rounds, compared or not."""
    measured = spread_of([turn.figures.get(each.name) for turn in side.valid])
    if side.rounds and not side.valid:
        return row
    # What a variant can't have (a journal in memory, its disk) is no failure.
    is_absent = row.verdict is Verdict.NOT_MEASURED
    verdict = Verdict.NO_BOUND if is_absent else row.verdict
    return row.model_copy(update={"measured": measured, "verdict": verdict})


def faults_of(sides: Mapping[str, Side]) -> list[str]:
    """Return which rounds went wrong."""
    return [
        f"{side.name}, round {each.number}: answers or channels were lost or wrong"
        for side in sides.values()
        for each in side.rounds
        if not each.is_right
    ]


def withheld_of(sides: Mapping[str, Side]) -> list[Withheld]:
    """Return the sides that no round says anything about."""
    return [
        Withheld.invalid(
            f"{side.name}: the generator was the limit in every round: no verdict",
        )
        for side in sides.values()
        if side.rounds and not side.valid
    ]


def warnings_of(sides: Mapping[str, Side]) -> list[str]:
    """Return what a reader of these rounds has to know, a line each."""
    return [text for side in sides.values() for text in warnings_about(side.rounds, side.name)]


# --- The answer -----------------------------------------------------------------------------------

# The figure, and the noun that "1/3 of the" or "28% less" goes before.
_TOLD = {
    "record_bytes_per_message": "record bytes",
    "disk_write_bytes_per_message": "disk bytes",
    "cpu_seconds_per_1000_messages": "CPU",
    "messages_per_second": "throughput",
    "p99_ms": "p99",
    "restore_seconds": "recovery time",
}


def answer(rows: Sequence[Row], sides: Mapping[str, Side]) -> list[str]:
    """Return what the strategies cost and carry beside the baseline, a line for each."""
    lines = []
    for name in sides:
        if name in {BASELINE, "memory"}:
            continue
        told: dict[Verdict, list[str]] = {}
        for row in rows:
            side, _, key = row.name.partition(".")
            if side == name and key in _TOLD and row.ratio is not None:
                told.setdefault(row.verdict, []).append(f"{changed(row.ratio)} {_TOLD[key]}")
        parts = [", ".join(told[Verdict.BETTER])] if Verdict.BETTER in told else []
        if Verdict.WORSE in told:
            parts.append(f"for the worse {', '.join(told[Verdict.WORSE])}")
        if not parts:
            parts = ["no difference that every round shows"] if told else ["no verdict"]
        lines.append(f"{name}, beside {BASELINE}: {'; but '.join(parts)}.")
    if "memory" in sides:
        reached = [
            f"{name} {share(value.median)}"
            for name in sides
            if name != "memory" and (value := _of_ceiling(sides, name)) is not None
        ]
        if reached:
            lines.append(f"Of the throughput without persistence: {', '.join(reached)}.")
    return lines


def _of_ceiling(sides: Mapping[str, Side], name: str) -> Spread | None:
    pairs = [
        (base, mine)
        for base, mine in zip(sides["memory"].rounds, sides[name].rounds, strict=True)
        if not (base.generator_bound or mine.generator_bound)
    ]
    key = "messages_per_second"
    return ratio_to(
        [base.figures[key] for base, _ in pairs], [mine.figures[key] for _, mine in pairs]
    )


def changed(value: Spread) -> str:
    """Say a ratio in percent when near to 1, in times when far from it."""
    median = value.median
    if median >= 2:
        return f"{figure(median)} times the"
    if median >= 1:
        return f"{share(median - 1)} more"
    if median > 0.1:
        return f"{share(1 - median)} less"
    return f"1/{figure(1 / median)} of the" if median else "none of the"


# --- The report -----------------------------------------------------------------------------------


def pivot(title: str, rows: Sequence[Row], names: Sequence[str], baseline: str = BASELINE) -> Table:
    """Return a row for each figure: the baseline's medians, and the others as ratios to them."""
    found = {row.name: row for row in rows}
    sides = list(dict.fromkeys(row.name.partition(".")[0] for row in rows))
    others = [side for side in sides if side != baseline]
    return plain_table(
        title,
        ("Figure", "Unit", f"{baseline}|", *(f"{side}|times {baseline}" for side in others)),
        (
            (
                FIGURE[name].title,
                FIGURE[name].unit,
                _median(found[f"{baseline}.{name}"]),
                *(_ratio(found[f"{side}.{name}"]) for side in others),
            )
            for name in names
        ),
        f"[ ] lowest and highest round; ! worse than {baseline} in every one, by 3% or more.",
    )


def _median(row: Row) -> Any:  # noqa: ANN401 - a cell of any kind
    return figure_cell(
        None if row.measured is None else row.measured.median, row.remark or "not known"
    )


def _ratio(row: Row) -> Any:  # noqa: ANN401 - a cell of any kind
    return ratio_cell(row.ratio, row.verdict, f"{row.text}: {row.remark or 'no ratio'}")


def _tables(result: Result[Any]) -> list[Table]:
    return [pivot("Strategies compared: medians, and ratios within rounds", result.rows, HEADLINES)]


def _more(result: Result[Any]) -> Iterator[Block]:
    rest = [each.name for each in FIGURES if each.name not in HEADLINES]
    yield pivot("The other figures", result.rows, rest)
    yield rounds_plot(result.sides, FIGURE["messages_per_second"])
    yield bars_plot("bytes", "Bytes for a message", result.rows, _BYTES)
    yield bars_plot(
        "recovery",
        "Time to come back after kill -9",
        result.rows,
        ("restart_seconds", "restore_seconds"),
    )
    latencies = {
        name: latency
        for name, side in result.sides.items()
        if (latency := latency_of(each.load for each in side.valid if each.load)) is not None
    }
    yield spectrum_plot(
        "latency", "Latency of all operations of all rounds", latencies, "sending or due time"
    )
    runs = sorted(
        (each.number, each.position, name, each)
        for name, side in result.sides.items()
        for each in side.rounds
    )
    yield plain_table(
        "Every run, in the order in which they ran",
        ("Round|", "Place|", "Variant", "Throughput|messages/s", "p99|ms", "Generator|of a core"),
        (
            (
                number,
                position,
                name,
                each.figures["messages_per_second"],
                each.figures["p99_ms"],
                each.load and each.load.generator.cpu_share,
            )
            for number, position, name, each in runs
        ),
    )
    yield plain_table(
        "What the figures mean",
        ("Figure", "Unit", "Meaning"),
        ((each.title, each.unit, each.meaning) for each in FIGURES),
    )


def caveats(result: Result[Any]) -> list[str]:
    """Return what the way of loading takes away; the generator ran on the service's machine."""
    loads = [each.load for side in result.sides.values() for each in side.rounds if each.load]
    if not loads:
        return []
    busiest = max(load.generator.cpu_share for load in loads)
    shared = f"Generator and service shared {result.environment.cpus} CPUs"
    told = [f"{shared}; the generator took up to {share(busiest)} of one."]
    if any(load.model == "closed loop" for load in loads):
        told.append(
            "The loop was closed: latency is that of a saturated service and falls as throughput"
            " rises. For latency at a load of your choice, set --rate."
        )
    shortest = min(load.duration_seconds for load in loads)
    if shortest < _SHORT_SECONDS:
        told.append(f"A run measured {shortest:g} s only; rare pauses may be missed or weigh much.")
    rounds = max(len(side.rounds) for side in result.sides.values())
    told.append(
        f"With {rounds} rounds, a figure without any real difference falls on one side of 1 every"
        f" time with a chance of {share(0.5 ** (rounds - 1))}."
    )
    return told


LOOK = Look(
    "Persistence strategies compared",
    "Each run has a service process, a journal and channels of its own. It is warmed up, measured,"
    " killed with SIGKILL (memory: stopped), started again on the same data, and every channel is"
    " restored and must carry a message each way. A round runs each variant once, in an order drawn"
    " from the seed. The generator is the peer of every channel and compares every byte."
    f" {NO_WINDOW}",
    _tables,
    lambda result: tuple(_more(result)),
    opening=lambda result: (ratio_plot(result.rows, HEADLINES),),
    has_rows=False,
    caveats=caveats,
)
