"""The picture of the README: a saved comparison as bars, for light and dark pages.

    python -m tests.docs.picture results/compare/compare.json

writes ``docs/images/comparison-light.svg`` and ``comparison-dark.svg``, and prints the caption.
"""

import io
import sys
from datetime import datetime
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import RcKeyType

from connect_loadgen.experiment.numbers import Spread
from connect_loadgen.experiment.results import Result

IMAGES = Path(__file__).parents[2] / "docs" / "images"

VARIANTS = ("full", "cached", "differential", "memory")
PANELS = (
    ("messages_per_second", "Throughput", "messages/s, more is better", 1.0),
    ("cpu_seconds_per_1000_messages", "CPU", "µs/message, less is better", 1e3),
    ("disk_write_bytes_per_message", "Disk writes", "B/message, less is better", 1.0),
)
_BARS = {"light": "#0072b2", "dark": "#56b4e9"}
_INKS = {"light": "#1d1f21", "dark": "#e6e7e8"}


def draw(result: Result[None], theme: str) -> bytes:
    """Return the picture as SVG: medians as bars, the lowest and highest round as a line."""
    ink = _INKS[theme]
    style: dict[RcKeyType, object] = {
        "svg.fonttype": "none",
        "svg.hashsalt": theme,
        "font.family": "sans-serif",
        "text.color": ink,
        "axes.labelcolor": ink,
        "axes.edgecolor": ink,
        "xtick.color": ink,
        "ytick.color": ink,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.bottom": False,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
    }
    measured = {row.name: row.measured for row in result.rows}
    with mpl.rc_context(style):
        figure = Figure(figsize=(9.6, 2.7), layout="constrained")
        for axes, (name, title, unit, scale) in zip(
            figure.subplots(1, len(PANELS), sharey=True), PANELS, strict=True
        ):
            _panel(axes, [measured.get(f"{each}.{name}") for each in VARIANTS], scale, theme)
            axes.set_title(title, loc="left", fontweight="bold")
            axes.set_xlabel(unit)
        target = io.BytesIO()
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None})
    return target.getvalue()


def _panel(axes: Axes, values: list[Spread | None], scale: float, theme: str) -> None:
    axes.set_yticks(range(len(VARIANTS)), VARIANTS)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.margins(x=0.25)
    for place, value in enumerate(values):
        if value is None:
            axes.text(0, place, " not on disk", va="center", fontsize=9)
            continue
        axes.barh(place, value.median * scale, height=0.6, color=_BARS[theme])
        axes.plot([value.low * scale, value.high * scale], [place] * 2, color=_INKS[theme], lw=1)
        axes.text(
            value.high * scale, place, f"  {value.median * scale:,.0f}", va="center", fontsize=9
        )
    axes.set_xlim(left=0)


def caption(result: Result[None]) -> str:
    """Return what the picture has to say of where it comes from."""
    day = datetime.fromisoformat(result.started_at)
    rounds = max(len(side.rounds) for side in result.sides.values())
    return (
        f"Bars are medians of {rounds} rounds, lines the lowest and the highest"
        f" ({day:%-d %B %Y}, {result.environment.cpus} shared cores)."
    )


def main(path: Path) -> None:
    """Draw a saved result for both themes."""
    result = Result[None].model_validate_json(path.read_text())
    for theme in _BARS:
        (IMAGES / f"comparison-{theme}.svg").write_bytes(draw(result, theme))
    print(caption(result))  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
