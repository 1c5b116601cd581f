"""The generated dashboards as a reader of their JSON sees them, and their queries made concrete."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Annotation", "DashboardView", "Query", "View", "read_dashboard", "resolve"]

# "All" of every variable, as allValue says.
_VARIABLES = ("job", "instance", "strategy", "operation")
_ALL = ".+"


@dataclass(frozen=True, slots=True)
class Query:
    """One query of a panel, and how to name its series."""

    expression: str
    legend: str


@dataclass(frozen=True, slots=True)
class View:
    """One panel."""

    kind: str
    """``row``, ``stat`` or ``timeseries``."""
    title: str
    unit: str
    empty: str
    """What it shows without data."""
    stacked: bool
    bad_from: float | None
    position: tuple[int, int, int, int]
    """x, y, width and height on the grid."""
    queries: tuple[Query, ...]


@dataclass(frozen=True, slots=True)
class Annotation:
    """One kind of event."""

    name: str
    expression: str


@dataclass(frozen=True, slots=True)
class DashboardView:
    """One dashboard."""

    name: str
    title: str
    panels: tuple[View, ...]
    annotations: tuple[Annotation, ...]


def read_dashboard(path: Path) -> DashboardView:
    """Read a generated dashboard."""
    content = json.loads(path.read_text())
    return DashboardView(
        path.stem,
        content["title"],
        tuple(_view(panel) for panel in content["panels"]),
        tuple(
            Annotation(annotation["name"], annotation["expr"])
            for annotation in content["annotations"]["list"]
        ),
    )


def resolve(expression: str, rate_interval: str, time_range: str) -> str:
    """Return a query as Grafana would send it with everything chosen.

    Args:
        expression: as in the dashboard.
        rate_interval: what ``$__rate_interval`` is, such as ``20s``.
        time_range: what ``$__range`` is.
    """
    for name in _VARIABLES:
        expression = expression.replace(f'=~"${name}"', f'=~"{_ALL}"')
    return expression.replace("$__rate_interval", rate_interval).replace("$__range", time_range)


def _view(panel: Any) -> View:  # noqa: ANN401 - JSON
    field = panel.get("fieldConfig", {}).get("defaults", {})
    steps = field.get("thresholds", {}).get("steps", [])
    grid = panel["gridPos"]
    return View(
        kind=panel["type"],
        title=panel["title"],
        unit=field.get("unit", ""),
        empty=field.get("noValue", ""),
        stacked=field.get("custom", {}).get("stacking", {}).get("mode") == "normal",
        bad_from=next((step["value"] for step in steps if step["value"] is not None), None),
        position=(grid["x"], grid["y"], grid["w"], grid["h"]),
        queries=tuple(
            Query(target["expr"], target["legendFormat"]) for target in panel.get("targets", ())
        ),
    )
