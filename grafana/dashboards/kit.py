"""What the dashboards share: look, variables, annotations, links, and the kinds of panel.

Titles are short nouns, which Grafana shows whole in a window of 1,280 pixels; what to conclude is
in the description. No panel chooses colours: lines take theirs from their name, so that a strategy
has the same colour on every panel, and a figure turns bad at a limit that its description names.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

from grafana_foundation_sdk.builders import common, heatmap, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus as query
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmaps
from grafana_foundation_sdk.models import prometheus as queries

from grafana.dashboards.queries import INTERVAL, STRATEGY, selector

__all__ = [
    "DASHBOARDS",
    "WHOLE",
    "Limit",
    "Line",
    "Panel",
    "Section",
    "chart",
    "comparison",
    "dashboard",
    "figure",
    "latency",
]

WHOLE = 24
"""Width of the grid."""

DASHBOARDS = {
    "overview": "connect-actor: overview",
    "strategies": "connect-actor: strategies",
    "runtime": "connect-actor: runtime",
}
"""Every dashboard's name, in the order of reading, and its title."""

Panel: TypeAlias = Builder[models.Panel]

_TAG = "connect-actor"

# What only our jobs have. "All" of them are just these, whatever else Prometheus scrapes.
_OURS = '{__name__=~"connect_service_info|loadgen_channels"}'
_DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="$datasource")

# Grafana's names for what is meant, which follow its light and dark theme.
_GOOD, _BAD = "green", "red"
_RESTART, _CHANGE = "orange", "purple"
_PARTS = {"equal load": ("open", "blue"), "at the limit": ("closed", "yellow")}

_CHART_HEIGHT = 8
_FIGURE_HEIGHT = 4
_COMPARISON_HEIGHT = 6


class Line(NamedTuple):
    """One query and how its series are named."""

    query: str
    legend: str


class Section(NamedTuple):
    """A row of a dashboard."""

    title: str
    panels: Sequence[Panel]
    collapsed: bool = False
    """Whether it is opened by hand."""


class Limit(NamedTuple):
    """From which value on a figure is bad."""

    bad_from: float


# --- Panels ---------------------------------------------------------------------------------------


