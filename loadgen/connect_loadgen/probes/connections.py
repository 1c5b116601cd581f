"""Ten thousand idle connections, then a flood of new ones, beside a light load."""

import asyncio
import subprocess
import sys
from collections import Counter

from connect_actor.process.program import raise_descriptor_limit
from connect_loadgen.drive.idle import hold_connections
from connect_loadgen.drive.lines import Lines, Outcome, p99_of
from connect_loadgen.drive.load import Progress
from connect_loadgen.experiment.results import Record
from connect_loadgen.program.child import kill_child, start_child
from connect_loadgen.service.process import ServiceProcess
from connect_loadgen.service.sampling import sample_process
from connect_loadgen.settings.load import ConfigurationError
from connect_loadgen.settings.overload import OverloadSettings

__all__ = ["ConnectionsFound", "require_descriptors", "try_connections"]

_LIGHT_SHARE = 0.3
_OTHER_DESCRIPTORS = 256
_FLOOD = "connect_loadgen.drive.flood"


class ConnectionsFound(Record):
    """What many connections, and many new ones, do to others."""

    idle: int
    rss_per_idle_connection_bytes: float
    p99_alone_ms: float | None
    p99_with_idle_ms: float | None
    flood_connections: int
    """Connections that were opened and closed, or fed with garbage, during the flood."""
    flood_seconds: float
    p99_in_flood_ms: float | None
    errors: dict[str, int]
    """Of the load beside all that."""


def require_descriptors(connections: int) -> None:
    """Raise the limit of open files to what so many connections take, here and in the service.

    Raises:
        ConfigurationError: it can't be raised so far.
    """
    limit = raise_descriptor_limit()
    if connections + _OTHER_DESCRIPTORS > limit:
        raise ConfigurationError(
            f"--idle-connections: at most {limit - _OTHER_DESCRIPTORS} within this user's limit of"
            f" {limit} open files (ulimit -Hn)"
        )


async def try_connections(
    service: ServiceProcess,
    lines: Lines,
    settings: OverloadSettings,
    sustainable: float,
    progress: Progress,
) -> ConnectionsFound:
    """Measure the light load alone, beside idle connections, and in a flood of new ones.

    Raises:
        TransportError: a connection failed, or the service does not take as many.
        MetricsError: the service's metrics can't be read.
    """
    errors: Counter[str] = Counter()

    async def light() -> Outcome:
        outcome = lines.begin(settings.duration_seconds, settings.window_seconds)
        await lines.open(outcome, str(sustainable * _LIGHT_SHARE), settings)
        errors.update(outcome.errors)
        return outcome

    count = settings.idle_connections
    progress.step("a light load alone")
    alone = await light()
    before = (await sample_process(service.metrics)).rss_bytes
    progress.step(f"opening {count} idle connections")
    async with hold_connections(service.listen, count):
        grown = (await sample_process(service.metrics)).rss_bytes - before
        progress.step(f"the same load beside {count} idle connections")
        with_idle = await light()
    progress.step("the same load in a flood of connections")
    process = await start_child(
        sys.executable,
        "-m",
        _FLOOD,
        service.listen,
        str(settings.duration_seconds),
        stdout=subprocess.PIPE,
        stderr=None,
    )
    try:
        in_flood, (output, _) = await asyncio.gather(light(), process.communicate())
    finally:
        kill_child(process)
    return ConnectionsFound(
        idle=count,
        rss_per_idle_connection_bytes=max(grown, 0) / count,
        p99_alone_ms=p99_of(alone.windows()),
        p99_with_idle_ms=p99_of(with_idle.windows()),
        flood_connections=int(output),
        flood_seconds=settings.duration_seconds,
        p99_in_flood_ms=p99_of(in_flood.windows()),
        errors=dict(errors),
    )
