"""Pictures of what the dashboards ask, for where no Grafana runs (``make pictures``).

Not Grafana: this reads the generated dashboards, puts each panel's own queries to the Prometheus of
a local stack that has been under load for some minutes, and draws the answers where the panel
stands on the grid. Look, colours and legends are this module's; every picture says so.
"""

import argparse
import asyncio
import io
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, isnan, nan
from pathlib import Path
from textwrap import wrap

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

from connect_loadgen.experiment.numbers import count
from connect_loadgen.experiment.numbers import figure as written
from grafana.dashboards.generate import GENERATED
from grafana.local.panels import DashboardView, View, read_dashboard, resolve
from grafana.local.programs import find_programs
from grafana.local.prometheus import PrometheusApi
from grafana.local.stack import STRATEGIES, LocalStack, StackOptions

__all__ = ["Drawn", "draw_dashboard", "main", "measure", "readable"]

_IMAGES = Path(__file__).parents[2] / "docs" / "images"

# Inches of a cell of the grid, which is 24 wide, and pixels of an inch.
_CELL_WIDTH, _CELL_HEIGHT = 0.72, 0.3
_COLUMNS = 24
_DPI = 84
_HEAD = 0.75

# Okabe and Ito's, told apart by the colour-blind; the strategies come first.
_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999933", "#555555")
_GOOD, _BAD = "#1a7f37", "#c62828"
_INK, _MUTED, _RULE = "#222222", "#777777", "#cccccc"
_STYLES = ("-", (0, (4, 2)), (0, (1, 1.5)))

_POINTS = 120
"""Points of a line."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One line of a panel: its name, the number of its query, its points."""

    name: str
    query: int
    points: list[tuple[float, float]]

    @property
    def last(self) -> float:
        """The last value that there is; NaN if there is none."""
        return next((value for _, value in reversed(self.points) if not isnan(value)), nan)


# --- Asking ---------------------------------------------------------------------------------------


def measure(
    prometheus: PrometheusApi, panel: View, end: float, seconds: float, rate_interval: str
) -> list[Drawn]:
    """Put a panel's queries to Prometheus, as Grafana would, for the last ``seconds``."""
    lines = []
    for number, query in enumerate(panel.queries):
        expression = resolve(query.expression, rate_interval, f"{round(seconds)}s")
        for series in prometheus.query_range(expression, end - seconds, end, seconds / _POINTS):
            name = query.legend
            for label, text in series.labels.items():
                name = name.replace(f"{{{{{label}}}}}", text)
            lines.append(Drawn(name, number, series.points))
    return sorted(lines, key=lambda line: (line.query, _rank(line.name), line.name))


def _rank(name: str) -> int:
    return next((n for n, strategy in enumerate(STRATEGIES) if strategy in name), len(STRATEGIES))


# --- Drawing --------------------------------------------------------------------------------------


def draw_dashboard(
    dashboard: DashboardView,
    lines: Callable[[View], list[Drawn]],
    end: float,
    seconds: float,
    below: str,
) -> bytes:
    """Return a PNG of a whole dashboard.

    Args:
        dashboard: what to draw.
        lines: what Prometheus answers to a panel.
        end: right end of all charts, seconds since the epoch.
        seconds: how long they reach back.
        below: what the picture is, for below its title.
    """
    height = max(y + h for _, y, _, h in (panel.position for panel in dashboard.panels))
    inches = height * _CELL_HEIGHT + _HEAD
    with mpl.rc_context({"font.size": 8, "text.color": _INK, "axes.edgecolor": _RULE}):
        canvas = Figure(figsize=(_COLUMNS * _CELL_WIDTH, inches))
        canvas.text(0.01, 1 - 0.28 / inches, dashboard.title, size=15, weight="bold")
        canvas.text(0.01, 1 - 0.55 / inches, below, size=9, color=_BAD)
        for panel in dashboard.panels:
            x, y, w, h = panel.position
            box = _Box(
                canvas,
                x / _COLUMNS,
                1 - (_HEAD + (y + h) * _CELL_HEIGHT) / inches,
                w / _COLUMNS,
                h * _CELL_HEIGHT / inches,
            )
            if panel.kind == "row":
                box.text(0.1, 0.06, panel.title, size=11, weight="bold")
                continue
            box.frame()
            answer = [line for line in lines(panel) if not isnan(line.last)]
            if panel.kind == "stat":
                _draw_figure(box, panel, answer)
            else:
                _draw_chart(box, panel, answer, end, seconds)
        target = io.BytesIO()
        canvas.savefig(target, format="png", dpi=_DPI)
    # Lines and text on white need no more colours, and a third of the bytes.
    small = io.BytesIO()
    Image.open(target).convert("RGB").quantize(96).save(small, format="png", optimize=True)
    return small.getvalue()


