"""``loadgen audit``: runs the whole plan and returns what it showed."""

import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from connect_loadgen.audit.figures import FigureBook
from connect_loadgen.audit.micro import MicroRound, measure_round
from connect_loadgen.audit.results import AuditResult, CapacitySearch, ShapeResult
from connect_loadgen.audit.rows import AWAITING, FORWARDING, claim_rows, missed_rows
from connect_loadgen.audit.settings import AuditSettings
from connect_loadgen.audit.shapes import SHAPES
from connect_loadgen.compare import BASELINE, VARIANTS, run_rounds, summarise, warnings_of
from connect_loadgen.experiment.environment import describe_environment
from connect_loadgen.experiment.results import Round
from connect_loadgen.probes.capacity import find_capacity
from connect_loadgen.probes.trial import Variant
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.program.progress import CommandProgress

__all__ = ["QUICK_SECONDS", "execute_audit"]

QUICK_SECONDS = 280.0
"""What a quick audit may take, whatever the machine; the rest of five minutes is for the start of
the program and the report, which took 13 s on two cores with a load of 9."""

DURABLE = tuple(variant for variant in VARIANTS if variant.is_durable)
ROUTERS = (
    Variant(FORWARDING, "full"),
    Variant(AWAITING, "full", router="awaiting"),
)

# Of what full bears in a closed loop: enough to matter, little enough to leave it room.
_PACED_SHARE = 0.6
# Of the same, where the search for the most channels begins.
_CAPACITY_START = 0.5
# A search is many short loads, and shapes are many; these are rounds enough for a spread.
_ROUNDS_OF_SHAPES = 2
_ROUNDS_OF_SEARCH = 3


async def execute_audit(settings: AuditSettings, progress: CommandProgress) -> AuditResult:
    """Measure everything, the most important first, and judge every claim.

    A quick audit ends when its time is up, as at a signal: with what it has, and what it left out.

    Raises:
        Ended: the command ended before anything was measured.
        ServiceError: a service did not start, or died.
        TransportError: a service could not be reached, or did not recover what it held.
        MetricsError: a service's counters could not be read.
    """
    if not settings.quick:
        return await _audit(settings, progress)
    timer = asyncio.get_running_loop().call_later(
        QUICK_SECONDS, ending().end, f"the {QUICK_SECONDS:g} s of a quick audit were over"
    )
    try:
        return await _audit(settings, progress)
    finally:
        timer.cancel()


async def _audit(settings: AuditSettings, progress: CommandProgress) -> AuditResult:
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    begun = time.monotonic()
    figures, left_out = FigureBook(), _LeftOut()
    progress.step("within one process")
    micro: list[MicroRound] = []
    while ending().reason is None and len(micro) < settings.rounds:
        micro.append(measure_round())
        # What ends the command is heeded between two rounds.
        await asyncio.sleep(0)
    left_out.note("within one process", len(micro), settings.rounds)
    figures.add_micro(micro)
    with progress.within("saturated, "):
        saturated = await run_rounds(VARIANTS, settings.rounds, settings, progress)
    left_out.note("saturated", len(saturated[BASELINE]), settings.rounds)
    figures.add_saturated(saturated)
    if not micro and not saturated[BASELINE]:
        raise Ended(ending().reason)
    bearable = summarise(saturated[BASELINE], saturated[BASELINE]).figures["messages_per_second"]
    # Nothing valid was answered at all: the warnings say why, and any rate will do.
    rate = 1_000.0 if bearable is None else max(bearable.median, 1.0)
    paced_rate = rate * _PACED_SHARE
    paced_settings = settings.model_copy(update={"rate": str(paced_rate)})
    with progress.within("paced, "):
        paced = await run_rounds(DURABLE, settings.rounds, paced_settings, progress, recovers=False)
    left_out.note("paced", len(paced[BASELINE]), settings.rounds)
    figures.add_paced(paced)
    searches = _at_most(_ROUNDS_OF_SEARCH, settings)
    with progress.within("capacity, "):
        capacity = await _find_capacities(settings, rate * _CAPACITY_START, searches, progress)
    left_out.note("capacity", len(capacity[BASELINE]), searches)
    figures.add_capacity(capacity)
    with progress.within("routers, "):
        routers = await run_rounds(ROUTERS, searches, settings, progress, recovers=False)
    left_out.note("routers", len(routers[FORWARDING]), searches)
    with progress.within("shapes, "):
        shapes, shape_warnings = await _run_shapes(settings, progress, left_out)
    return AuditResult(
        started_at=started_at,
        seconds=time.monotonic() - begun,
        settings=settings.model_dump(mode="json"),
        environment=describe_environment(Path(tempfile.gettempdir())),
        cut_short=ending().reason,
        rows=claim_rows(figures, is_complete=ending().reason is None),
        missed=missed_rows(routers),
        shapes=shapes,
        capacity=capacity,
        saturated=saturated,
        paced=paced,
        paced_rate=paced_rate,
        routers=routers,
        warnings=[
            *_labelled("saturated", saturated),
            *_labelled("paced", paced),
            *_labelled("routers", routers),
            *shape_warnings,
        ],
        left_out=left_out.parts,
    )


class _LeftOut:
    """What was planned and not done."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def note(self, part: str, done: int, planned: int) -> None:
        """Note how many rounds of a part were done."""
        if not done:
            self.parts.append(part)
        elif done < planned:
            self.parts.append(f"{part}, {planned - done} of {planned} rounds")


def _at_most(rounds: int, settings: AuditSettings) -> int:
    return 1 if settings.quick else min(rounds, settings.rounds)


async def _find_capacities(
    settings: AuditSettings, rate: float, rounds: int, progress: CommandProgress
) -> dict[str, list[CapacitySearch]]:
    start = max(int(rate / settings.channel_rate), 1)
    found: dict[str, list[CapacitySearch]] = {variant.name: [] for variant in DURABLE}

    async def search_each(number: int) -> list[CapacitySearch]:
        searches = []
        for variant in DURABLE:
            with progress.within(f"round {number} of {rounds}, {variant.name}: "):
                searches.append(await find_capacity(variant, settings, start, progress))
        return searches

    with suppress(Ended):
        for number in range(1, rounds + 1):
            searches = await ending().part(search_each(number))
            for variant, search in zip(DURABLE, searches, strict=True):
                found[variant.name].append(search)
    return found


async def _run_shapes(
    settings: AuditSettings, progress: CommandProgress, left_out: _LeftOut
) -> tuple[list[ShapeResult], list[str]]:
    results, warnings = [], []
    shapes = [shape for shape in SHAPES if shape.is_quick or not settings.quick]
    rounds = _at_most(_ROUNDS_OF_SHAPES, settings)
    for number, shape in enumerate(shapes, 1):
        with progress.within(f"{number} of {len(shapes)}, {shape.name}, "):
            done = await run_rounds(shape.variants(), rounds, shape.settings(settings), progress)
        left_out.note(shape.name, len(done[BASELINE]), rounds)
        if done[BASELINE]:
            warnings.extend(_labelled(shape.name, done))
            results.append(
                ShapeResult(
                    axis=shape.axis,
                    value=shape.value,
                    variants={name: summarise(each, done[BASELINE]) for name, each in done.items()},
                )
            )
    return results, warnings


def _labelled(part: str, done: Mapping[str, Sequence[Round]]) -> list[str]:
    return [f"{part}, {warning}" for warning in warnings_of(done)]
