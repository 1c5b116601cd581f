"""Loads over lines of the generator's own making: unary calls, or many connections at once.

The service's counters are not asked, so that what answers may be something else than a service.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from loadgen.channels import Endpoint
from loadgen.load import Progress
from loadgen.overload.lines import Lines, Outcome, open_lines
from loadgen.pacing import Line
from loadgen.peer import Peers
from loadgen.reach.echo import ECHO_COMMAND, EchoEnd
from loadgen.reach.fresh import on_fresh_service
from loadgen.reach.loads import require_right
from loadgen.reach.results import Seen
from loadgen.reach.rows import Side
from loadgen.sampling import family_cpu_seconds
from loadgen.self_check import SelfCheck, verdict_on
from loadgen.service_process import ServiceProcess
from loadgen.settings import LoadSettings
from loadgen.timeline import Timeline
from loadgen.transport import open_transport
from loadgen.trial import Variant
from loadgen.workload import Workload

__all__ = ["connections_side", "echo_side"]

_Opening = Callable[[ServiceProcess], AbstractAsyncContextManager[Lines]]


def connections_side(name: str, variant: Variant, load: LoadSettings, connections: int) -> Side:
    """Return the side that loads a service over so many connections.

    CPU is that of all its processes.
    """

    def opening(service: ServiceProcess) -> AbstractAsyncContextManager[Lines]:
        return open_lines(Endpoint(service.listen, service.identity), load, connections)

    return _side(name, variant, load, opening)


def echo_side(name: str, load: LoadSettings) -> Side:
    """Return the side that puts the load on a bare server."""

    def opening(service: ServiceProcess) -> AbstractAsyncContextManager[Lines]:
        return _open_echo(service.listen, load)

    # It heeds none of the variant's flags.
    variant = Variant("echo", "differential", journal="memory")
    return _side(name, variant, load.model_copy(update={"service_command": ECHO_COMMAND}), opening)


def _side(name: str, variant: Variant, load: LoadSettings, opening: _Opening) -> Side:
    async def measure(progress: Progress) -> Seen:
        return await on_fresh_service(
            variant, load, lambda service: _put(service, load, opening, progress), progress
        )

    return Side(name, measure)


@asynccontextmanager
async def _open_echo(address: str, load: LoadSettings) -> AsyncIterator[Lines]:
    async with open_transport(address, load, shares_connection=False) as transport:
        now = time.perf_counter_ns
        ends = [EchoEnd(connect_id) for connect_id in range(1, load.channels + 1)]
        peers = Peers(ends, Workload.of(load).operations())
        line = Line(peers, transport, Timeline(now(), now(), 1.0), now)
        transport.listen(line)
        yield Lines([line], [])


async def _put(
    service: ServiceProcess, load: LoadSettings, opening: _Opening, progress: Progress
) -> Seen:
    progress.step(f"opening {load.channels} channels")
    async with opening(service) as lines:
        patience = load.timeout_seconds
        progress.step(f"warm-up, {load.warm_up_seconds:g} s")
        await lines.closed(max(load.warm_up_seconds, 0.1), load.concurrency, patience)
        progress.step(f"measuring, {load.duration_seconds:g} s")
        before, begun = family_cpu_seconds(service.pid), time.monotonic()
        async with SelfCheck() as check:
            outcome = await lines.closed(load.duration_seconds, load.concurrency, patience)
        cpu = family_cpu_seconds(service.pid) - before
        return _seen(outcome, cpu, cpu / (time.monotonic() - begun), check)


def _seen(outcome: Outcome, cpu: float, cpu_share: float, check: SelfCheck) -> Seen:
    require_right(outcome.wrong, outcome.errors)
    messages = sum(each.messages for each in outcome.recorders)
    generator = verdict_on(check.cpu_share, check.loop_lag, None, 0, cpu_share)
    return Seen(
        figures={
            "per_second": outcome.per_second,
            "cpu_us": cpu / messages * 1e6 if messages else None,
            "generator_cpu_share": check.cpu_share,
        },
        generator_bound=bool(generator.warnings),
    )
