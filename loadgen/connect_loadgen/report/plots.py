"""The plots; a figure that is missing is not drawn, never drawn as 0."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from connect_loadgen.drive.figures import Latency
from connect_loadgen.drive.recording import Histogram
from connect_loadgen.experiment.bounds import Verdict
from connect_loadgen.experiment.figures import FIGURE, Figure
from connect_loadgen.experiment.numbers import Spread, ratio_with_spread, with_spread
from connect_loadgen.experiment.numbers import figure as written
from connect_loadgen.experiment.results import Row, Side
from connect_loadgen.report.blocks import Plot
from connect_loadgen.report.drawing import INK, MUTED, SERIES, draw, readable_log_axis

if TYPE_CHECKING:  # matplotlib takes a second to load: it is imported when a plot is drawn
    from matplotlib.axes import Axes

__all__ = [
    "bars_plot",
    "claims_plot",
    "course_plot",
    "ratio_plot",
    "rounds_plot",
    "spectrum_plot",
]

# Beyond so many nines a percentile of the longest run is a single operation.
_FINEST = 6
_POINTS_PER_DECADE = 24

# Latencies that span more than this are told apart by a logarithmic axis only.
_WIDE = 30

_Whiskers = Sequence[tuple[str, str, Spread]]
"""Series, label of its row, figure."""


def ratio_plot(rows: Sequence[Row], names: Sequence[str]) -> Plot:
    """Draw each figure's ratio to the baseline: median as a dot, all rounds as a bar."""
    values = [
        (
            side,
            FIGURE[name].title + {True: " +", False: " -", None: ""}[row.more_is_better],
            row.ratio,
        )
        for row in rows
        for side, _, name in [row.name.partition(".")]
        if name in names and row.ratio is not None
    ]
    return _whiskers(
        "ratios",
        "Ratio to the baseline, median and all rounds",
        values,
        "ratio to the baseline (1 = the same), log scale",
        "figure: + more is better, - less is better",
        {},
        around_one=True,
    )


def bars_plot(name: str, title: str, rows: Sequence[Row], names: Sequence[str]) -> Plot:
    """Draw figures of one unit, of all sides: median as a dot, all rounds as a bar."""
    values = [
        (side, FIGURE[key].title, row.measured)
        for row in rows
        for side, _, key in [row.name.partition(".")]
        if key in names and row.measured is not None
    ]
    return _whiskers(
        name,
        f"{title}, median and all rounds",
        values,
        f"{title.lower()} ({FIGURE[names[0]].unit}), log scale",
        "figure",
        {},
    )


def claims_plot(rows: Sequence[Row]) -> Plot:
    """Draw each claim's range and what was measured on one axis, coloured by verdict.

    1 is the claim's weaker end: how many times the claimed effect, size or rate was measured.
    """
    colours = {
        Verdict.HOLDS: SERIES[2].colour,
        Verdict.PARTLY: SERIES[4].colour,
        Verdict.DOES_NOT_HOLD: SERIES[1].colour,
    }
    values, ranges = [], {}
    for row in rows:
        bound, judged = row.bound, row.judged
        if bound is None or judged is None or row.verdict not in colours or judged.low <= 0:
            continue
        weak, strong = (bound.high, bound.low) if bound.falls else (bound.low, bound.high)
        if not weak:
            continue
        times = _inverse(judged, weak) if bound.falls else _scaled(judged, weak)
        values.append((row.verdict.value, row.name, times))
        if strong:
            ranges[row.name] = weak / strong if bound.falls else strong / weak
    return _whiskers(
        "claims",
        "Each claim's range (grey, from 1), and what was measured",
        values,
        "times the claim's weaker end (1 = the same), log scale",
        "claim",
        ranges,
        around_one=True,
        colours={verdict.value: colour for verdict, colour in colours.items()},
    )


def _scaled(value: Spread, by: float) -> Spread:
    return Spread(median=value.median / by, low=value.low / by, high=value.high / by)


def _inverse(value: Spread, by: float) -> Spread:
    return Spread(median=by / value.median, low=by / value.high, high=by / value.low)


