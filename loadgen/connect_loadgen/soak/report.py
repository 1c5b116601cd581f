"""What ``loadgen soak`` leaves behind: promises, figures, plots, and a picture for the docs."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from connect_loadgen.experiment.numbers import count, figure
from connect_loadgen.report.blocks import Block, Bullets, Page, Plot, Prose, Section
from connect_loadgen.report.drawing import MUTED, SERIES, draw
from connect_loadgen.report.method import method_section
from connect_loadgen.report.promises import promise_table, verdict_on_all
from connect_loadgen.soak.judgement import second_half
from connect_loadgen.soak.results import SoakResult, SoakSample

if TYPE_CHECKING:  # matplotlib takes a second to load: it is imported when a plot is drawn
    from matplotlib.axes import Axes

__all__ = ["soak_blocks", "soak_page"]

_MEBI = 2**20

_Series = Callable[[SoakSample], float | None]


def soak_blocks(result: SoakResult) -> Iterator[Block]:
    """Yield what the terminal shows."""
    yield Prose(_lead(result), is_lead=True)
    yield promise_table(result.promises)
    if result.generator.warnings:
        yield Bullets(tuple(result.generator.warnings), is_alarm=True)


def _lead(result: SoakResult) -> str:
    return (
        f"{verdict_on_all(result.promises)}: {count(result.operations)} operations in"
        f" {figure(result.soaked_seconds / 60)} min at"
        f" {figure(result.achieved_per_second)} operations/s, {count(result.channels_established)}"
        f" channels established and {count(result.channels_closed)} closed meanwhile."
    )


def soak_page(result: SoakResult) -> Page:
    """Return the page of a result."""
    samples = result.samples
    return Page(
        title="Soak",
        subtitle=f"loadgen soak, {result.started_at}",
        sections=(
            Section("answer", "Answer", tuple(soak_blocks(result))),
            Section(
                "course",
                "Course",
                (
                    _plot("rss", "Memory", "RSS (MiB)", samples, {"RSS": _mebi("rss_bytes")}),
                    _plot(
                        "journal",
                        "Journal",
                        "size of its files (MiB)",
                        samples,
                        {"database": _mebi("database_bytes"), "WAL": _mebi("wal_bytes")},
                    ),
                    _plot(
                        "handles",
                        "Descriptors and threads",
                        "number",
                        samples,
                        {
                            "descriptors": lambda sample: float(sample.descriptors),
                            "threads": lambda sample: float(sample.threads),
                        },
                    ),
                    _plot(
                        "actors",
                        "Live actors",
                        "actors (number)",
                        samples,
                        {"actors": lambda sample: sample.live_actors},
                    ),
                    _plot(
                        "throughput",
                        "Throughput",
                        "operations per second (ops/s)",
                        samples,
                        {"right": lambda sample: sample.right_per_second},
                    ),
                    _plot(
                        "cpu",
                        "CPU of an operation",
                        "CPU time (us)",
                        samples,
                        {
                            "service": lambda sample: _micros(sample, sample.cpu_share),
                            "generator": lambda sample: _micros(sample, sample.generator_cpu_share),
                        },
                    ),
                    _plot(
                        "latency",
                        "Latency",
                        "from the due time (ms)",
                        samples,
                        {
                            "p50": lambda sample: sample.p50_ms,
                            "p99": lambda sample: sample.p99_ms,
                            "generator's own, p99": lambda sample: sample.generator_lag_p99_ms,
                        },
                    ),
                ),
            ),
            method_section(
                "Verdicts rest on the second half of the run, right of the line: the slope"
                " of Theil and Sen, in per cent of the median an hour, with its 95 %"
                " interval, widened by how alike samples are that follow each other. A"
                " figure is broken if it certainly grows, by more than is tolerated an hour"
                " and by more than noise in that half (loadgen/connect_loadgen/soak/judgement.py).",
                result.settings,
                result.environment,
            ),
        ),
    )


def _micros(sample: SoakSample, cpu_share: float) -> float | None:
    seconds = sample.of_operation(cpu_share)
    return None if seconds is None else seconds * 1e6


def _mebi(field: str) -> _Series:
    return lambda sample: float(getattr(sample, field)) / _MEBI


def _plot(
    name: str, title: str, label: str, samples: Sequence[SoakSample], series: dict[str, _Series]
) -> Plot:
    curves = {
        line: [(s.at_seconds, found) for s in samples if (found := value(s)) is not None]
        for line, value in series.items()
    }

    def paint(axes: "Axes") -> None:
        for style, (line, curve) in zip(SERIES, curves.items(), strict=False):
            axes.plot(
                [at for at, _ in curve],
                [value for _, value in curve],
                label=line,
                color=style.colour,
                linestyle=style.line,
            )
        late = second_half(samples)
        if late:
            axes.axvline(late[0].at_seconds, color=MUTED, linewidth=1)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
        axes.set_xlabel("time (s)")
        axes.set_ylabel(label)

    text = "; ".join(
        f"{line}: {figure(curve[0][1])} at first, {figure(curve[-1][1])} at last"
        for line, curve in curves.items()
        if curve
    )
    return draw(name, title, text or "no samples", paint, height_inches=2.6)
