"""What a comparison's figures say, by rule: which differences stand, which way, in which words.

A difference stands if every round shows it and its median is material. No sentence here is fixed in
advance: each comes out of the figures of the result at hand, whichever way these point.
"""

from collections.abc import Sequence
from enum import Enum

from loadgen.figures import FIGURES, Figure
from loadgen.report.numbers import figure as written
from loadgen.report.numbers import ratio_with_spread, share
from loadgen.results import CompareResult, Ratio, VariantFigures
from loadgen.statistics import ratio_to

__all__ = [
    "FIGURE",
    "Verdict",
    "answer",
    "baseline_of",
    "ceiling_of",
    "chance_of_one_side",
    "contenders",
    "verdict_on",
    "what_got_worse",
]

# A median nearer to 1 than this is no difference that anybody would act on.
_MATERIAL = 0.01

FIGURE = {figure.name: figure for figure in FIGURES}


class Verdict(Enum):
    """What all rounds together say of a ratio to the baseline."""

    BETTER = "better in every round"
    WORSE = "worse in every round"
    OPEN = "no difference that every round shows"


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
    if abs(value.median - 1) < _MATERIAL or value.low <= 1 <= value.high:
        return Verdict.OPEN
    return Verdict.BETTER if (value.low > 1) == figure.more_is_better else Verdict.WORSE


def what_got_worse(result: CompareResult) -> list[str]:
    """Return a sentence for each figure of a contender that is worse in every round."""
    return [
        f"{variant.name}: {_title(figure)} {ratio_with_spread(value)} times that of"
        f" {result.baseline}{_against(result, variant, figure)}"
        for variant in contenders(result)
        for figure in FIGURES
        if (value := variant.summary.ratios[figure.name]) is not None
        and verdict_on(figure, value) is Verdict.WORSE
    ]


def answer(result: CompareResult) -> str:
    """Return, in a paragraph, what the contenders cost and carry beside the baseline."""
    sentences = [_about(result, variant) for variant in contenders(result)]
    if (ceiling := ceiling_of(result)) is not None:
        sentences.append(_about_ceiling(result, ceiling))
    return " ".join(sentence for sentence in sentences if sentence)


_ASKED: Sequence[tuple[str, str, str]] = (
    ("record_bytes_per_message", "record bytes per message", "wrote"),
    ("disk_write_bytes_per_message", "disk bytes per message", "caused"),
    ("cpu_seconds_per_1000_messages", "CPU time per message", "took"),
    ("messages_per_second", "messages per second", "carried"),
    ("p99_ms", "p99 latency", "had"),
    ("restore_seconds", "recovery time", "had"),
)


def _about(result: CompareResult, variant: VariantFigures) -> str:
    parts = []
    for name, noun, verb in _ASKED:
        value = variant.summary.ratios[name]
        if (verdict := verdict_on(FIGURE[name], value)) is None or value is None:
            continue
        if verdict is Verdict.OPEN:
            parts.append(f"showed no steady difference in {noun} ({ratio_with_spread(value)})")
        else:
            parts.append(
                f"{verb} {_changed(value)} {noun}{_against(result, variant, FIGURE[name])}"
            )
    if not parts:
        return ""
    rounds = len(variant.rounds)
    over = "in the one round" if rounds == 1 else f"in every one of {rounds} rounds"
    return f"Beside {result.baseline}, {over}, {variant.name} {_listed(parts)}."


def _about_ceiling(result: CompareResult, ceiling: VariantFigures) -> str:
    throughput = FIGURE["messages_per_second"]
    at_most = [throughput.value(round_) for round_ in ceiling.rounds]
    reached = []
    for variant in result.variants:
        if variant is ceiling:
            continue
        value = ratio_to(at_most, [throughput.value(round_) for round_ in variant.rounds])
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


def _title(figure: Figure) -> str:
    return f"{figure.title}, {figure.unit}," if figure.unit else figure.title


def _listed(parts: Sequence[str]) -> str:
    *most, last = parts
    return f"{', '.join(most)} and {last}" if most else last
