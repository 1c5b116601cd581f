"""The plots of comparisons and runs; a figure that is missing is not drawn, never drawn as 0."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from connect_loadgen.drive.figures import Latency
from connect_loadgen.drive.recording import Histogram
from connect_loadgen.experiment.figures import Figure
from connect_loadgen.experiment.numbers import figure as written
from connect_loadgen.experiment.numbers import ratio_with_spread, with_spread
from connect_loadgen.experiment.results import CompareResult, Spread
from connect_loadgen.report.blocks import Plot
from connect_loadgen.report.drawing import INK, MUTED, SERIES, SeriesStyle, draw, readable_log_axis
from connect_loadgen.report.findings import FIGURE

if TYPE_CHECKING:  # matplotlib takes a second to load: it is imported when a plot is drawn
    from matplotlib.axes import Axes

__all__ = ["bytes_plot", "ratio_plot", "recovery_plot", "spectrum_plot", "throughput_plot"]

# Beyond so many nines a percentile of the longest run is a single operation.
_FINEST = 6
_POINTS_PER_DECADE = 24

# Latencies that span more than this are told apart by a logarithmic axis only.
_WIDE = 30


def ratio_plot(result: CompareResult, names: Sequence[str]) -> Plot:
    """Draw each figure's ratio to the baseline: median as a dot, all rounds as a bar."""
    known = [
        (variant.name, FIGURE[name], value)
        for variant in result.variants
        for name in names
        if (value := variant.summary.ratios[name]) is not None and variant.name != result.baseline
    ]
    drawn = [item for item in known if item[2].low > 0]
    series = _series(result)
    others = [variant.name for variant in result.variants if variant.name != result.baseline]

    def paint(axes: "Axes") -> None:
        for name, figure, value in drawn:
            at = names.index(figure.name) + _offset(others.index(name), len(others))
            _whisker(axes, value, at, series[name])
        _legend(axes, series, others)
        axes.axvline(1, color=INK, linewidth=1)
        values = [edge for _, _, value in drawn for edge in (value.low, value.high)] or [1.0]
        readable_log_axis(axes, "x", min(0.5, *values) / 1.4, max(2.0, *values) * 1.4)
        _rows(axes, [_with_direction(FIGURE[name]) for name in names])
        axes.set_xlabel(f"ratio to {result.baseline} of the same round (1 = the same), log scale")
        axes.set_ylabel("figure: + more is better, - less is better")

    text = "; ".join(f"{n}, {f.title}: {ratio_with_spread(v)}" for n, f, v in known)
    return draw(
        "ratios",
        f"Ratio to {result.baseline}, median and all rounds",
        text or "no ratio could be had",
        paint,
        notes=_not_drawn([(n, f.title) for n, f, v in known if v.low <= 0]),
        height_inches=1.6 + 0.42 * len(names),
    )


def spectrum_plot(
    name: str, title: str, latencies: Mapping[str, Latency], measured_from: str
) -> Plot:
    """Draw whole distributions: latency over the percentile, finer towards the slowest.

    Args:
        name: unique on the page.
        title: what it shows.
        latencies: a series each.
        measured_from: what the latency is measured from, for the axis.
    """
    curves = {label: _spectrum(latency) for label, latency in latencies.items()}

    def paint(axes: "Axes") -> None:
        for style, (label, (rarities, milliseconds)) in zip(SERIES, curves.items(), strict=False):
            axes.plot(rarities, milliseconds, label=label, color=style.colour, linestyle=style.line)
        last = max((rarities[-1] for rarities, _ in curves.values()), default=10.0)
        axes.set_xscale("log")
        axes.set_xlim(1, max(last, 10) * 1.1)
        ticks = [1, 2, *(10**nines for nines in range(1, _FINEST + 1) if 10**nines <= last * 1.1)]
        axes.set_xticks(ticks, [_percentile(tick) for tick in ticks])
        axes.xaxis.minorticks_off()
        values = [value for _, curve in curves.values() for value in curve] or [1.0]
        if max(values) > _WIDE * min(values):
            readable_log_axis(axes, "y", min(values) / 1.3, max(values) * 1.3)
        else:
            axes.set_ylim(0, max(values) * 1.08)
        axes.set_xlabel("percentile of operations (%), at 1 / (1 - p), log scale")
        axes.set_ylabel(f"latency from {measured_from} (ms)")

    text = "; ".join(
        f"{label}: p50 {written(latency.p50_us / 1000)} ms,"
        f" p99 {written(latency.p99_us / 1000)} ms, longest {written(latency.max_us / 1000)} ms"
        for label, latency in latencies.items()
    )
    return draw(name, title, text, paint, height_inches=3.6)


