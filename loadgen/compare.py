"""``loadgen compare``: the same load on each strategy, in rounds, and what each cost.

Every run has a service and a data directory of its own. A round runs each variant once, in an order
drawn from the seed, so no variant always profits from going first or suffers from going last.
"""

import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from loadgen.environment import describe_environment
from loadgen.figures import FIGURES, latency_of
from loadgen.load import establish, put_load
from loadgen.peer import PeerEnd
from loadgen.progress import CommandProgress
from loadgen.recovery import recover
from loadgen.results import CompareResult, Cost, LoadFigures, Round, VariantFigures, VariantSummary
from loadgen.service_cost import MeteredProcess, MetricsError, take
from loadgen.service_process import DEFAULT_COMMAND, ServiceOptions, ServiceProcess
from loadgen.settings import CompareSettings, JournalName, StrategyName
from loadgen.statistics import ratio_to, spread_of
from loadgen.transport import open_transport

__all__ = [
    "BASELINE",
    "VARIANTS",
    "Variant",
    "execute_compare",
    "order_of_rounds",
    "summarise",
]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the service that is compared."""

    name: str
    strategy: StrategyName
    journal: JournalName

    @property
    def is_durable(self) -> bool:
        """Whether there is anything to recover from."""
        return self.journal != "memory"


BASELINE = "full"
VARIANTS = (
    Variant("full", "full", "sqlite"),
    Variant("cached", "cached", "sqlite"),
    Variant("differential", "differential", "sqlite"),
    # What the service could do at most if persisting were free.
    Variant("memory", "differential", "memory"),
)


def order_of_rounds(rounds: int, seed: int) -> list[list[Variant]]:
    """Return each round's variants in the order in which they run."""
    draw = random.Random(seed)  # noqa: S311 - an order to be repeated, not a secret
    return [draw.sample(VARIANTS, len(VARIANTS)) for _ in range(rounds)]


async def execute_compare(settings: CompareSettings, progress: CommandProgress) -> CompareResult:
    """Run all rounds and return what they showed.

    Raises:
        ServiceError: a service did not start, or died.
        TransportError: a service could not be reached, or did not recover what it held.
        MetricsError: a service's counters could not be read.
    """
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    begun = time.monotonic()
    done: dict[str, list[Round]] = {variant.name: [] for variant in VARIANTS}
    for number, variants in enumerate(order_of_rounds(settings.rounds, settings.seed), 1):
        for position, variant in enumerate(variants, 1):
            progress.part(f"round {number} of {settings.rounds}, {variant.name}: ")
            with tempfile.TemporaryDirectory(prefix="loadgen-") as data_dir:
                round_ = await _run_once(
                    variant, Path(data_dir), settings, progress, (number, position)
                )
            done[variant.name].append(round_)
    return CompareResult(
        started_at=started_at,
        seconds=time.monotonic() - begun,
        settings=settings.model_dump(mode="json"),
        environment=describe_environment(Path(tempfile.gettempdir())),
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
        warnings=_warnings(done),
    )


def summarise(rounds: Sequence[Round], baseline: Sequence[Round]) -> VariantSummary:
    """Return one variant's figures over the rounds, and their ratios to the baseline's."""
    figures, ratios = {}, {}
    for figure in FIGURES:
        values = [figure.value(round_) for round_ in rounds]
        figures[figure.name] = spread_of(values)
        ratios[figure.name] = ratio_to([figure.value(round_) for round_ in baseline], values)
    return VariantSummary(figures=figures, ratios=ratios, latency_all_rounds=latency_of(rounds))


async def _run_once(
    variant: Variant,
    data_dir: Path,
    settings: CompareSettings,
    progress: CommandProgress,
    place: tuple[int, int],
) -> Round:
    options = ServiceOptions(
        strategy=variant.strategy,
        journal=variant.journal,
        data_dir=data_dir,
        command=settings.service_command or DEFAULT_COMMAND,
    )
    progress.step("starting the service")
    async with ServiceProcess(options, settings.timeout_seconds) as service:
        load, cost, ends = await service.while_alive(_load(service, settings, progress))
        if variant.is_durable:
            await service.kill()
        else:
            await service.stop()
    recovery = None
    if variant.is_durable:
        progress.step("recovering after kill -9")
        recovery = await recover(options, ends, settings)
    number, position = place
    return Round(number=number, position=position, load=load, cost=cost, recovery=recovery)


async def _load(
    service: ServiceProcess, settings: CompareSettings, progress: CommandProgress
) -> tuple[LoadFigures, Cost, list[PeerEnd]]:
    progress.step(f"establishing {settings.channels} channels")
    async with open_transport(service.listen, settings) as transport:
        ends = await establish(transport, settings, service.listen, service.identity)
        read = partial(take, service.metrics, MeteredProcess.of(service))
        load, cost = await put_load(transport, ends, settings, read=read, progress=progress)
    if cost is None:
        raise MetricsError("the service's counters were not read")
    return load, cost, ends


def _warnings(done: dict[str, list[Round]]) -> list[str]:
    warnings: list[str] = []
    for name, rounds in done.items():
        for round_ in rounds:
            load, where = round_.load, f"{name}, round {round_.number}"
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
    return warnings
