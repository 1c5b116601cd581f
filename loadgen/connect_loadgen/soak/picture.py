"""A soak as one picture for the docs: what the service held, and what it did, over time."""

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from connect_loadgen.soak.results import SoakResult, SoakSample

if TYPE_CHECKING:  # matplotlib takes a second to load: it is imported when a plot is drawn
    from matplotlib.axes import Axes

__all__ = ["picture"]

_MEBI = 2**20
_MINUTE = 60.0
# Of Okabe and Ito, as all plots.
_COLOURS = ("#0072B2", "#D55E00")

_Series = tuple[str, Callable[[SoakSample], float | None]]

_PANELS: Sequence[tuple[str, Sequence[_Series]]] = (
    ("memory, RSS (MiB)", (("RSS", lambda sample: sample.rss_bytes / _MEBI),)),
    (
        "journal (MiB)",
        (
            ("database", lambda sample: sample.database_bytes / _MEBI),
            ("WAL", lambda sample: sample.wal_bytes / _MEBI),
        ),
    ),
    (
        "descriptors, threads (number)",
        (
            ("descriptors", lambda sample: float(sample.descriptors)),
            ("threads", lambda sample: float(sample.threads)),
        ),
    ),
    ("live actors (number)", (("actors", lambda sample: sample.live_actors),)),
    ("throughput (operations/s)", (("right", lambda sample: sample.right_per_second),)),
    (
        "latency from due time (ms)",
        (("p50", lambda sample: sample.p50_ms), ("p99", lambda sample: sample.p99_ms)),
    ),
)


def picture(result: SoakResult) -> bytes:
    """Return the picture as PNG."""
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context({"font.size": 9, "axes.grid": True, "grid.linewidth": 0.4}):
        figure = Figure(figsize=(9, 8), dpi=110, layout="constrained")
        axes = figure.subplots(3, 2, sharex=True)
        for panel, (title, series) in zip(axes.flat, _PANELS, strict=True):
            _paint(panel, title, series, result.samples)
        for panel in axes[-1]:
            panel.set_xlabel("time (min)")
        figure.suptitle(
            f"Soak at {result.intended_per_second:,.0f} operations/s"
            f" ({result.settings['load']:.0%} of capacity),"
            f" {result.channels_established:,} channels"
            " replaced; verdicts rest on what is right of the line"
        )
        target = io.BytesIO()
        figure.savefig(target, format="png", metadata={"Software": None})
    return target.getvalue()


def _paint(
    axes: "Axes", title: str, series: Sequence[_Series], samples: Sequence[SoakSample]
) -> None:
    for colour, (label, value) in zip(_COLOURS, series, strict=False):
        known = [
            (sample.at_seconds / _MINUTE, found)
            for sample in samples
            if (found := value(sample)) is not None
        ]
        axes.plot([at for at, _ in known], [found for _, found in known], color=colour, label=label)
    if samples:
        middle = samples[len(samples) // 2].at_seconds / _MINUTE
        axes.axvline(middle, color="0.5", linewidth=0.8, linestyle="--")
    axes.margins(y=0.1)
    axes.set_ylim(bottom=0)
    axes.set_ylabel(title)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    if len(series) > 1:
        axes.legend(loc="best", frameon=False)
