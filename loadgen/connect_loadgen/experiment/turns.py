"""Sides take turns: a round runs each once, in an order of its own drawn from the seed.

So no side always profits from going first, and a ratio compares two turns minutes apart at most:
noise that affects all sides of a round cancels out.
"""

import random
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeVar

from connect_loadgen.drive.salvo import MeasureError
from connect_loadgen.drive.transport import TransportError
from connect_loadgen.experiment.model import Probe
from connect_loadgen.experiment.results import Round, Side
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.service.cost import MetricsError
from connect_loadgen.service.process import ServiceError

__all__ = ["Turns", "shuffled_rounds"]

_Each = TypeVar("_Each")


def shuffled_rounds(each: Sequence[_Each], rounds: int, seed: int) -> list[list[_Each]]:
    """Return what takes turns, round by round, each round in an order of its own."""
    draw = random.Random(seed)  # noqa: S311 - an order to be repeated, not a secret
    return [draw.sample(each, len(each)) for _ in range(rounds)]


class Turns:
    """The turns of one command, and what they showed."""

    def __init__(self, seed: int, progress: CommandProgress, *, is_tolerant: bool = False) -> None:
        """Begin with nothing.

        Args:
            seed: of the orders.
            progress: told how it goes.
            is_tolerant: whether a side that can't be measured takes nothing from the others: its
                failure is its result, and it is not tried again.
        """
        self.sides: dict[str, Side] = {}
        """What was measured: complete rounds only."""
        self.left_out: list[str] = []
        self._seed = seed
        self._progress = progress
        self._is_tolerant = is_tolerant

    async def take(
        self,
        part: str,
        probes: Sequence[Probe],
        rounds: int,
        orders: Sequence[Sequence[Probe]] | None = None,
    ) -> dict[str, Side]:
        """Measure each side once in each round; return the sides.

        If the command ends early these have the complete rounds until then, or none.

        Args:
            part: what is measured, for progress and for what was left out; may be empty.
            probes: of the sides, each with a name of its own.
            rounds: how many.
            orders: of each round; by default drawn from the seed.

        Raises:
            ServiceError: a service did not start, or died.
            TransportError: a service could not be reached, or did not recover what it held.
            MetricsError: a service's counters could not be read.
            MeasureError: a figure could not be measured.
        """
        seen: dict[str, list[Round]] = {probe.name: [] for probe in probes}
        failures: dict[str, str] = {}
        progress, done = self._progress, 0

        async def run_round(number: int, order: Sequence[Probe]) -> dict[str, Round]:
            found = {}
            for position, probe in enumerate(order, 1):
                if probe.name in failures:
                    continue
                where = f"round {number} of {rounds}, {probe.name}: "
                with progress.within(f"{part}, {where}" if part else where):
                    try:
                        turn = await probe.measure(progress)
                    except (MeasureError, MetricsError, ServiceError, TransportError) as error:
                        if not self._is_tolerant:
                            raise
                        failures[probe.name] = f"{probe.name}, round {number}: {_briefly(error)}"
                        progress.note(failures[probe.name])
                        continue
                found[probe.name] = turn.model_copy(update={"number": number, "position": position})
            return found

        with suppress(Ended):
            for number, order in enumerate(
                orders or shuffled_rounds(probes, rounds, self._seed), 1
            ):
                for name, turn in (await ending().part(run_round(number, order))).items():
                    seen[name].append(turn)
                done += 1
        if done < rounds:
            left = f"{rounds - done} of {rounds} rounds" if done else ""
            self.left_out.append(", ".join(filter(None, (part, left))) or "all rounds")
        sides = {
            name: Side(name=name, rounds=turns, failure=failures.get(name))
            for name, turns in seen.items()
        }
        if done:
            self.sides |= sides
        return sides


def _briefly(error: Exception) -> str:
    """Return what it says first, and the end of a log that it quotes: that names the cause."""
    first, *more = str(error).splitlines() or [type(error).__name__]
    return f"{first}: {more[-1].strip()}" if more else first
