"""How many channels the service bears within a p99 objective, each sending at a fixed rate.

The load is an open loop at (channels times rate). Channels are added until the objective breaks,
then the bound is closed in on by halves. The objective is kept if p99 from the intended send time
is within it, and no send was skipped because too many were unanswered.
"""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from connect_loadgen.drive.channels import ChannelEnd, establish
from connect_loadgen.drive.figures import LoadFigures
from connect_loadgen.drive.load import Load, Progress, put_load
from connect_loadgen.drive.transport import open_transport
from connect_loadgen.experiment.figures import latency_of
from connect_loadgen.experiment.model import Probe
from connect_loadgen.experiment.results import Round
from connect_loadgen.probes.trial import Variant, on_fresh_service
from connect_loadgen.service.process import ServiceProcess
from connect_loadgen.settings.load import LoadSettings

__all__ = ["CHANNELS", "Objective", "Tried", "capacity_probe", "search"]

CHANNELS = "channels_within_objective"
"""The figure."""

# The bound is closed in on until it is known to a twentieth.
_RESOLUTION = 1.05
_GROWTH = 1.5
_MAX_CHANNELS = 50_000


@dataclass(frozen=True, slots=True)
class Objective:
    """What is asked of the service, and of each channel."""

    p99_ms: float
    channel_rate: float
    """Messages per second of a channel."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One number of channels, tried."""

    channels: int
    keeps_objective: bool
    generator_bound: bool = False
    """Whether the generator, not the service, may have broken it."""


def capacity_probe(
    name: str, variant: Variant, settings: LoadSettings, objective: Objective, start: int
) -> Probe:
    """Return the probe that searches on a service of its own, from so many channels on."""

    async def measure(progress: Progress) -> Round:
        async def work(service: ServiceProcess) -> Round:
            return await _search(service, settings, objective, start, progress)

        return await on_fresh_service(variant, settings, work, progress)

    return Probe(name, measure)


async def _search(
    service: ServiceProcess,
    settings: LoadSettings,
    objective: Objective,
    start: int,
    progress: Progress,
) -> Round:
    endpoint = service.endpoint
    async with open_transport(endpoint, settings) as transport:
        ends: list[ChannelEnd] = []

        async def probe(channels: int) -> Tried:
            if channels > len(ends):
                progress.step(f"establishing {channels - len(ends)} more channels")
                more = settings.model_copy(update={"channels": channels - len(ends)})
                ends.extend(await establish(transport, more, endpoint))
            load_settings = _settings_of(channels, settings, objective)
            load = Load(transport, ends[:channels], load_settings, endpoint, progress)
            found, _ = await put_load(load, None)
            return Tried(channels, _keeps(found, objective.p99_ms), not found.generator.is_valid)

        return await search(probe, start)


def _settings_of(channels: int, settings: LoadSettings, objective: Objective) -> LoadSettings:
    rate = channels * objective.channel_rate
    return settings.model_copy(
        update={
            "channels": channels,
            "rate": str(rate),
            # The search is for a steady load of these very channels.
            "churn_rate": 0.0,
            "storms": "",
            "stop_if": "",
            # What is unanswered for longer than the objective breaks it anyhow.
            "max_in_flight": max(math.ceil(rate * objective.p99_ms / 250), 64),
        }
    )


def _keeps(load: LoadFigures, objective_ms: float) -> bool:
    latency = latency_of([load])
    return (
        latency is not None
        and latency.p99_us / 1000 <= objective_ms
        and not load.skipped_at_cap
        and not load.skipped_by_late_generator
        and not load.errors
    )


async def search(probe: Callable[[int], Awaitable[Tried]], start: int) -> Round:
    """Find the largest number of channels that keeps the objective.

    Args:
        probe: tries a number of channels.
        start: where to begin.
    """
    tried: list[Tried] = []
    kept, broken, channels = 0, 0, start
    while channels <= _MAX_CHANNELS:
        tried.append(await probe(channels))
        if tried[-1].keeps_objective:
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
    return Round(
        figures={CHANNELS: kept, "loads_tried": len(tried)},
        # A bound that the generator set is none of the service.
        generator_bound=any(each.generator_bound for each in tried if not each.keeps_objective),
    )
