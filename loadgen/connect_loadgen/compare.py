"""``loadgen compare``: the same load on each strategy, in rounds, and what each cost.

Every run has a service and a data directory of its own. A round runs each variant once, in an order
drawn from the seed, so no variant always profits from going first or suffers from going last.
"""

import random
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from connect_loadgen.experiment.environment import describe_environment
from connect_loadgen.experiment.figures import FIGURES, latency_of
from connect_loadgen.experiment.results import CompareResult, Round, VariantFigures, VariantSummary
from connect_loadgen.experiment.statistics import ratio_to, spread_of, valid_pairs
from connect_loadgen.probes.trial import Variant, run_trial
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.settings.load import CompareSettings, LoadSettings

__all__ = [
    "BASELINE",
    "VARIANTS",
    "execute_compare",
    "order_of_rounds",
    "run_in_order",
    "run_rounds",
    "shuffled_rounds",
    "summarise",
    "warnings_of",
]

_Each = TypeVar("_Each")

BASELINE = "full"
VARIANTS = (
    Variant("full", "full"),
    Variant("cached", "cached"),
    Variant("differential", "differential"),
    # What the service could do at most if persisting were free.
    Variant("memory", "differential", journal="memory"),
)


def order_of_rounds(
    rounds: int, seed: int, variants: Sequence[Variant] = VARIANTS
) -> list[list[Variant]]:
    """Return each round's variants in the order in which they run."""
    return shuffled_rounds(variants, rounds, seed)


def shuffled_rounds(each: Sequence[_Each], rounds: int, seed: int) -> list[list[_Each]]:
    """Return what takes turns, round by round, each round in an order of its own."""
    draw = random.Random(seed)  # noqa: S311 - an order to be repeated, not a secret
    return [draw.sample(each, len(each)) for _ in range(rounds)]


async def run_rounds(
    variants: Sequence[Variant],
    rounds: int,
    settings: LoadSettings,
    progress: CommandProgress,
    *,
    recovers: bool = True,
) -> dict[str, list[Round]]:
    """Run every variant once in every round; return the rounds by the variants' names.

    If the command ends early, these are the complete rounds until then, or none.

    Raises:
        ServiceError: a service did not start, or died.
        TransportError: a service could not be reached, or did not recover what it held.
        MetricsError: a service's counters could not be read.
    """
    orders = order_of_rounds(rounds, settings.seed, variants)
    done = await run_in_order(orders, settings, progress, recovers=recovers)
    return {variant.name: done[variant.name] for variant in variants}


async def run_in_order(
    orders: Sequence[Sequence[Variant]],
    settings: LoadSettings,
    progress: CommandProgress,
    *,
    recovers: bool = True,
) -> dict[str, list[Round]]:
    """Run rounds, each with the same variants in an order of its own; return them by name.

    If the command ends early, these are the complete rounds until then, or none.

    Raises:
        ServiceError: a service did not start, or died.
        TransportError: a service could not be reached, or did not recover what it held.
        MetricsError: a service's counters could not be read.
    """
    done: dict[str, list[Round]] = {variant.name: [] for variant in orders[0]}

    async def run_round(number: int, order: Sequence[Variant]) -> list[Round]:
        rounds = []
        for position, variant in enumerate(order, 1):
            with progress.within(f"round {number} of {len(orders)}, {variant.name}: "):
                trial = await run_trial(variant, settings, progress, recovers=recovers)
            rounds.append(
                Round(
                    number=number,
                    position=position,
                    load=trial.load,
                    cost=trial.cost,
                    recovery=trial.recovery,
                )
            )
        return rounds

    with suppress(Ended):
        for number, order in enumerate(orders, 1):
            rounds = await ending().part(run_round(number, order))
            for variant, round_ in zip(order, rounds, strict=True):
                done[variant.name].append(round_)
    return done


async def execute_compare(settings: CompareSettings, progress: CommandProgress) -> CompareResult:
    """Run all rounds and return what they showed.

    Raises:
        Ended: the command ended before a round was complete.
        ServiceError: a service did not start, or died.
        TransportError: a service could not be reached, or did not recover what it held.
        MetricsError: a service's counters could not be read.
    """
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    begun = time.monotonic()
    done = await run_rounds(VARIANTS, settings.rounds, settings, progress)
    if not done[BASELINE]:
        raise Ended(ending().reason)
    return CompareResult(
        started_at=started_at,
        seconds=time.monotonic() - begun,
        settings=settings.model_dump(mode="json"),
        environment=describe_environment(Path(tempfile.gettempdir())),
        cut_short=ending().reason,
        baseline=BASELINE,
        variants=[
            VariantFigures(
                name=variant.name,
                strategy=variant.strategy,
                journal=variant.journal,
                rounds=done[variant.name],
                summary=summarise(done[variant.name], done[BASELINE]),
            )
            for variant in VARIANTS
        ],
        warnings=warnings_of(done),
    )


def summarise(rounds: Sequence[Round], baseline: Sequence[Round]) -> VariantSummary:
    """Return one variant's figures over its valid rounds, and their ratios to the baseline's."""
    valid = [round_ for round_ in rounds if round_.is_valid]
    bases, beside = valid_pairs(baseline, rounds)
    figures, ratios = {}, {}
    for figure in FIGURES:
        figures[figure.name] = spread_of([figure.value(round_) for round_ in valid])
        ratios[figure.name] = ratio_to(
            [figure.value(round_) for round_ in bases], [figure.value(round_) for round_ in beside]
        )
    return VariantSummary(
        figures=figures,
        ratios=ratios,
        latency_all_rounds=latency_of(valid),
        rounds_left_out=len(rounds) - len(valid),
    )


def warnings_of(done: Mapping[str, Sequence[Round]]) -> list[str]:
    """Return what a reader of these rounds has to know, a line each."""
    warnings: list[str] = []
    for name, rounds in done.items():
        for round_ in rounds:
            load, where = round_.load, f"{name}, round {round_.number}"
            if load.stopped is not None:
                warnings.append(f"{where}: stopped early: {load.stopped}")
            if not round_.is_valid:
                warnings.append(f"{where}: {load.generator.verdict}; the round is left out")
            warnings.extend(f"{where}: {text}" for text in load.generator.warnings)
            if load.skipped_at_cap:
                warnings.append(
                    f"{where}: {load.skipped_at_cap} sends were skipped at the cap on what is in"
                    " flight: the service did not keep up with the rate"
                )
            if load.verification_failures:
                warnings.append(f"{where}: {load.verification_failures} answers were WRONG")
            if load.errors:
                warnings.append(f"{where}: operations failed: {load.errors}")
            if (back := round_.recovery) is not None and back.verified_channels < back.channels:
                warnings.append(
                    f"{where}: after the restart only {back.verified_channels} of {back.channels}"
                    " channels carried a message each way UNHARMED"
                )
    return warnings
