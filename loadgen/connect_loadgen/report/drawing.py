"""How every plot looks: one style, colours that follow the page, SVG that can share a page.

A plot is drawn in placeholder colours, which are then replaced by the page's CSS variables; so the
same plot is right in light, in dark and in print. The series' colours are those of Okabe and Ito,
told apart by the colour-blind, and each series has a marker and a line style of its own besides.
Drawing is deterministic: the same figures give the same bytes.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from connect_loadgen.report.blocks import Plot

if TYPE_CHECKING:  # matplotlib takes a second to load: it is imported when a plot is drawn
    from matplotlib.axes import Axes
    from matplotlib.typing import RcKeyType

__all__ = ["INK", "MUTED", "SERIES", "SeriesStyle", "draw", "readable_log_axis"]

INK: Final = "#010203"
MUTED: Final = "#020304"
_SERIES_COLOURS = ("#030401", "#030402", "#030403", "#030404", "#030405", "#030406")
_VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--rule)",
    **{colour: f"var(--series-{n})" for n, colour in enumerate(_SERIES_COLOURS, 1)},
}


@dataclass(frozen=True, slots=True)
class SeriesStyle:
    """What tells one series from another."""

    colour: str
    marker: str
    line: str


SERIES = tuple(
    SeriesStyle(colour, marker, line)
    for colour, marker, line in zip(
        _SERIES_COLOURS, "os^Dvp", ("-", "--", "-.", ":", "-", "--"), strict=True
    )
)

# At this width text of 10 points is still legible when a phone shows the plot at 360 pixels.
_WIDTH_INCHES = 5.8

_STYLE: "dict[RcKeyType, object]" = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": MUTED,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.facecolor": "none",
}


def draw(
    name: str,
    title: str,
    text: str,
    paint: Callable[["Axes"], None],
    *,
    notes: tuple[str, ...] = (),
    height_inches: float = 3.2,
) -> Plot:
    """Draw one plot with labelled axes.

    Args:
        name: unique on the page; the ids within the SVG begin with it.
        title: what it shows.
        text: what can be seen in it, for who can't see it.
        paint: puts the figures and both axes' labels, with units, on the axes it is given.
        notes: what is not drawn, and why.
        height_inches: how high it is.

    Raises:
        ValueError: ``paint`` has left an axis without a label.
    """
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(_WIDTH_INCHES, height_inches), layout="constrained")
        axes = figure.add_subplot()
        paint(axes)
        for axis in (axes.xaxis, axes.yaxis):
            if not axis.get_label_text():
                raise ValueError(f"plot {name}: the {axis.axis_name} axis has no label")
            axis.label.set_gid(f"{axis.axis_name}-label")
        if axes.get_legend_handles_labels()[1]:
            figure.legend(loc="outside upper center", ncols=4)
        target = io.StringIO()
        figure.savefig(
            target,
            format="svg",
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
    return Plot(title=title, svg=_for_page(target.getvalue(), name), text=text, notes=notes)


def readable_log_axis(axes: "Axes", which: str, low: float, high: float) -> None:
    """Make an axis logarithmic, with ticks that read 0.01, 1 or 1,000 and never as a power."""
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)
    decades = high / low
    subs = (1.0, 2.0, 5.0) if decades < 300 else (1.0,)
    axis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
    axis.set_major_formatter(lambda value, _: f"{value:,.12g}")
    axis.set_minor_formatter(NullFormatter())


def _for_page(svg: str, name: str) -> str:
    """Return the ``svg`` element alone, with its own ids, the page's colours and no fixed size."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    # A style element would reach the whole page; the page's own style says the same of plots.
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = svg.replace("url(#", f"url(#{name}-")
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    # The page's font, at the size that was laid out.
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    for placeholder, variable in _VARIABLES.items():
        svg = svg.replace(placeholder, variable)
    return svg.strip()
