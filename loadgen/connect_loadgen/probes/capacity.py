"""How many channels the service bears within a p99 objective, each sending at a fixed rate.

The load is an open loop at (channels times rate). Channels are added until the objective breaks,
then the bound is closed in on by halves. The objective is kept if p99 from the intended send time
is within it, and no send was skipped because too many were unanswered.
"""

import math
from collections.abc import Awaitable, Callable

from connect_loadgen.audit.results import CapacityProbe, CapacitySearch
from connect_loadgen.audit.settings import AuditSettings
from connect_loadgen.drive.channels import ChannelEnd, establish
from connect_loadgen.drive.figures import LoadFigures
from connect_loadgen.drive.load import Load, Progress, put_load
from connect_loadgen.drive.transport import open_transport
from connect_loadgen.experiment.figures import latency_of_loads
from connect_loadgen.probes.trial import Variant
from connect_loadgen.program.scratch import scratch_directory
from connect_loadgen.service.process import ServiceProcess

__all__ = ["find_capacity", "search"]

# The bound is closed in on until it is known to a twentieth.
_RESOLUTION = 1.05
_GROWTH = 1.5
_MAX_CHANNELS = 50_000


async def find_capacity(
    variant: Variant, settings: AuditSettings, start: int, progress: Progress
) -> CapacitySearch:
    """Search on a service of its own.

    Args:
        variant: how to run the service.
        settings: rate, objective, and how long each number of channels is tried.
        start: channels to begin with.
        progress: told how it goes.

    Raises:
        ServiceError: the service did not start, or died.
        TransportError: it could not be reached.
    """
    with scratch_directory() as data_dir:
        options = variant.options(data_dir, settings.service_command)
        async with ServiceProcess(options, settings.timeout_seconds) as service:
            found = await service.while_alive(_search(service, settings, start, progress))
            await service.stop()
    return found


async def _search(
    service: ServiceProcess, settings: AuditSettings, start: int, progress: Progress
) -> CapacitySearch:
    endpoint = service.endpoint
    async with open_transport(endpoint, settings) as transport:
        ends: list[ChannelEnd] = []

        async def probe(channels: int) -> CapacityProbe:
            if channels > len(ends):
                progress.step(f"establishing {channels - len(ends)} more channels")
                more = settings.model_copy(update={"channels": channels - len(ends)})
                ends.extend(await establish(transport, more, endpoint))
            load_settings = _probe_settings(channels, settings)
            load = Load(transport, ends[:channels], load_settings, endpoint, progress)
            return _judge((await put_load(load, None))[0], channels, settings)

        return await search(probe, start)


def _probe_settings(channels: int, settings: AuditSettings) -> AuditSettings:
    rate = channels * settings.channel_rate
    return settings.model_copy(
        update={
            "channels": channels,
            "rate": str(rate),
            # What a steady load of these very channels does is searched for.
            "churn_rate": 0.0,
            "storms": "",
            "stop_if": "",
            # What is unanswered for longer than the objective breaks it anyhow.
            "max_in_flight": max(math.ceil(rate * settings.p99_objective_ms / 250), 64),
        }
    )


def _judge(load: LoadFigures, channels: int, settings: AuditSettings) -> CapacityProbe:
    return CapacityProbe(
        channels=channels,
        rate=channels * settings.channel_rate,
        p99_ms=_p99(load),
        skipped=load.skipped_at_cap + load.skipped_by_late_generator,
        keeps_objective=_keeps(load, settings.p99_objective_ms),
        generator_bound=not load.generator.is_valid,
    )


def _p99(load: LoadFigures) -> float | None:
    latency = latency_of_loads([load])
    return None if latency is None else latency.p99_us / 1000


def _keeps(load: LoadFigures, objective_ms: float) -> bool:
    p99 = _p99(load)
    return (
        p99 is not None
        and p99 <= objective_ms
        and not load.skipped_at_cap
        and not load.skipped_by_late_generator
        and not load.errors
    )


async def search(probe: Callable[[int], Awaitable[CapacityProbe]], start: int) -> CapacitySearch:
    """Find the largest number of channels that keeps the objective.

    Args:
        probe: tries a number of channels.
        start: where to begin.
    """
    probes: list[CapacityProbe] = []
    kept, broken, channels = 0, 0, start
    while channels <= _MAX_CHANNELS:
        tried = await probe(channels)
        probes.append(tried)
        if tried.keeps_objective:
            kept = channels
        else:
            broken = channels
        if not broken:
            channels = math.ceil(channels * _GROWTH)
        elif not kept:
            channels = math.floor(channels / _GROWTH)
        elif broken / kept <= _RESOLUTION:
            break
        else:
            channels = (kept + broken) // 2
        if not channels or channels in (kept, broken):
            break
    return CapacitySearch(channels=kept, probes=probes)
