"""``loadgen run``: one load, on a service that is there or one that is started for it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from connect_actor.network.client_tls import ClientTls
from connect_loadgen.drive.fleet import open_load
from connect_loadgen.drive.load import Progress, put_load
from connect_loadgen.experiment.environment import describe_environment
from connect_loadgen.experiment.results import RunResult
from connect_loadgen.exporter import LoadExporter
from connect_loadgen.program.ending import ending
from connect_loadgen.program.scratch import scratch_directory
from connect_loadgen.service.cost import take
from connect_loadgen.service.endpoint import Endpoint
from connect_loadgen.service.process import ServiceOptions, ServiceProcess
from connect_loadgen.settings.arrivals import Arrivals
from connect_loadgen.settings.load import ConfigurationError, RunSettings

__all__ = ["execute_run"]


@dataclass(frozen=True, slots=True)
class _Target:
    """The service that gets the load."""

    endpoint: Endpoint
    metrics: str | None
    data_dir: Path | None
    """Of a service that was started here."""


async def execute_run(settings: RunSettings, progress: Progress) -> RunResult:
    """Put the load on the service and return what happened.

    Raises:
        ServiceError: the started service did not start, or died.
        TransportError: the service can't be reached, or has ended the stream.
        MetricsError: its counters can't be read.
        ConfigurationError: the generator's own metrics can't be served where they should be, or
            a file with what the target wants to see can't be read.
    """
    exporter = LoadExporter(
        None if settings.rate is None else Arrivals.parse(settings.rate).mean_rate
    )
    with exporter.serving(settings.serve_metrics) as address:
        if address is not None:
            progress.step(f"serving the generator's metrics at http://{address}/metrics")
        return await _run(settings, exporter, progress)


async def _run(settings: RunSettings, exporter: LoadExporter, progress: Progress) -> RunResult:
    if settings.target is not None:
        endpoint = _endpoint_of(settings, settings.target)
        target = _Target(endpoint, settings.target_metrics, None)
        return await _load(target, settings, exporter, progress)
    with scratch_directory() as temporary:
        data_dir = settings.data_dir or temporary
        progress.step(f"starting the service, strategy {settings.strategy}")
        options = ServiceOptions.of(settings, data_dir)
        async with ServiceProcess(options, settings.timeout_seconds) as service:
            target = _Target(service.endpoint, service.metrics, data_dir)
            result = await service.while_alive(_load(target, settings, exporter, progress))
            progress.step("stopping the service")
            await service.stop()
    return result


def _endpoint_of(settings: RunSettings, target: str) -> Endpoint:
    ca, token_file = settings.target_tls_ca, settings.target_token_file
    tls = token = None
    try:
        if ca is not None:
            tls = ClientTls.from_files(
                ca,
                settings.target_tls_certificate,
                settings.target_tls_private_key,
                settings.target_tls_server_name,
            )
        if token_file is not None:
            token = token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"what --target wants to see can't be read: {error}") from None
    return Endpoint(target, tls=tls, token=token)


async def _load(
    target: _Target, settings: RunSettings, exporter: LoadExporter, progress: Progress
) -> RunResult:
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    async with open_load(target.endpoint, settings, progress, exporter.watch) as work:
        read = None if target.metrics is None else partial(take, target.metrics, target.data_dir)
        load, cost = await put_load(work, read, keeps_what_it_has=True)
    return RunResult(
        started_at=started_at,
        settings=settings.model_dump(mode="json"),
        environment=describe_environment(target.data_dir or Path.cwd()),
        cut_short=ending().reason,
        load=load,
        cost=cost,
    )