def _whiskers(
    name: str,
    title: str,
    values: _Whiskers,
    x_label: str,
    y_label: str,
    ranges: Mapping[str, float],
    *,
    around_one: bool = False,
    colours: Mapping[str, str] | None = None,
) -> Plot:
    labels = list(dict.fromkeys(label for _, label, _ in values))
    series = list(dict.fromkeys(each for each, _, _ in values))
    drawn = [each for each in values if each[2].low > 0]
    one_series_a_row = colours is not None

    def paint(axes: "Axes") -> None:
        for label, far in ranges.items():
            axes.barh(labels.index(label), far - 1, left=1, height=0.5, color=MUTED)
        for each, label, value in drawn:
            style = SERIES[series.index(each) % len(SERIES)]
            colour = (colours or {}).get(each, style.colour)
            offset = 0.0 if one_series_a_row else _offset(series.index(each), len(series))
            at = labels.index(label) + offset
            axes.plot([value.low, value.high], [at, at], color=colour, linewidth=2)
            axes.plot(
                [value.median], [at], color=colour, marker=style.marker, linestyle="", markersize=6
            )
        for index, each in enumerate(series):
            style = SERIES[index % len(SERIES)]
            colour = (colours or {}).get(each, style.colour)
            axes.plot([], [], label=each, color=colour, marker=style.marker, linestyle="")
        edges = [edge for _, _, value in drawn for edge in (value.low, value.high)] or [1.0]
        if around_one:
            axes.axvline(1, color=INK, linewidth=1)
            edges += [0.5, 2.0]
        readable_log_axis(axes, "x", min(edges) / 1.4, max(edges) * 1.4)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_ylim(max(len(labels), 1) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        for between in range(1, len(labels)):
            axes.axhline(between - 0.5, color=MUTED, linewidth=0.6)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)

    write = ratio_with_spread if around_one else with_spread
    return draw(
        name,
        title,
        "; ".join(f"{each}, {label}: {write(value)}" for each, label, value in values)
        or "nothing was measured",
        paint,
        notes=tuple(
            f"Not drawn: {each}, {label}; 0 has no place on a logarithmic axis"
            for each, label, value in values
            if value.low <= 0
        ),
        height_inches=1.6 + (0.2 if one_series_a_row else 0.42) * len(labels),
    )


def _offset(index: int, number: int) -> float:
    """Return how far from its row's middle one of so many series lies."""
    return (index - (number - 1) / 2) * 0.7 / number


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
        axes.set_xticks(ticks, [f"{100 * (1 - 1 / tick):.8g}" for tick in ticks])
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


def _spectrum(latency: Latency) -> tuple[list[float], list[float]]:
    """Return 1 / (1 - p) and the milliseconds within which a share p of the operations lies."""
    decades = min(math.log10(latency.count), _FINEST)
    steps = max(round(decades * _POINTS_PER_DECADE), 1)
    rarities = [10 ** (decades * step / steps) for step in range(steps + 1)]
    microseconds = Histogram.merge([latency.hdr]).values_at(
        [100 * (1 - 1 / rarity) for rarity in rarities]
    )
    return rarities, [value / 1000 for value in microseconds]


def rounds_plot(sides: Mapping[str, Side], figure: Figure) -> Plot:
    """Draw a figure of each side, round by round."""
    return course_plot(
        f"rounds-{figure.name.replace('_', '-')}",
        f"{figure.title} in each round",
        f"{figure.title.lower()} ({figure.unit})",
        {
            side.name: [(float(each.number), each.figures.get(figure.name)) for each in side.rounds]
            for side in sides.values()
        },
        x_label="round (number)",
    )


def course_plot(
    name: str,
    title: str,
    label: str,
    curves: Mapping[str, Sequence[tuple[float, float | None]]],
    *,
    x_label: str = "time (s)",
    marks: Sequence[float] = (),
    is_log: bool = False,
) -> Plot:
    """Draw figures over time.

    Args:
        name: unique on the page.
        title: what it shows.
        label: of the figures, with their unit.
        curves: points of each series; those without a figure are left out.
        x_label: of the other axis.
        marks: where to draw a line across.
        is_log: whether the figures' axis is logarithmic.
    """
    known = {
        series: [(at, value) for at, value in curve if value is not None]
        for series, curve in curves.items()
    }
    known = {series: curve for series, curve in known.items() if curve}

    def paint(axes: "Axes") -> None:
        from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

        for style, (series, curve) in zip(SERIES, known.items(), strict=False):
            axes.plot(
                [at for at, _ in curve],
                [value for _, value in curve],
                label=series,
                color=style.colour,
                linestyle=style.line,
                marker=style.marker if len(curve) <= _WIDE else "",
            )
        for mark in marks:
            axes.axvline(mark, color=MUTED, linewidth=1)
        values = [value for curve in known.values() for _, value in curve if value > 0] or [1.0]
        if is_log:
            readable_log_axis(axes, "y", min(values) / 1.3, max(values) * 1.3)
        else:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
            if "number" in x_label:
                axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel(x_label)
        axes.set_ylabel(label)

    text = "; ".join(
        f"{series}: {written(curve[0][1])} at first, {written(curve[-1][1])} at last"
        for series, curve in known.items()
    )
    return draw(name, title, text or "nothing was measured", paint, height_inches=2.8)
