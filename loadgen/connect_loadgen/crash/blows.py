"""When to kill: a seeded plan of moments, each counted from something that can be seen happen."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random

__all__ = ["Blow", "Phase", "plan_blows"]


class Phase(StrEnum):
    """What the service is doing, as seen from outside."""

    STARTING = "starting"
    """The process exists and has not said that it is ready."""
    RECOVERING = "recovering"
    """Ready, with every channel asked for at once; not all of them are proved."""
    UNDER_LOAD = "under load"
    """Every channel has been proved since the start."""
    DRAINING = "draining"
    """Told to stop (SIGTERM) under load, and not ended."""


@dataclass(frozen=True, slots=True)
class Blow:
    """One kill that is planned; it may hit another phase than it is meant for."""

    phase: Phase
    share: float
    """Of the time that the phase is thought to take, 0 to 1."""


# Half of the kills under load, since that is where most can be lost.
_WEIGHTS = {
    Phase.STARTING: 3,
    Phase.RECOVERING: 5,
    Phase.UNDER_LOAD: 10,
    Phase.DRAINING: 2,
}
# Of the kills meant for a start, those within the first hundredth of it: milliseconds.
_AT_ONCE = 0.25


def plan_blows(random: Random) -> Iterator[Blow]:
    """Yield the kills of a run, without end."""
    phases, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    while True:
        phase = random.choices(phases, weights)[0]
        share = random.random()
        if phase is Phase.STARTING and random.random() < _AT_ONCE:
            share /= 100
        yield Blow(phase, share)