def throughput_plot(result: CompareResult) -> Plot:
    """Draw each variant's throughput, round by round."""
    series = _series(result)
    figure = FIGURE["messages_per_second"]

    def paint(axes: "Axes") -> None:
        from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

        for variant in result.variants:
            style = series[variant.name]
            axes.plot(
                [round_.number for round_ in variant.rounds],
                [round_.load.messages_per_second for round_ in variant.rounds],
                label=variant.name,
                color=style.colour,
                marker=style.marker,
                linestyle=style.line,
            )
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.margins(x=0.1)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("round (number)")
        axes.set_ylabel(f"throughput ({figure.unit})")

    text = "; ".join(
        f"{variant.name}: "
        + ", ".join(written(round_.load.messages_per_second) for round_ in variant.rounds)
        for variant in result.variants
    )
    return draw("throughput", "Throughput in each round", f"messages/s; {text}", paint)


def bytes_plot(result: CompareResult, names: Sequence[str]) -> Plot:
    """Draw what a message puts into records, snapshots and on disk."""
    return _dots(
        result,
        names,
        name="bytes",
        title="Bytes for a message",
        label="bytes per message (B/message), log scale",
        rows="what is written",
    )


def recovery_plot(result: CompareResult, names: Sequence[str]) -> Plot:
    """Draw how long it takes to come back after ``kill -9``."""
    return _dots(
        result,
        names,
        name="recovery",
        title="Time to come back after kill -9",
        label="time (s), log scale",
        rows="step",
    )


def _dots(
    result: CompareResult, names: Sequence[str], *, name: str, title: str, label: str, rows: str
) -> Plot:
    series = _series(result)
    variants = [variant.name for variant in result.variants]
    known = [
        (variant.name, figure_name, value)
        for variant in result.variants
        for figure_name in names
        if (value := variant.summary.figures[figure_name]) is not None
    ]
    drawn = [item for item in known if item[2].low > 0]

    def paint(axes: "Axes") -> None:
        for variant, figure_name, value in drawn:
            at = names.index(figure_name) + _offset(variants.index(variant), len(variants))
            _whisker(axes, value, at, series[variant])
            axes.annotate(
                written(value.median),
                (value.high, at),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        _legend(axes, series, variants)
        edges = [edge for _, _, value in drawn for edge in (value.low, value.high)] or [1.0]
        readable_log_axis(axes, "x", min(edges) / 1.6, max(edges) * 3)
        _rows(axes, [FIGURE[figure].title for figure in names])
        axes.set_xlabel(label)
        axes.set_ylabel(rows)

    text = "; ".join(
        f"{variant}, {FIGURE[figure].title}: {with_spread(value)} {FIGURE[figure].unit}"
        for variant, figure, value in known
    )
    return draw(
        name,
        f"{title}, median and all rounds",
        text or "no figure could be had",
        paint,
        notes=_not_drawn([(n, FIGURE[f].title) for n, f, v in known if v.low <= 0]),
        height_inches=1.3 + 0.75 * len(names),
    )


def _series(result: CompareResult) -> dict[str, SeriesStyle]:
    return dict(zip((variant.name for variant in result.variants), SERIES, strict=False))


def _not_drawn(figures: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    return tuple(
        f"Not drawn: {variant}, {title}; 0 in a round has no place on a logarithmic axis"
        for variant, title in figures
    )


def _offset(index: int, number: int) -> float:
    """Return how far from its row's middle one of so many series lies."""
    return (index - (number - 1) / 2) * 0.7 / number


def _whisker(axes: "Axes", value: Spread, at: float, style: SeriesStyle) -> None:
    axes.plot([value.low, value.high], [at, at], color=style.colour, linewidth=2)
    axes.plot(
        [value.median], [at], color=style.colour, marker=style.marker, linestyle="", markersize=6
    )


def _legend(axes: "Axes", series: Mapping[str, SeriesStyle], names: Sequence[str]) -> None:
    for name in names:
        style = series[name]
        axes.plot([], [], label=name, color=style.colour, marker=style.marker, linestyle="")


def _rows(axes: "Axes", labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    for between in range(1, len(labels)):
        axes.axhline(between - 0.5, color=MUTED, linewidth=0.6)


def _with_direction(figure: Figure) -> str:
    return figure.title + {None: "", True: " +", False: " -"}[figure.more_is_better]


def _spectrum(latency: Latency) -> tuple[list[float], list[float]]:
    """Return 1 / (1 - p) and the milliseconds within which a share p of the operations lies."""
    decades = min(math.log10(latency.count), _FINEST)
    steps = max(round(decades * _POINTS_PER_DECADE), 1)
    rarities = [10 ** (decades * step / steps) for step in range(steps + 1)]
    microseconds = Histogram.merge([latency.hdr]).values_at(
        [100 * (1 - 1 / rarity) for rarity in rarities]
    )
    return rarities, [value / 1000 for value in microseconds]


def _percentile(rarity: float) -> str:
    return f"{100 * (1 - 1 / rarity):.8g}"