def chart(
    title: str,
    description: str,
    unit: str,
    *lines: Line,
    width: int = 8,
    empty: str = "No load in this time range.",
    stacked: bool = False,
) -> Panel:
    """Return a panel with lines over time.

    Args:
        title: what is shown.
        description: what is counted, what to conclude, and when to worry.
        unit: Grafana's id of the unit.
        lines: the queries.
        width: of 24.
        empty: what to show when no query has an answer.
        stacked: whether lines add up to something.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(_DATASOURCE)
        .unit(unit)
        .min(0)
        .no_value(empty)
        .mappings([_nothing()])
        .height(_CHART_HEIGHT)
        .span(width)
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
        .line_width(2 if not stacked else 1)
        .fill_opacity(30 if stacked else 0)
        .show_points(options.VisibilityMode.NEVER)
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.TABLE)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
            .calcs(["mean", "max", "lastNotNull"])
        )
        .tooltip(
            common.VizTooltipOptions()
            .mode(options.TooltipDisplayMode.MULTI)
            .sort(options.SortOrder.DESCENDING)
        )
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL))
    for number, line in enumerate(lines):
        panel.with_target(_target(number, line).range())
    return panel


def figure(
    title: str,
    description: str,
    unit: str,
    line: Line,
    *,
    limit: Limit | None = None,
    width: int = 4,
    empty: str = "no load",
    decimals: int | None = None,
) -> Panel:
    """Return a panel with one number for now.

    Args:
        title: what is shown.
        description: what is counted, and when to worry.
        unit: Grafana's id of the unit.
        line: the query; its legend names the values if there are several.
        limit: where it turns bad; without, it is neither good nor bad.
        width: of 24.
        empty: what to show when there is nothing.
        decimals: places behind the point; without, Grafana chooses.
    """
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(_DATASOURCE)
        .unit(unit)
        .no_value(empty)
        .mappings([_nothing(empty)])
        .height(_FIGURE_HEIGHT)
        .span(width)
        .graph_mode(options.BigValueGraphMode.AREA)
        .color_mode(
            options.BigValueColorMode.NONE if limit is None else options.BigValueColorMode.VALUE
        )
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds(limit))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False))
        .with_target(_target(0, line).range())
    )
    return panel if decimals is None else panel.decimals(decimals)


def comparison(
    title: str,
    description: str,
    unit: str,
    *lines: Line,
    decimals: int = 2,
    names_only: bool = False,
) -> Panel:
    """Return a panel with one number for each series, over the dashboard's time range.

    Args:
        title: what is compared.
        description: what is counted, and what to conclude.
        unit: Grafana's id of the unit.
        lines: the queries, asked for one moment.
        decimals: places behind the point.
        names_only: whether to show which series there are, and no numbers.
    """
    shown = options.BigValueTextMode
    by_name = builders.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC_BY_NAME)
    panel = (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(_DATASOURCE)
        .unit(unit)
        .no_value("no course yet")
        .mappings([_nothing("no course yet")])
        .height(_COMPARISON_HEIGHT)
        .span(4)
        .decimals(decimals)
        .graph_mode(options.BigValueGraphMode.NONE)
        .color_mode(options.BigValueColorMode.VALUE)
        .color_scheme(by_name)
        .orientation(options.VizOrientation.HORIZONTAL)
        .text_mode(shown.NAME if names_only else shown.VALUE_AND_NAME)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False))
    )
    for number, line in enumerate(lines):
        panel.with_target(_target(number, line).instant())
    return panel


def latency(title: str, description: str, query_of_buckets: str, *, width: int = 8) -> Panel:
    """Return a panel that shows how durations are distributed over time.

    Args:
        title: whose durations.
        description: what is counted, and what to conclude.
        query_of_buckets: rates of a histogram's buckets, by ``le``.
        width: of 24.
    """
    target = _target(0, Line(query_of_buckets, "{{le}}")).range()
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(_DATASOURCE)
        .no_value("No load in this time range.")
        .height(_CHART_HEIGHT)
        .span(width)
        .color(
            heatmap.HeatmapColorOptions()
            .mode(heatmaps.HeatmapColorMode.SCHEME)
            .scheme("Oranges")
            .scale(heatmaps.HeatmapColorScale.EXPONENTIAL)
            .exponent(0.5)
            .steps(64)
        )
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .with_target(target.format(queries.PromQueryFormat.HEATMAP))
    )


def _target(number: int, line: Line) -> query.Dataquery:
    return (
        query.Dataquery()
        .ref_id("ABCDEFGHIJ"[number])
        .datasource(_DATASOURCE)
        .expr(line.query)
        .legend_format(line.legend)
    )


def _thresholds(limit: Limit | None) -> builders.ThresholdsConfig:
    steps = [models.Threshold(value=None, color=_GOOD)]
    if limit is not None:
        steps.append(models.Threshold(value=limit.bad_from, color=_BAD))
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _nothing(text: str = "none") -> models.SpecialValueMap:
    return models.SpecialValueMap(
        models.DashboardSpecialValueMapOptions(
            match=models.SpecialValueMatch.NULL_AND_NAN,
            result=models.ValueMappingResult(text=text),
        )
    )


# --- Dashboards -----------------------------------------------------------------------------------


def dashboard(
    name: str, description: str, *sections: Section, by_operation: bool
) -> builders.Dashboard:
    """Return a whole dashboard.

    Args:
        name: one of ``DASHBOARDS``.
        description: what it is for.
        sections: its rows.
        by_operation: whether there is something on it that can be asked for single operations.
    """
    made = (
        builders.Dashboard(DASHBOARDS[name])
        .uid(f"connect-actor-{name}")
        .description(description)
        .tags([_TAG])
        .readonly()
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .refresh("5s")
        .time("now-15m", "now")
        .with_variable(
            builders.DatasourceVariable("datasource").label("Data Source").type("prometheus")
        )
        .with_variable(_labels_of("job", _OURS, all_value=None))
        .with_variable(_labels_of("instance", 'up{job=~"$job"}'))
        .with_variable(
            _labels_of("strategy", 'connect_service_info{job=~"$job", instance=~"$instance"}')
        )
    )
    if by_operation:
        made.with_variable(
            _labels_of(
                "operation",
                f'connect_operations_total{{job=~"$job", instance=~"$instance", {STRATEGY}}}',
            )
        )
    for link in _links(name):
        made.link(link)
    for section in sections:
        row = builders.Row(section.title)
        if section.collapsed:
            for panel in section.panels:
                row.with_panel(panel)
            made.with_row(row.collapsed(collapsed=True))
        else:
            made.with_row(row)
            for panel in section.panels:
                made.with_panel(panel)
    for event in (_restarts(), _strategy_changes(), *_parts()):
        made.annotation(event)
    return made


def _labels_of(
    label: str, selector: str, *, all_value: str | None = ".+"
) -> builders.QueryVariable:
    variable = (
        builders.QueryVariable(label)
        .label(label)
        .datasource(_DATASOURCE)
        .query(f"label_values({selector}, {label})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )
    return variable if all_value is None else variable.all_value(all_value)


def _links(name: str) -> list[builders.DashboardLink]:
    return [
        builders.DashboardLink(title)
        .type(models.DashboardLinkType.LINK)
        .url(f"/d/connect-actor-{other}")
        .icon("dashboard")
        .tooltip(f"{title}, same time range and selection")
        .include_vars(include_vars=True)
        .keep_time(keep_time=True)
        for other, title in DASHBOARDS.items()
        if other != name
    ]


class _Event(builders.AnnotationQuery):
    """An annotation by Prometheus, with a text."""

    def __init__(self, name: str, colour: str, expression: str, text: str) -> None:
        super().__init__()
        self._internal = _WithText(
            name=name, datasource=_DATASOURCE, enable=True, icon_color=colour, expr=expression
        )
        self._internal.text = text


class _WithText(models.AnnotationQuery):
    # Prometheus's part of an annotation has fields that the SDK's model lacks.
    text = ""

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), "titleFormat": self.text, "step": "5s"}


def _restarts() -> _Event:
    return _Event(
        "restarts",
        _RESTART,
        "max by (job, instance) "
        f"(changes({selector('process_start_time_seconds')}[{INTERVAL}])) > 0",
        "{{instance}} restarted",
    )


def _strategy_changes() -> _Event:
    by = "max by (job, instance, strategy)"
    info = selector("connect_service_info")
    now, before = f"{by} ({info})", f"{by} ({info} offset {INTERVAL})"
    return _Event(
        "strategy changes",
        _CHANGE,
        f"({now} unless {before}) and on (job, instance) {before}",
        "{{instance}} now runs {{strategy}}",
    )


def _parts() -> Iterator[_Event]:
    for name, (loop, colour) in _PARTS.items():
        loops = selector("loadgen_pacing", f'loop="{loop}"', STRATEGY)
        yield _Event(name, colour, f"min by (job) ({loops}) == 1", name)
