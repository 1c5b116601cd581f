"""Sides that give a server always something to do: encrypts or decrypts, over streams or calls."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from connect_loadgen.drive.channels import establish
from connect_loadgen.drive.load import Progress
from connect_loadgen.drive.salvo import Gunner, fire
from connect_loadgen.drive.self_check import verdict_on
from connect_loadgen.drive.transport import open_transport
from connect_loadgen.experiment.model import Probe
from connect_loadgen.experiment.results import Round
from connect_loadgen.probes.trial import Variant, on_fresh_service
from connect_loadgen.service.bare import ECHO_COMMAND, EchoEnd
from connect_loadgen.service.cost import scrape
from connect_loadgen.service.endpoint import Endpoint
from connect_loadgen.service.process import ServiceProcess
from connect_loadgen.service.sampling import cpu_seconds_of
from connect_loadgen.settings.load import LoadSettings

__all__ = ["echo_side", "measure_saturated", "saturated_side"]

# A fifth as many go before, unmeasured.
_WARM_UP_SHARE = 5
# A hundred thousand answers may take so many times as long as one.
_PATIENCE = 5

_JOURNAL = {"connect_journal_records_total": "", "connect_journal_commits_total": ""}.keys()

_Opening = Callable[[ServiceProcess], AbstractAsyncContextManager[list[Gunner]]]


def saturated_side(
    name: str, variant: Variant, load: LoadSettings, messages: int, connections: int = 1
) -> Probe:
    """Return the side that has a service carry out so many messages as fast as it can.

    Args:
        name: of the side.
        variant: how the service runs.
        load: channels, operations, and how many are in flight, all connections together.
        messages: how many are measured.
        connections: that share channels and messages.
    """

    def opening(service: ServiceProcess) -> AbstractAsyncContextManager[list[Gunner]]:
        return _open(service.endpoint, load, connections)

    return _side(name, variant, load, messages, opening)


def echo_side(name: str, load: LoadSettings, messages: int) -> Probe:
    """Return the side that puts the same on a bare server, which has no channels."""

    @asynccontextmanager
    async def opening(service: ServiceProcess) -> AsyncIterator[list[Gunner]]:
        async with open_transport(service.endpoint, load) as transport:
            ends = [EchoEnd(connect_id) for connect_id in range(1, load.channels + 1)]
            yield [Gunner(transport, ends, load)]

    # It heeds none of the variant's flags.
    variant = Variant("echo", "differential", journal="memory")
    bare = load.model_copy(update={"service_command": ECHO_COMMAND})
    return _side(name, variant, bare, messages, opening)


def _side(
    name: str, variant: Variant, load: LoadSettings, messages: int, opening: _Opening
) -> Probe:
    async def measure(progress: Progress) -> Round:
        async def work(service: ServiceProcess) -> Round:
            progress.step(f"opening {load.channels} channels")
            async with opening(service) as gunners:
                return await measure_saturated(service, gunners, load, messages, progress)

        return await on_fresh_service(variant, load, work, progress)

    return Probe(name, measure)


@asynccontextmanager
async def _open(
    endpoint: Endpoint, load: LoadSettings, connections: int
) -> AsyncIterator[list[Gunner]]:
    async with AsyncExitStack() as stack:
        gunners = []
        for index in range(connections):
            share = load.channels // connections + (index < load.channels % connections)
            part = load.model_copy(update={"channels": share, "seed": load.seed + (index << 32)})
            transport = await stack.enter_async_context(
                open_transport(endpoint, part, shares_connection=False)
            )
            gunners.append(Gunner(transport, await establish(transport, part, endpoint), part))
        yield gunners


async def measure_saturated(
    service: ServiceProcess,
    gunners: Sequence[Gunner],
    load: LoadSettings,
    messages: int,
    progress: Progress,
) -> Round:
    """Fire so many messages at a service, all gunners together, and return what each cost it.

    Raises:
        MeasureError: an answer was wrong, or an error.
        TransportError: a connection failed.
        MetricsError: its counters can't be read.
    """
    count, patience = len(gunners), load.timeout_seconds * _PATIENCE
    progress.step(f"making {messages} messages")
    warm_up, salvos = (
        [gunner.load(max(size // count, 1), load.concurrency // count) for gunner in gunners]
        for size in (messages // _WARM_UP_SHARE, messages)
    )
    progress.step("warm-up")
    await fire(warm_up, patience)
    progress.step(f"measuring {messages} messages")
    before, cpu_before = await scrape(service.metrics), await cpu_seconds_of(service.metrics)
    fired = await fire(salvos, patience)
    cpu = await cpu_seconds_of(service.metrics) - cpu_before
    after = await scrape(service.metrics)
    progress.step("checking every answer")
    for salvo in (*warm_up, *salvos):
        salvo.check()
    check = fired.generator
    verdict = verdict_on(check.cpu_share, check.loop_lag, None, 0, cpu / fired.seconds)
    figures: dict[str, float | None] = {
        "per_second": fired.messages / fired.seconds,
        "per_second_and_channel": fired.messages / fired.seconds / load.channels,
        "cpu_us": cpu / fired.messages * 1e6,
        "service_cpu_share": cpu / fired.seconds,
        "generator_cpu_share": check.cpu_share,
    }
    # A bare server has no journal.
    if before.keys() >= _JOURNAL:
        records, commits = (after[name] - before[name] for name in _JOURNAL)
        figures["records"] = records / fired.messages
        figures["messages_per_commit"] = fired.messages / commits if commits else None
    return Round(figures=figures, generator_bound=bool(verdict.warnings))
