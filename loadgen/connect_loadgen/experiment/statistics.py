"""Figures over rounds: medians, spreads, and ratios within a round.

A ratio compares two runs of the same round, minutes apart at most, so that what changes slowly (a
neighbour on the machine, the disk's mood) falls out of it; the spread over the rounds says how far
to trust it.
"""

import statistics
from collections.abc import Sequence

from connect_loadgen.experiment.results import Ratio, Round, Spread

__all__ = ["ratio_to", "spread_of", "valid_pairs"]


def spread_of(values: Sequence[float | None]) -> Spread | None:
    """Return median, lowest and highest; nothing if a value is missing or there is none."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return Spread(median=statistics.median(known), low=min(known), high=max(known))


def ratio_to(baseline: Sequence[float | None], values: Sequence[float | None]) -> Ratio | None:
    """Return the spread of ``values`` divided by ``baseline``, round by round.

    Nothing comes of it if a value is missing or a baseline is 0. Values of the same position are of
    the same round.
    """
    ratios = [
        None if value is None or not base else value / base
        for base, value in zip(baseline, values, strict=True)
    ]
    spread = spread_of(ratios)
    return None if spread is None else Ratio(**spread.model_dump())


def valid_pairs(
    baseline: Sequence[Round], rounds: Sequence[Round]
) -> tuple[list[Round], list[Round]]:
    """Return the rounds in which the generator was the limit of neither, and so comparable."""
    pairs = [
        (base, round_)
        for base, round_ in zip(baseline, rounds, strict=True)
        if base.is_valid and round_.is_valid
    ]
    return [base for base, _ in pairs], [round_ for _, round_ in pairs]
