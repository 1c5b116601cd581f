"""What ``loadgen overload`` leaves behind: promises, phases, the course of it all."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from connect_loadgen.experiment.numbers import count, figure
from connect_loadgen.overload.results import (
    OVERLOAD_PHASE,
    ConnectionsFound,
    Course,
    OverloadResult,
    Phase,
)
from connect_loadgen.report.blocks import (
    Block,
    Bullets,
    Cell,
    Column,
    Page,
    Plot,
    Prose,
    Section,
    Table,
    missing,
)
from connect_loadgen.report.drawing import INK, SERIES, draw, readable_log_axis
from connect_loadgen.report.method import method_section
from connect_loadgen.report.promises import promise_table, verdict_on_all

if TYPE_CHECKING:  # matplotlib takes a second to load: it is imported when a plot is drawn
    from matplotlib.axes import Axes

__all__ = ["overload_blocks", "overload_page"]

_WAYS = {"stream": "streams", "unary": "unary calls"}


def overload_blocks(result: OverloadResult) -> Iterator[Block]:
    """Yield what the terminal shows."""
    for course in result.courses:
        yield from _course_blocks(course)


def _course_blocks(course: Course) -> Iterator[Block]:
    yield Prose(_lead(course), is_lead=True)
    yield promise_table(course.promises)
    yield _phases_table(course)
    if course.connections is not None:
        yield _connections_prose(course.connections)
    if course.generator.warnings:
        yield Bullets(tuple(course.generator.warnings), is_alarm=True)


def overload_page(result: OverloadResult) -> Page:
    """Return the page of a result."""
    settings = result.settings
    return Page(
        title="Overload",
        subtitle=f"loadgen overload, {result.started_at}",
        sections=(
            *(section for course in result.courses for section in _sections(course)),
            method_section(
                "Each transport had a service of its own. The sustainable rate is what a closed"
                " loop reached. Then one open loop went through all phases without a pause:"
                " operations were sent when they were due, up to a cap of what is in flight,"
                " and latency counts from there. Beyond the sustainable rate a second process"
                " sent frames, or made calls, over connections of its own, and only counted"
                " answers; what found as many calls of a connection under way as the service"
                " takes was not sent. What a refusal costs was measured on a service that may"
                " hold next to no bytes, so that it refuses all messages.",
                settings,
                result.environment,
            ),
        ),
    )


def _sections(course: Course) -> Iterator[Section]:
    name = course.transport
    plots = (_throughput_plot(course), _latency_plot(course))
    yield Section(name, f"Over {_WAYS[name]}", tuple(_course_blocks(course)))
    yield Section(f"{name}-course", f"Course over {_WAYS[name]}", plots)


def _lead(course: Course) -> str:
    return (
        f"Over {_WAYS[course.transport]}: {verdict_on_all(course.promises)}. The service sustains"
        f" {figure(course.sustainable_per_second)} operations/s; offered"
        f" {figure(course.phases[OVERLOAD_PHASE].offered_per_second)}, it did"
        f" {figure(course.phases[OVERLOAD_PHASE].accepted_per_second)}."
    )


def _phases_table(course: Course) -> Table:
    return Table(
        title="Phases",
        columns=(
            Column("Phase", is_text=True),
            Column("Offered", "ops/s"),
            Column("Accepted", "ops/s"),
            Column("Refused", "operations"),
            Column("p50", "ms"),
            Column("p99", "ms", "Median over the phase's windows, from the due time."),
            Column("CPU", "s/s"),
            Column("Peak RSS", "MiB"),
        ),
        rows=tuple(_phase_row(phase) for phase in course.phases),
        notes=(
            (
                "Operations that were not sent since the service did not take more:"
                f" {count(course.held_back)}. Sends skipped at the cap of what is in flight:"
                f" {count(course.skipped_at_cap)};"
                f" by a late generator: {count(course.skipped_by_late_generator)}."
            ),
            (
                f"A refusal took {figure(course.refusal.refused_cpu_us)} us of CPU, an accepted"
                f" operation {figure(course.refusal.accepted_cpu_us)} us{_bare(course)}."
            ),
        ),
    )


def _bare(course: Course) -> str:
    cpu_us = course.refusal.bare_cpu_us
    return "" if cpu_us is None else f", a call of a bare gRPC server {figure(cpu_us)} us"


def _phase_row(phase: Phase) -> tuple[Cell, ...]:
    def milliseconds(value: float | None) -> Cell:
        return missing("nothing was accepted") if value is None else Cell(figure(value), value)

    return (
        Cell(phase.name),
        Cell(figure(phase.offered_per_second), phase.offered_per_second),
        Cell(figure(phase.accepted_per_second), phase.accepted_per_second),
        Cell(count(sum(phase.refused.values())), sum(phase.refused.values())),
        milliseconds(phase.p50_ms),
        milliseconds(phase.p99_ms),
        Cell(figure(phase.cpu_share), phase.cpu_share),
        Cell(figure(phase.peak_rss_bytes / 2**20), phase.peak_rss_bytes),
    )


def _connections_prose(found: ConnectionsFound) -> Prose:
    return Prose(
        f"{count(found.idle)} idle connections took"
        f" {figure(found.rss_per_idle_connection_bytes / 1024)} KiB of the service's memory each."
        f" The flood opened {count(found.flood_connections)} connections in"
        f" {figure(found.flood_seconds)} s, half of them with garbage."
    )


def _throughput_plot(course: Course) -> Plot:
    windows = course.windows

    def paint(axes: "Axes") -> None:
        at = [window.at_seconds for window in windows]
        right = [window.right / window.seconds for window in windows]
        refused = [sum(window.errors.values()) / window.seconds for window in windows]
        _step(axes, at, right, "accepted", 0)
        if any(refused):
            _step(axes, at, refused, "refused", 1)
        edges = [*(phase.begins_seconds for phase in course.phases), at[-1] if at else 0.0]
        offered = [phase.offered_per_second for phase in course.phases]
        axes.stairs(offered, edges, baseline=None, color=INK, linewidth=1, label="offered")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("time (s)")
        axes.set_ylabel("operations per second (ops/s)")

    text = "; ".join(
        f"{phase.name}: offered {figure(phase.offered_per_second)},"
        f" accepted {figure(phase.accepted_per_second)} ops/s"
        for phase in course.phases
    )
    return draw(f"{course.transport}-throughput", "Throughput through the phases", text, paint)


def _latency_plot(course: Course) -> Plot:
    windows = [window for window in course.windows if window.p99_ms and window.p50_ms]

    def paint(axes: "Axes") -> None:
        at = [window.at_seconds for window in windows]
        medians = [window.p50_ms or 0.0 for window in windows]
        slowest = [window.p99_ms or 0.0 for window in windows]
        _step(axes, at, medians, "p50", 0)
        _step(axes, at, slowest, "p99", 1)
        values = [*medians, *slowest] or [1.0]
        readable_log_axis(axes, "y", min(values) / 1.5, max(values) * 1.5)
        axes.set_xlabel("time when due (s)")
        axes.set_ylabel("latency of what was accepted (ms), log scale")

    text = "; ".join(
        f"{phase.name}: p99 {'-' if phase.p99_ms is None else figure(phase.p99_ms)} ms"
        for phase in course.phases
    )
    return draw(f"{course.transport}-latency", "Latency through the phases", text, paint)


def _step(axes: "Axes", at: list[float], values: list[float], label: str, series: int) -> None:
    style = SERIES[series]
    axes.step(at, values, where="post", label=label, color=style.colour, linestyle=style.line)
