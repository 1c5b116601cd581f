"""Sides that are a load whose peers answer each other: what it did, what each message cost."""

from collections.abc import Mapping

from connect_loadgen.drive.figures import LoadFigures
from connect_loadgen.drive.load import Progress
from connect_loadgen.drive.salvo import MeasureError
from connect_loadgen.experiment.figures import latency_of_loads
from connect_loadgen.experiment.model import Side
from connect_loadgen.probes.trial import Variant, run_trial
from connect_loadgen.reach.results import Seen
from connect_loadgen.service.cost import Cost
from connect_loadgen.settings.load import LoadSettings

__all__ = ["load_side", "require_right", "seen_of"]


def load_side(name: str, variant: Variant, load: LoadSettings) -> Side:
    """Return the side that puts this load on a service of this variant."""

    async def measure(progress: Progress) -> Seen:
        trial = await run_trial(variant, load, progress, recovers=False)
        return seen_of(trial.load, trial.cost)

    return Side(name, measure)


def require_right(wrong: int, errors: Mapping[str, int]) -> None:
    """Refuse figures of a load that was not served.

    Raises:
        MeasureError: an answer was wrong, or an operation failed.
    """
    if wrong:
        raise MeasureError(f"{wrong} answers were WRONG")
    if errors:
        raise MeasureError(f"operations failed: {dict(errors)}")


def seen_of(load: LoadFigures, cost: Cost) -> Seen:
    """Return what a load showed.

    Raises:
        MeasureError: it was not served.
    """
    require_right(load.verification_failures, load.errors)
    latency = latency_of_loads([load])

    def per_message(amount: float | None) -> float | None:
        return None if amount is None or not cost.messages else amount / cost.messages

    cpu = per_message(cost.cpu_seconds)
    return Seen(
        figures={
            "per_second": load.messages_per_second,
            "cpu_us": None if cpu is None else cpu * 1e6,
            "p99_ms": None if latency is None else latency.p99_us / 1_000,
            "allocated_bytes": per_message(cost.allocated_bytes),
            "generator_cpu_share": load.generator.cpu_share,
        },
        generator_bound=bool(load.generator.warnings),
    )
