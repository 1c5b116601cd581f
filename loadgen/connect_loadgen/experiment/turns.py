"""The sides of a group take turns, round by round; what fails once is not tried again."""

from collections.abc import Sequence
from contextlib import suppress

from connect_loadgen.compare import shuffled_rounds
from connect_loadgen.drive.salvo import MeasureError
from connect_loadgen.drive.transport import TransportError
from connect_loadgen.experiment.model import Side
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.reach.results import Seen, SideResult
from connect_loadgen.service.cost import MetricsError
from connect_loadgen.service.process import ServiceError

__all__ = ["take_turns"]


async def take_turns(
    sides: Sequence[Side], rounds: int, seed: int, progress: CommandProgress
) -> list[SideResult]:
    """Measure each side once in each round, in an order drawn from the seed.

    A side that can't be measured takes nothing from the others: its failure is its result. If the
    command ends early, the result has the complete rounds until then, or none.
    """
    seen: dict[str, list[Seen]] = {side.name: [] for side in sides}
    failures: dict[str, str] = {}

    async def take(number: int, order: Sequence[Side]) -> dict[str, Seen]:
        found = {}
        for side in order:
            if side.name in failures:
                continue
            with progress.within(f"round {number} of {rounds}, {side.name}: "):
                try:
                    found[side.name] = await side.measure(progress)
                except (MeasureError, MetricsError, ServiceError, TransportError) as error:
                    failures[side.name] = f"{side.name}, round {number}: {_briefly(error)}"
                    progress.note(failures[side.name])
        return found

    with suppress(Ended):
        for number, order in enumerate(shuffled_rounds(sides, rounds, seed), 1):
            for name, one in (await ending().part(take(number, order))).items():
                seen[name].append(one)
    return [
        SideResult(name=side.name, rounds=seen[side.name], failure=failures.get(side.name))
        for side in sides
    ]


def _briefly(error: Exception) -> str:
    """Return what it says first, and the end of a log that it quotes: that names the cause."""
    first, *more = str(error).splitlines() or [type(error).__name__]
    return f"{first}: {more[-1].strip()}" if more else first
