"""What a comparison's figures say, by rule: which differences stand, which way, in which words.

A difference stands if every round shows it and its median is material. No sentence here is fixed in
advance: each comes out of the figures of the result at hand, whichever way these point.
"""

from collections.abc import Sequence
from enum import Enum

from connect_loadgen.experiment.figures import FIGURES, Figure
from connect_loadgen.experiment.numbers import figure as written
from connect_loadgen.experiment.numbers import ratio_with_spread, share
from connect_loadgen.experiment.results import CompareResult, Ratio, VariantFigures
from connect_loadgen.experiment.statistics import ratio_to, valid_pairs

__all__ = [
    "FIGURE",
    "MATERIAL",
    "Verdict",
    "answer",
    "baseline_of",
    "ceiling_of",
    "chance_of_one_side",
    "contenders",
    "nothing_worse",
    "verdict_on",
    "what_got_worse",
]

# A median nearer to 1 than this is no difference that anybody would act on.
MATERIAL = 0.03

# Says again, as a rate, what another figure says.
_RESTATED = frozenset({"restored_channels_per_second"})

FIGURE = {figure.name: figure for figure in FIGURES}


class Verdict(Enum):
    """What all rounds together say of a ratio to the baseline."""

    BETTER = "better in every round"
    WORSE = "worse in every round"
    OPEN = "no difference that every round shows"


def nothing_worse(result: CompareResult) -> str:
    """Return how to say that ``what_got_worse`` is empty."""
    if not any(any(variant.summary.ratios.values()) for variant in contenders(result)):
        return f"No round allows a comparison with {result.baseline}: no verdict."
    return f"No figure is worse than with {result.baseline} in every round."


def baseline_of(result: CompareResult) -> VariantFigures:
    """Return the variant that the others are divided by."""
    return next(variant for variant in result.variants if variant.name == result.baseline)


def contenders(result: CompareResult) -> list[VariantFigures]:
    """Return the durable variants that the baseline is compared with."""
    return [
        variant
        for variant in result.variants
        if variant.name != result.baseline and variant.journal != "memory"
    ]


def ceiling_of(result: CompareResult) -> VariantFigures | None:
    """Return the variant that persists nothing, if there is one."""
    return next((variant for variant in result.variants if variant.journal == "memory"), None)


def chance_of_one_side(rounds: int) -> float:
    """Return how likely all rounds fall on one side of 1 when there is no difference at all."""
    return 0.5 ** (rounds - 1)


def verdict_on(figure: Figure, value: Ratio | None) -> Verdict | None:
    """Return what the rounds say; nothing if more is neither better nor worse, or no ratio."""
    if value is None or figure.more_is_better is None:
        return None
    if abs(value.median - 1) < MATERIAL or value.low <= 1 <= value.high:
        return Verdict.OPEN
    return Verdict.BETTER if (value.low > 1) == figure.more_is_better else Verdict.WORSE


def what_got_worse(result: CompareResult) -> list[str]:
    """Return a sentence for each figure of a contender that is worse in every round."""
    return [
        f"{variant.name}: {figure.title} {ratio_with_spread(value)} times that of"
        f" {result.baseline}{_against(result, variant, figure)}"
        for variant in contenders(result)
        for figure in FIGURES
        if figure.name not in _RESTATED
        and (value := variant.summary.ratios[figure.name]) is not None
        and verdict_on(figure, value) is Verdict.WORSE
    ]


def answer(result: CompareResult) -> list[str]:
    """Return what the contenders cost and carry beside the baseline, a statement for each."""
    statements = [_about(result, variant) for variant in contenders(result)]
    if (ceiling := ceiling_of(result)) is not None:
        statements.append(_about_ceiling(result, ceiling))
    return [statement for statement in statements if statement]


# What is told in the answer: the figure, and the noun that "1/3 of the" or "28% less" goes before.
_TOLD: Sequence[tuple[str, str]] = (
    ("record_bytes_per_message", "record bytes per message"),
    ("disk_write_bytes_per_message", "disk bytes per message"),
    ("cpu_seconds_per_1000_messages", "CPU time per message"),
    ("messages_per_second", "throughput"),
    ("p99_ms", "p99 latency"),
    ("restore_seconds", "recovery time"),
)


def _about(result: CompareResult, variant: VariantFigures) -> str:
    told: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
    for name, noun in _TOLD:
        value = variant.summary.ratios[name]
        if (verdict := verdict_on(FIGURE[name], value)) is None or value is None:
            continue
        told[verdict].append(
            noun
            if verdict is Verdict.OPEN
            else f"{_changed(value)} {noun}{_against(result, variant, FIGURE[name])}"
        )
    sentences = []
    better, worse = told[Verdict.BETTER], told[Verdict.WORSE]
    if better or worse:
        rounds = len(valid_pairs(baseline_of(result).rounds, variant.rounds)[0])
        over = "In the only round" if rounds == 1 else f"In each of {rounds} rounds"
        parts = [_listed(better)] if better else []
        parts += [f"for the worse {_listed(worse)}"] if worse else []
        sentences.append(
            f"{over}, {variant.name} had, beside {result.baseline}, {', but '.join(parts)}."
        )
    if told[Verdict.OPEN]:
        sentences.append(
            f"Between {variant.name} and {result.baseline} the rounds show no steady difference in"
            f" {_listed(told[Verdict.OPEN])}."
        )
    return " ".join(sentences)


def _about_ceiling(result: CompareResult, ceiling: VariantFigures) -> str:
    throughput = FIGURE["messages_per_second"]
    reached = []
    for variant in result.variants:
        if variant is ceiling:
            continue
        at_most, left = valid_pairs(ceiling.rounds, variant.rounds)
        value = ratio_to(
            [throughput.value(round_) for round_ in at_most],
            [throughput.value(round_) for round_ in left],
        )
        if value is not None:
            reached.append(
                f"{variant.name} {share(value.median)} ({share(value.low)} to {share(value.high)})"
            )
    if not reached:
        return ""
    return (
        f"Of the throughput that the service has when nothing is persisted ({ceiling.name}),"
        f" {_listed(reached)} is left."
    )


def _changed(value: Ratio) -> str:
    """Say a ratio as people do: percent when near to 1, times when far from it."""
    median = value.median
    if median >= 2:
        return f"{written(median)} times the"
    if median >= 1:
        return f"{share(median - 1)} more"
    if median > 0.1:
        return f"{share(1 - median)} less"
    return f"1/{written(1 / median)} of the" if median else "none of the"


def _against(result: CompareResult, variant: VariantFigures, figure: Figure) -> str:
    mine = variant.summary.figures[figure.name]
    base = baseline_of(result).summary.figures[figure.name]
    if mine is None or base is None:
        return ""
    unit = "" if figure.unit == "in all" else f" {figure.unit}"
    return f" ({written(mine.median)} against {written(base.median)}{unit})"


def _listed(parts: Sequence[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
