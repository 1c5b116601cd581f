"""``loadgen audit``: runs the whole plan and returns what it showed."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from loadgen.audit.capacity import find_capacity
from loadgen.audit.figures import FigureBook
from loadgen.audit.micro import measure_round
from loadgen.audit.results import AuditResult, CapacitySearch, ShapeResult
from loadgen.audit.rows import AWAITING, FORWARDING, claim_rows, missed_rows
from loadgen.audit.settings import AuditSettings
from loadgen.audit.shapes import SHAPES
from loadgen.compare import BASELINE, VARIANTS, run_rounds, summarise, warnings_of
from loadgen.environment import describe_environment
from loadgen.progress import CommandProgress
from loadgen.results import Round
from loadgen.trial import Variant

__all__ = ["execute_audit"]

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
    """Measure everything and judge every claim.

    Raises:
        ServiceError: a service did not start, or died.
        TransportError: a service could not be reached, or did not recover what it held.
        MetricsError: a service's counters could not be read.
    """
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    begun = time.monotonic()
    figures = FigureBook()
    progress.step("within one process")
    figures.add_micro([measure_round() for _ in range(settings.rounds)])
    with progress.within("saturated, "):
        saturated = await run_rounds(VARIANTS, settings.rounds, settings, progress)
    figures.add_saturated(saturated)
    bearable = summarise(saturated[BASELINE], saturated[BASELINE]).figures["messages_per_second"]
    # Nothing was answered at all: the warnings say why, and any rate will do.
    rate = 1_000.0 if bearable is None else max(bearable.median, 1.0)
    paced_rate = rate * _PACED_SHARE
    paced_settings = settings.model_copy(update={"rate": str(paced_rate)})
    with progress.within("paced, "):
        paced = await run_rounds(DURABLE, settings.rounds, paced_settings, progress, recovers=False)
    figures.add_paced(paced)
    with progress.within("routers, "):
        routers = await run_rounds(
            ROUTERS, _at_most(_ROUNDS_OF_SEARCH, settings), settings, progress, recovers=False
        )
    with progress.within("capacity, "):
        capacity = await _find_capacities(settings, rate * _CAPACITY_START, progress)
    figures.add_capacity(capacity)
    with progress.within("shapes, "):
        shapes, shape_warnings = await _run_shapes(settings, progress)
    return AuditResult(
        started_at=started_at,
        seconds=time.monotonic() - begun,
        settings=settings.model_dump(mode="json"),
        environment=describe_environment(Path(tempfile.gettempdir())),
        rows=claim_rows(figures),
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
    )


def _at_most(rounds: int, settings: AuditSettings) -> int:
    return 1 if settings.quick else min(rounds, settings.rounds)


async def _find_capacities(
    settings: AuditSettings, rate: float, progress: CommandProgress
) -> dict[str, list[CapacitySearch]]:
    start = max(int(rate / settings.channel_rate), 1)
    found: dict[str, list[CapacitySearch]] = {variant.name: [] for variant in DURABLE}
    rounds = _at_most(_ROUNDS_OF_SEARCH, settings)
    for number in range(1, rounds + 1):
        for variant in DURABLE:
            with progress.within(f"round {number} of {rounds}, {variant.name}: "):
                found[variant.name].append(await find_capacity(variant, settings, start, progress))
    return found


async def _run_shapes(
    settings: AuditSettings, progress: CommandProgress
) -> tuple[list[ShapeResult], list[str]]:
    results, warnings = [], []
    shapes = [shape for shape in SHAPES if shape.is_quick or not settings.quick]
    for number, shape in enumerate(shapes, 1):
        with progress.within(f"{number} of {len(shapes)}, {shape.name}, "):
            done = await run_rounds(
                shape.variants(),
                _at_most(_ROUNDS_OF_SHAPES, settings),
                shape.settings(settings),
                progress,
            )
        warnings.extend(_labelled(shape.name, done))
        results.append(
            ShapeResult(
                axis=shape.axis,
                value=shape.value,
                variants={name: summarise(rounds, done[BASELINE]) for name, rounds in done.items()},
            )
        )
    return results, warnings


def _labelled(part: str, done: Mapping[str, Sequence[Round]]) -> list[str]:
    return [f"{part}, {warning}" for warning in warnings_of(done)]
