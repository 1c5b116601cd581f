"""The pictures of the dashboards: what they ask and what they draw."""

import io
from dataclasses import replace

import pytest
from PIL import Image

from grafana.local.panels import DashboardView, Query, View, resolve
from grafana.local.pictures import Drawn, draw_dashboard, measure, readable
from grafana.local.prometheus import PrometheusApi, Series
from tests.support.dashboards import dashboards

NAN = float("nan")


LATENCY = View(
    kind="timeseries",
    title="Latency: lower is better",
    unit="s",
    empty="Nothing.",
    stacked=False,
    bad_from=None,
    position=(0, 0, 12, 8),
    queries=(Query('sum by (strategy) (up{job=~"$job"})', "{{strategy}} here"),),
)


class Prometheus(PrometheusApi):
    """Answers every query alike, and remembers it."""

    def __init__(self) -> None:
        super().__init__("")
        self.asked: list[tuple[str, float, float]] = []

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[Series]:
        del step
        self.asked.append((expression, start, end))
        return [
            Series({"strategy": name}, [(start, 1.0), (end, 2.0)])
            for name in ("differential", "other", "full")
        ]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00123, "s", "1.23 ms"),
        (4e-8, "s", "0.0400 µs"),
        (95.6, "s", "95.6 s"),
        (1536, "bytes", "1.50 KiB"),
        (3 << 20, "binBps", "3 MiB/s"),
        (0.25, "percentunit", "25 %"),
        (0, "percentunit", "0"),
        (1234, "ops", "1,234/s"),
        (7, "short", "7"),
    ],
)
def test_values_are_written_in_the_panels_unit(value: float, unit: str, text: str) -> None:
    assert readable(value, unit) == text


def test_a_unit_that_is_unknown_is_no_number_without_one() -> None:
    with pytest.raises(KeyError):
        readable(1, "furlongs")


@pytest.mark.parametrize("dashboard", dashboards(), ids=lambda dashboard: dashboard.name)
def test_every_unit_of_the_dashboards_can_be_written(dashboard: DashboardView) -> None:
    for panel in dashboard.panels:
        if panel.kind != "row":
            assert readable(1, panel.unit)


def test_a_query_is_asked_with_everything_chosen() -> None:
    expression = 'rate(up{job=~"$job", strategy=~"$strategy"}[$__rate_interval]) + x[$__range]'
    assert resolve(expression, "8s", "4m") == ('rate(up{job=~".+", strategy=~".+"}[8s]) + x[4m]')


def test_series_are_named_by_the_legend_and_strategies_come_first() -> None:
    prometheus = Prometheus()
    lines = measure(prometheus, LATENCY, end=1000, seconds=100, rate_interval="8s")
    assert [line.name for line in lines] == ["full here", "differential here", "other here"]
    assert prometheus.asked == [('sum by (strategy) (up{job=~".+"})', 900, 1000)]


def test_the_last_value_is_the_last_that_there_is() -> None:
    assert Drawn("a", 0, [(1, 5.0), (2, 6.0), (3, NAN)]).last == 6


@pytest.mark.parametrize(
    "lines",
    [[], [Drawn("full", 0, [(0.0, 1.0), (60.0, NAN), (90.0, 0.0)])]],
    ids=["nothing to draw", "a line with a gap"],
)
def test_a_dashboard_becomes_a_small_picture(lines: list[Drawn]) -> None:
    (overview,) = [dashboard for dashboard in dashboards() if dashboard.name == "overview"]
    # Two rows, six figures, two charts; one of them adds up.
    part = replace(overview, panels=overview.panels[:10])
    assert {panel.kind for panel in part.panels} == {"row", "stat", "timeseries"}
    picture = draw_dashboard(part, lambda _: lines, 90, 90, "Drawn by a test.")
    image = Image.open(io.BytesIO(picture))
    assert image.format == "PNG"
    assert image.width > 1000
    assert len(picture) < 400_000