class _Box:
    """A panel's place on the canvas, measured in inches from its lower left corner."""

    def __init__(self, canvas: Figure, left: float, bottom: float, w: float, h: float) -> None:
        self._canvas = canvas
        self._left, self._bottom, self._w, self._h = left, bottom, w, h
        self.width, self.height = w * canvas.get_figwidth(), h * canvas.get_figheight()

    def axes(self, left: float, bottom: float, right: float, top: float) -> Axes:
        """Return axes with these margins."""
        return self._canvas.add_axes(
            (
                *self._at(left, bottom),
                (self.width - left - right) / self._canvas.get_figwidth(),
                (self.height - bottom - top) / self._canvas.get_figheight(),
            )
        )

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float,
        weight: str = "normal",
        color: str = _INK,
    ) -> None:
        self._canvas.text(*self._at(x, y), text, size=size, weight=weight, color=color)

    def line(self, x: float, y: float, colour: str, style: object) -> None:
        """Draw a short line, for a legend."""
        (x0, y0), (x1, _) = self._at(x, y), self._at(x + 0.2, y)
        self._canvas.add_artist(
            mpl.lines.Line2D([x0, x1], [y0, y0], color=colour, linestyle=style, linewidth=1.5)  # type: ignore[arg-type] # matplotlib takes both kinds of styles
        )

    def frame(self) -> None:
        x, y = self._at(0.04, 0.04)
        self._canvas.add_artist(
            mpl.patches.Rectangle(
                (x, y),
                self._w - 0.08 / self._canvas.get_figwidth(),
                self._h - 0.08 / self._canvas.get_figheight(),
                fill=False,
                edgecolor=_RULE,
                linewidth=0.8,
            )
        )

    def title(self, text: str) -> float:
        """Write the title and return the space that it takes."""
        rows = wrap(text, int(self.width * 12.5))
        for number, row in enumerate(rows):
            self.text(0.12, self.height - 0.22 - number * 0.15, row, size=8.5, weight="bold")
        return 0.2 + len(rows) * 0.15

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return (
            self._left + x / self._canvas.get_figwidth(),
            self._bottom + y / self._canvas.get_figheight(),
        )


def _draw_figure(box: _Box, panel: View, lines: Sequence[Drawn]) -> None:
    box.title(panel.title)
    if not lines:
        box.text(0.12, 0.3, panel.empty, size=11, color=_MUTED)
    for number, line in enumerate(lines):
        colour = _INK
        if panel.bad_from is not None:
            colour = _BAD if line.last >= panel.bad_from else _GOOD
        text = readable(line.last, panel.unit)
        if len(lines) > 1:
            box.text(0.12, 0.52 - number * 0.19, f"{line.name}: {text}", size=9, color=colour)
        else:
            box.text(0.12, 0.25, text, size=20, weight="bold", color=colour)


