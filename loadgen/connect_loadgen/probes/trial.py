"""A trial: one load on one fresh service, its cost, and how the service comes back from kill -9."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from connect_loadgen.drive.figures import LoadFigures
from connect_loadgen.drive.fleet import open_load
from connect_loadgen.drive.load import Progress, put_load
from connect_loadgen.drive.peer import PeerEnd
from connect_loadgen.experiment.figures import round_of
from connect_loadgen.experiment.model import Probe
from connect_loadgen.experiment.results import Round
from connect_loadgen.probes.recovery import recover
from connect_loadgen.program.scratch import scratch_directory
from connect_loadgen.service.cost import Cost, MetricsError, take
from connect_loadgen.service.process import DEFAULT_COMMAND, ServiceOptions, ServiceProcess
from connect_loadgen.settings.load import JournalName, LoadSettings, RouterName, StrategyName

__all__ = ["Variant", "on_fresh_service", "run_trial", "trial_probe"]

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to run the service that is compared with others."""

    name: str
    strategy: StrategyName
    journal: JournalName = "sqlite"
    router: RouterName = "forwarding"
    dh_ratchet_every: int = 10
    snapshot_interval: int = 50
    command: tuple[str, ...] | None = None
    """What starts it; nothing if all variants start as the settings say."""
    flags: tuple[str, ...] = ()
    """Further flags of ``serve``."""

    @property
    def is_durable(self) -> bool:
        """Whether there is anything to recover from."""
        return self.journal != "memory"

    def options(self, data_dir: Path, command: tuple[str, ...] | None) -> ServiceOptions:
        """Return how to start the service, by ``command`` if it has none of its own."""
        return ServiceOptions(
            strategy=self.strategy,
            journal=self.journal,
            data_dir=data_dir,
            router=self.router,
            dh_ratchet_every=self.dh_ratchet_every,
            snapshot_interval=self.snapshot_interval,
            # The audited server keeps no answers to give again.
            redelivery_window=0,
            command=self.command or command or DEFAULT_COMMAND,
            flags=self.flags,
        )


def trial_probe(
    name: str, variant: Variant, settings: LoadSettings, *, recovers: bool = True
) -> Probe:
    """Return the probe that runs such a trial."""
    return Probe(name, partial(run_trial, variant, settings, recovers=recovers))


async def run_trial(
    variant: Variant, settings: LoadSettings, progress: Progress, *, recovers: bool = True
) -> Round:
    """Start a service with a data directory of its own, load it, kill it, let it recover.

    Args:
        variant: how to run the service.
        settings: the load.
        progress: told how it goes.
        recovers: whether to let it recover; without, it is stopped in order.

    Raises:
        ServiceError: a service did not start, or died.
        TransportError: a service could not be reached, or did not recover what it held.
        MetricsError: a service's counters could not be read.
    """
    is_killed = variant.is_durable and recovers
    with scratch_directory() as data_dir:
        options = variant.options(data_dir, settings.service_command)
        progress.step("starting the service")
        async with ServiceProcess(options, settings.timeout_seconds) as service:
            load, cost, ends = await service.while_alive(_load(service, settings, progress))
            await (service.kill() if is_killed else service.stop())
        recovery = None
        if is_killed:
            progress.step("recovering after kill -9")
            recovery = await recover(options, ends, settings)
    return round_of(load, cost, recovery, is_durable=variant.is_durable)


async def on_fresh_service(
    variant: Variant,
    load: LoadSettings,
    work: Callable[[ServiceProcess], Coroutine[None, None, _Result]],
    progress: Progress,
) -> _Result:
    """Start a service with a data directory of its own, do the work and stop the service.

    Args:
        variant: how to run it.
        load: how to start it, and how patiently.
        work: given the service once it is ready.
        progress: told how it goes.

    Raises:
        ServiceError: it did not start, died, or did not stop in order.
    """
    with scratch_directory() as data_dir:
        progress.step("starting the service")
        options = variant.options(data_dir, load.service_command)
        async with ServiceProcess(options, load.timeout_seconds) as service:
            result = await service.while_alive(work(service))
            await service.stop()
    return result


async def _load(
    service: ServiceProcess, settings: LoadSettings, progress: Progress
) -> tuple[LoadFigures, Cost, Sequence[PeerEnd]]:
    async with open_load(service.endpoint, settings, progress) as work:
        read = partial(take, service.metrics, service.options.data_dir)
        load, cost = await put_load(work, read)
    if cost is None:
        raise MetricsError("the service's counters were not read")
    return load, cost, work.ends()
