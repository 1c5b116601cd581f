"""What the dashboards have in common: look, variables, annotations, links, and two kinds of panel.

No panel chooses colours: lines take theirs from their name, so that a strategy has the same colour
on every panel, and a figure turns bad at a limit that its description names.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from grafana_foundation_sdk.builders import common, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus as query
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as models

from grafana.dashboards.queries import INTERVAL, STRATEGY, selector

__all__ = ["DASHBOARDS", "WHOLE", "Limit", "Line", "Panel", "chart", "dashboard", "figure"]

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
_DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="$datasource")

# Grafana's names for what is meant, which follow its light and dark theme.
_GOOD, _BAD = "green", "red"
_RESTART, _CHANGE = "orange", "purple"

_CHART_HEIGHT = 8
_FIGURE_HEIGHT = 4


class Line(NamedTuple):
    """One query and how its series are named."""

    query: str
    legend: str


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
        title: what the reader should conclude, or where to look.
        description: what is counted, and when to worry.
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
        title: what the reader should conclude.
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
    name: str, description: str, sections: Mapping[str, Sequence[Panel]], *, by_operation: bool
) -> builders.Dashboard:
    """Return a whole dashboard.

    Args:
        name: one of ``DASHBOARDS``.
        description: what it is for.
        sections: titles of rows, and the panels below them.
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
        .with_variable(_labels_of("job", "up"))
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
    for title, panels in sections.items():
        made.with_row(builders.Row(title))
        for panel in panels:
            made.with_panel(panel)
    return made.annotation(_restarts()).annotation(_strategy_changes())


def _labels_of(label: str, selector: str) -> builders.QueryVariable:
    return (
        builders.QueryVariable(label)
        .label(label)
        .datasource(_DATASOURCE)
        .query(f"label_values({selector}, {label})")
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(multi=True)
        .include_all(include_all=True)
        .all_value(".+")
        .current(models.VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


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