def _draw_chart(box: _Box, panel: View, lines: Sequence[Drawn], end: float, seconds: float) -> None:
    columns = max(int(box.width / 2.1), 1)
    rows = ceil(len(lines) / columns)
    axes = box.axes(0.8, 0.36 + rows * 0.16, 0.15, box.title(panel.title) + 0.06)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color=_RULE, linewidth=0.5)
    axes.set_xlim(-seconds, 0)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda at, _: "now" if not at else _ago(-at)))
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 1.5, 3, 6]))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: readable(value, panel.unit)))
    if not lines:
        axes.set_yticks([])
        axes.set_title(panel.empty, y=0.45, size=9, color=_MUTED)
        return
    floor = [0.0] * len(max((line.points for line in lines), key=len))
    colours = _colours(lines)
    tops: list[float] = []
    for number, line in enumerate(lines):
        times = [at - end for at, _ in line.points]
        values = [value for _, value in line.points]
        colour = colours[number]
        if panel.stacked:
            top = [low + value for low, value in zip(floor, values, strict=False)]
            axes.fill_between(
                times[: len(top)], floor[: len(top)], top, color=colour, alpha=0.35, linewidth=0
            )
            values, floor = top, top
            times = times[: len(top)]
        tops += values
        style = _STYLES[line.query % len(_STYLES)]
        axes.plot(times, values, color=colour, linewidth=1.4, linestyle=style)
        x = 0.15 + (number % columns) * (box.width - 0.2) / columns
        y = 0.12 + (rows - 1 - number // columns) * 0.16
        box.line(x, y + 0.035, colour, style)
        box.text(x + 0.27, y, f"{line.name}  {readable(line.last, panel.unit)}", size=7.5)
    highest = max((value for value in tops if not isnan(value)), default=0.0)
    axes.set_ylim(0, highest * 1.12 if highest > 0 else 1)


def _colours(lines: Sequence[Drawn]) -> list[str]:
    """Return a colour for each line: its strategy's, or else the next one."""
    others: dict[str, str] = {}
    found = []
    for line in lines:
        rank = _rank(line.name)
        if rank < len(STRATEGIES):
            found.append(_COLOURS[rank])
        else:
            found.append(others.setdefault(line.name, _COLOURS[len(others) % len(_COLOURS)]))
    return found


def _ago(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"-{minutes}:{rest:02d}"


_PER_SECOND = ((1, "/s"),)
_BYTES = ((1 << 30, " GiB"), (1 << 20, " MiB"), (1 << 10, " KiB"), (1, " B"))
_SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    "s": ((1, " s"), (1e-3, " ms"), (1e-6, " µs")),
    "bytes": _BYTES,
    "binBps": tuple((size, f"{name}/s") for size, name in _BYTES),
    "percentunit": ((0.01, " %"),),
    "short": ((1, ""),),
    **dict.fromkeys(("ops", "mps", "wps", "cps"), _PER_SECOND),
}


def readable(value: float, unit: str) -> str:
    """Write a value in one of Grafana's units.

    Raises:
        KeyError: the unit is none that the dashboards use.
    """
    scales = _SCALES[unit]
    if not value:
        return "0"
    size, name = next((scale for scale in scales if abs(value) >= scale[0]), scales[-1])
    number = float(value) / size
    return f"{count(number) if number.is_integer() else written(number)}{name}"


# --- The command ----------------------------------------------------------------------------------


def main() -> int:
    """Draw all dashboards and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m grafana.local.pictures", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=4, help="how long to load before drawing (%(default)g)"
    )
    parser.add_argument(
        "--output", type=Path, default=_IMAGES, help="directory for the pictures (%(default)s)"
    )
    given = parser.parse_args()
    asyncio.run(_run(given.minutes * 60, given.output))
    return 0


async def _run(seconds: float, output: Path) -> None:
    options = StackOptions()
    programs = await asyncio.to_thread(find_programs)
    async with LocalStack(programs, options) as stack:
        sys.stdout.write(f"loading three services for {seconds:g} s\n")
        sys.stdout.flush()
        try:
            await asyncio.wait_for(stack.watch(), seconds)
        except TimeoutError:
            await asyncio.to_thread(_draw_all, stack.prometheus, seconds, options, output)


def _draw_all(
    prometheus: PrometheusApi, seconds: float, options: StackOptions, output: Path
) -> None:
    end = time.time()
    # As Grafana has it: four scrapes, and one more than what lies between two points.
    interval = max(4 * options.scrape_seconds, seconds / _POINTS + options.scrape_seconds)
    below = (
        "Drawn by grafana/local/pictures.py from the panels' own queries on a real Prometheus. Not"
        f" by Grafana. Load: {options.rate:g} operations/s on each of three services,"
        f" {seconds / 60:g} minutes."
    )
    output.mkdir(parents=True, exist_ok=True)
    for path in sorted(GENERATED.glob("*.json")):
        dashboard = read_dashboard(path)
        picture = draw_dashboard(
            dashboard,
            lambda panel: measure(prometheus, panel, end, seconds, f"{round(interval * 1000)}ms"),
            end,
            seconds,
            below,
        )
        target = output / f"dashboard-{dashboard.name}.png"
        target.write_bytes(picture)
        sys.stdout.write(f"{target}: {len(picture) / 1024:.0f} KiB\n")


if __name__ == "__main__":
    sys.exit(main())
