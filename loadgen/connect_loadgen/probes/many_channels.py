"""Sides that need channels by the thousands: many live ones, and a restart that restores all."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from connect_loadgen.drive.channels import ChannelEnd
from connect_loadgen.drive.load import Load, Progress
from connect_loadgen.drive.salvo import Gunner, MeasureError
from connect_loadgen.drive.transport import Transport, open_transport
from connect_loadgen.experiment.model import Probe
from connect_loadgen.experiment.results import Recovery, Round
from connect_loadgen.probes.planting import Planted, bring_to_life, plant
from connect_loadgen.probes.recovery import recover
from connect_loadgen.probes.saturation import measure_saturated
from connect_loadgen.probes.trial import Variant
from connect_loadgen.program.scratch import scratch_directory
from connect_loadgen.service.cost import take
from connect_loadgen.service.process import ServiceOptions, ServiceProcess
from connect_loadgen.settings.load import LoadSettings

__all__ = ["live_side", "require_right", "restart_side", "round_of_recovery"]

# None is passivated while it is measured.
_STAY_ALIVE = "--idle-timeout=3600"
# A quarter of what lies between two snapshots.
_RECORDS_A_CHANNEL = 12


def live_side(name: str, variant: Variant, load: LoadSettings, messages: int) -> Probe:
    """Return the side that has a service whose channels are all live carry out so many messages."""

    async def measure(progress: Progress) -> Round:
        with scratch_directory() as data_dir:
            planted, options = await _plant(data_dir, variant, load, progress)
            async with ServiceProcess(options, load.timeout_seconds) as service:
                seen = await service.while_alive(
                    _saturate(service, planted, load, messages, progress)
                )
                # All of them would be written down first, for nobody.
                await service.kill()
        return seen

    return Probe(name, measure)


def restart_side(name: str, variant: Variant, load: LoadSettings, *, killed: bool) -> Probe:
    """Return the side that uses all channels, ends the service and has them all come back.

    Args:
        name: of the side.
        variant: how the service runs.
        load: what the channels have been used for.
        killed: whether it ends by kill -9, or in order.
    """

    async def measure(progress: Progress) -> Round:
        with scratch_directory() as data_dir:
            planted, options = await _plant(data_dir, variant, load, progress)
            async with ServiceProcess(options, load.timeout_seconds) as service:
                ends = await service.while_alive(_use(service, planted, load, progress))
                progress.step("ending the service")
                await (service.kill() if killed else service.stop())
            progress.step(f"bringing {load.channels} channels back")
            return round_of_recovery(await recover(options, ends, load))

    return Probe(name, measure)


def require_right(wrong: int, errors: Mapping[str, int]) -> None:
    """Refuse figures of a load that was not served.

    Raises:
        MeasureError: an answer was wrong, or an operation failed.
    """
    if wrong:
        raise MeasureError(f"{wrong} answers were WRONG")
    if errors:
        raise MeasureError(f"operations failed: {dict(errors)}")


def round_of_recovery(recovery: Recovery) -> Round:
    """Return what a recovery showed.

    Raises:
        MeasureError: not every channel came back unharmed.
    """
    channels, cpu_seconds = recovery.channels, recovery.restore_cpu_seconds
    if recovery.verified_channels < channels:
        raise MeasureError(f"only {recovery.verified_channels} of {channels} channels came back")
    replayed = recovery.replayed_records
    return Round(
        figures={
            "per_core_second": channels / cpu_seconds if cpu_seconds else None,
            "per_second": recovery.channels_per_second,
            "start_seconds": recovery.start_seconds,
            "replayed_records": None if replayed is None else replayed / channels,
        }
    )


async def _plant(
    data_dir: Path, variant: Variant, load: LoadSettings, progress: Progress
) -> tuple[Planted, ServiceOptions]:
    progress.step(f"planting {load.channels} channels")
    planted = await asyncio.to_thread(plant, data_dir, load.channels)
    options = variant.options(data_dir, load.service_command)
    return planted, replace(options, flags=(*options.flags, *planted.flags, _STAY_ALIVE))


@asynccontextmanager
async def _all_alive(
    service: ServiceProcess, planted: Planted, load: LoadSettings, progress: Progress
) -> AsyncIterator[tuple[Transport, list[ChannelEnd]]]:
    """Bring the planted channels to life; yield a way to them, and their peers' ends."""
    progress.step(f"bringing {load.channels} channels to life")
    async with (
        service.endpoint.client() as client,
        open_transport(service.endpoint, load) as transport,
    ):
        ends = planted.ends(client)
        await bring_to_life(transport, ends, patience=load.timeout_seconds)
        yield transport, ends


async def _saturate(
    service: ServiceProcess, planted: Planted, load: LoadSettings, messages: int, progress: Progress
) -> Round:
    async with _all_alive(service, planted, load, progress) as (transport, ends):
        gunners = [Gunner(transport, ends, load)]
        seen = await measure_saturated(service, gunners, load, messages, progress)
    live = (await take(service.metrics)).metrics["connect_actors_live"]
    if live < load.channels:
        raise MeasureError(f"of {load.channels} channels only {live:,.0f} were live")
    return seen


async def _use(
    service: ServiceProcess, planted: Planted, load: LoadSettings, progress: Progress
) -> list[ChannelEnd]:
    """Leave so many records behind the channels' snapshots, on average."""
    used = 0
    async with _all_alive(service, planted, load, progress) as (transport, ends):
        work = Load(transport, ends, load, service.endpoint, progress)
        while used < _RECORDS_A_CHANNEL * load.channels:
            await work.measure()
            figures = work.figures(None)
            require_right(figures.verification_failures, figures.errors)
            if not work.messages:
                raise MeasureError("the channels could not be used")
            used += work.messages
    return work.ends()
