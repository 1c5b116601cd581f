"""``loadgen run``: one load, on a service that is there or one that is started for it."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

from connect_actor.network.client_tls import ClientTls
from connect_loadgen.drive.exporter import LoadExporter
from connect_loadgen.drive.figures import Latency, LoadFigures
from connect_loadgen.drive.fleet import open_load
from connect_loadgen.drive.load import Progress, put_load
from connect_loadgen.experiment.conduct import Conduct
from connect_loadgen.experiment.figures import FIGURES, round_of, warnings_about
from connect_loadgen.experiment.model import Asked, Quantity, judge
from connect_loadgen.experiment.numbers import figure
from connect_loadgen.experiment.results import Result, Side, Withheld
from connect_loadgen.experiments.compare import caveats
from connect_loadgen.program.ending import ending
from connect_loadgen.program.scratch import scratch_directory
from connect_loadgen.report.blocks import Block, Table
from connect_loadgen.report.page import Look
from connect_loadgen.report.plots import spectrum_plot
from connect_loadgen.report.tables import plain_table
from connect_loadgen.service.cost import take
from connect_loadgen.service.endpoint import Endpoint
from connect_loadgen.service.process import ServiceOptions, ServiceProcess
from connect_loadgen.settings.arrivals import Arrivals
from connect_loadgen.settings.load import ConfigurationError, RunSettings

__all__ = ["LOOK", "parts_of", "run_load"]

_SIDE = "run"
_OF_A_RECOVERY = frozenset({"restart_seconds", "restore_seconds", "restored_channels_per_second"})


async def run_load(settings: RunSettings, progress: Progress) -> Result[None]:
    """Put the load on the service and return what happened.

    Raises:
        ServiceError: the started service did not start, or died.
        TransportError: the service can't be reached, or has ended the stream.
        MetricsError: its counters can't be read.
        ConfigurationError: the generator's own metrics can't be served where they should be, or
            a file with what the target requires can't be read.
    """
    exporter = LoadExporter(
        None if settings.rate is None else Arrivals.parse(settings.rate).mean_rate
    )
    with exporter.serving(settings.serve_metrics) as address:
        if address is not None:
            progress.step(f"serving the generator's metrics at http://{address}/metrics")
        return await _run(settings, exporter, progress)


async def _run(settings: RunSettings, exporter: LoadExporter, progress: Progress) -> Result[None]:
    if settings.target is not None:
        endpoint = _endpoint_of(settings, settings.target)
        return await _load(endpoint, settings.target_metrics, None, settings, exporter, progress)
    async with AsyncExitStack() as stack:
        data_dir = settings.data_dir or stack.enter_context(scratch_directory())
        progress.step(f"starting the service, strategy {settings.strategy}")
        options = ServiceOptions.of(settings, data_dir)
        service = await stack.enter_async_context(ServiceProcess(options, settings.timeout_seconds))
        work = _load(service.endpoint, service.metrics, data_dir, settings, exporter, progress)
        result = await service.while_alive(work)
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
        raise ConfigurationError(f"what --target requires can't be read: {error}") from None
    return Endpoint(target, tls=tls, token=token)


async def _load(
    endpoint: Endpoint,
    metrics: str | None,
    data_dir: Path | None,
    settings: RunSettings,
    exporter: LoadExporter,
    progress: Progress,
) -> Result[None]:
    conduct = Conduct(settings)
    async with open_load(endpoint, settings, progress, exporter.watch) as work:
        read = None if metrics is None else partial(take, metrics, data_dir)
        load, cost = await put_load(work, read, keeps_what_it_has=True)
    side = Side(name=_SIDE, rounds=[round_of(load, cost, None)])
    parts = parts_of(side, has_metrics=metrics is not None)
    return conduct.result(data_dir or Path.cwd(), None, **parts)


def parts_of(side: Side, *, has_metrics: bool) -> dict[str, Any]:
    """Return what the result says of one load."""
    (turn,) = side.rounds
    load = turn.load
    if load is None:
        raise ValueError("no load was put")
    rows = [
        judge(
            Asked(
                each.name,
                each.title,
                each.unit,
                Quantity(_SIDE, each.name),
                more_is_better=each.more_is_better,
            ),
            {_SIDE: side},
        )
        for each in FIGURES
        if each.name in turn.figures and each.name not in _OF_A_RECOVERY
    ]
    warnings = [text.partition(": ")[2] for text in warnings_about([turn], _SIDE)]
    if not has_metrics:
        warnings.append("The service's metrics were not read: give --target-metrics.")
    is_stopped = load.stopped is not None and ending().reason is None
    withheld = []
    if turn.generator_bound:
        why = f"{load.generator.verdict}: no verdict on the service"
        withheld.append(Withheld.invalid(why))
    if not load.operations_finished:
        why = "No operation was finished: no verdict"
        withheld.append(Withheld.nothing_shown(why))
    is_wrong = bool(load.verification_failures or load.errors or is_stopped)
    return {
        "answer": _answer(load),
        "rows": rows,
        "sides": {_SIDE: side},
        "warnings": warnings,
        "faults": ["the load was not served right to its end"] if is_wrong else [],
        "withheld": withheld,
    }


def _answer(load: LoadFigures) -> list[str]:
    lines = [
        f"{figure(load.messages_per_second)} messages/s, {figure(load.operations_per_second)}"
        " operations/s"
        + ("" if load.intended_rate is None else f" of {figure(load.intended_rate)} intended")
        + f" ({load.model}, {figure(load.duration_seconds)} s)."
    ]
    if load.verification_failures or load.errors:
        failed = sum(load.errors.values())
        lines.append(
            f"{load.verification_failures} answers were wrong, {failed} operations failed."
        )
    else:
        lines.append(f"All {load.operations_finished:,} answers were right.")
    return lines


def _loads(result: Result[Any]) -> LoadFigures:
    (turn,) = result.sides[_SIDE].rounds
    if turn.load is None:
        raise ValueError("no load was put")
    return turn.load


def _tables(result: Result[Any]) -> Iterator[Table]:
    load = _loads(result)
    counts: dict[str, object] = {
        "Operations sent": load.operations_sent,
        "Operations finished": load.operations_finished,
        "Messages": load.messages,
        "Messages sent out of order": load.reordered_messages,
        "Wrong answers": load.verification_failures,
        **{f"Failed: {status}": number for status, number in sorted(load.errors.items())},
        "Sends skipped at the cap in flight": load.skipped_at_cap,
        "Sends skipped by a late generator": load.skipped_by_late_generator,
        "Replacements of channels skipped": load.replacements_skipped,
    }
    yield _latency_table(load)
    yield plain_table("Counts", ("What", "Number|"), counts.items())
    generator = load.generator
    lags = {"Loop woke late, p99": generator.loop_lag, "Sent late, p99": generator.send_lag}
    yield plain_table(
        "The generator's check of itself",
        ("What", "Value|", "Unit"),
        (
            ("CPU", generator.cpu_share, "of a core"),
            *((name, lag.p99_us / 1000, "ms") for name, lag in lags.items() if lag is not None),
        ),
    )


def _latency_table(load: LoadFigures) -> Table:
    found: list[tuple[str, str, Latency]] = []
    for kind, latency in load.latency.items():
        name = kind.replace("_", " ")
        if latency.from_intended_send is not None:
            found.append((name, "due", latency.from_intended_send))
        found.append((name, "sent", latency.service_time))
    found += [(name, "due", latency) for name, latency in load.lifecycle.items()]
    return plain_table(
        "Latency of right answers, ms",
        ("Operation", "From", "Count|", "Mean|", "p50|", "p90|", "p99|", "p99.9|", "Max|"),
        (
            (
                name,
                since,
                each.count,
                *(
                    value / 1000
                    for value in (
                        each.mean_us,
                        each.p50_us,
                        each.p90_us,
                        each.p99_us,
                        each.p99_9_us,
                        each.max_us,
                    )
                ),
            )
            for name, since, each in found
        ),
        *(() if found else ("No operation had a right answer.",)),
    )


def _more(result: Result[Any]) -> Iterator[Block]:
    load, due, sent = _loads(result), {}, {}
    for kind, latency in load.latency.items():
        name = kind.replace("_", " ")
        sent[name] = latency.service_time
        if latency.from_intended_send is not None:
            due[name] = latency.from_intended_send
    if due:
        yield spectrum_plot("due", "Latency from the due time", due, "the due time")
    if sent:
        yield spectrum_plot("sent", "Service time", sent, "sending")


LOOK = Look(
    "Load run",
    "One load, measured after a warm-up; nothing was in flight between the two. Costs are"
    " differences of the service's own counters.",
    lambda result: tuple(_tables(result)),
    lambda result: tuple(_more(result)),
    caveats=lambda result: caveats(result) if result.settings.get("target") is None else (),
)
