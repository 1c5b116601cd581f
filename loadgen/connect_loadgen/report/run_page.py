"""A run as a page."""

from collections.abc import Iterator

from connect_loadgen.drive.figures import Latency, LoadFigures
from connect_loadgen.experiment.numbers import count, figure
from connect_loadgen.experiment.results import RunResult
from connect_loadgen.report.blocks import Block, Bullets, Page, Prose, Section
from connect_loadgen.report.method import (
    caveats_of_environment,
    caveats_of_loads,
    environment_table,
    measured_from,
    settings_table,
)
from connect_loadgen.report.plots import spectrum_plot
from connect_loadgen.report.run_tables import (
    cost_table,
    generator_table,
    latency_table,
    load_table,
    run_warnings,
)

__all__ = ["run_page"]


def run_page(result: RunResult) -> Page:
    """Return the page of a run."""
    settings = result.settings
    service = settings.get("target") or f"{settings['strategy']}, {settings['journal']} journal"
    return Page(
        title=f"Load run: {service}",
        subtitle=f"loadgen run, {result.started_at}",
        sections=tuple(_sections(result)),
    )


def _sections(result: RunResult) -> Iterator[Section]:
    load = result.load
    yield Section("question", "Question", (Prose(_question(result)),))
    yield Section("answer", "Answer", (Prose(_answer(load), is_lead=True),))
    if warnings := run_warnings(result):
        yield Section("warnings", "Warnings", (Bullets(tuple(warnings), is_alarm=True),))
    yield Section("load", "Load", (load_table(result),))
    yield Section("latency", "Latency", (latency_table(result), *_spectra(load)))
    yield Section("cost", "Cost to the service", (cost_table(result),))
    yield Section("generator", "Whether the generator kept up", (generator_table(result),))
    yield Section(
        "method",
        "How it was measured",
        (settings_table(result.settings), environment_table(result.environment)),
    )
    yield Section("caveats", "Caveats", (Bullets(tuple(_caveats(result))),))


def _question(result: RunResult) -> str:
    load = result.load
    asked = (
        f"{figure(load.intended_rate)} operations per second"
        if load.intended_rate is not None
        else "always as much in flight as was asked for"
    )
    return (
        f"How does the service do with {result.settings['channels']} channels and {asked}"
        f" ({load.model}) for {figure(load.duration_seconds)} s?"
    )


def _answer(load: LoadFigures) -> str:
    sentences = [
        f"It carried {figure(load.messages_per_second)} messages/s"
        f" ({figure(load.operations_per_second)} operations/s"
        + (
            f" of the {figure(load.intended_rate)} intended)."
            if load.intended_rate is not None
            else ")."
        )
    ]
    for kind, latency in load.latency.items():
        counted = latency.from_intended_send or latency.service_time
        sentences.append(
            f"Half of the {kind.replace('_', ' ')} operations were answered within"
            f" {figure(counted.p50_us / 1000)} ms of {measured_from(load)}, 99 of 100 within"
            f" {figure(counted.p99_us / 1000)} ms."
        )
    failed = sum(load.errors.values())
    if load.verification_failures or failed:
        sentences.append(
            f"{count(load.verification_failures)} answers were wrong and {count(failed)} operations"
            " failed."
        )
    else:
        sentences.append(f"All {count(load.operations_finished)} answers were right.")
    return " ".join(sentences)


def _spectra(load: LoadFigures) -> Iterator[Block]:
    due: dict[str, Latency] = {}
    sent: dict[str, Latency] = {}
    for kind, latency in load.latency.items():
        name = kind.replace("_", " ")
        sent[name] = latency.service_time
        if latency.from_intended_send is not None:
            due[name] = latency.from_intended_send
    if due:
        yield spectrum_plot("due", "Latency from the due time", due, "the due time")
    if sent:
        yield spectrum_plot("sent", "Service time", sent, "sending")


def _caveats(result: RunResult) -> Iterator[str]:
    if result.settings.get("target") is None:
        yield from caveats_of_loads([result.load], result.environment)
    yield from caveats_of_environment(result.environment)
