"""The generated dashboards and Prometheus's rules, as tests look at them."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from ruamel.yaml import YAML

from grafana.dashboards.generate import GENERATED
from grafana.local.panels import DashboardView, read_dashboard
from grafana.local.stack import PROMETHEUS_DIR

__all__ = ["Asked", "Rule", "asked", "dashboards", "rules"]


@dataclass(frozen=True)
class Rule:
    """A recording or alerting rule."""

    name: str
    expression: str
    content: dict[str, Any]

    @property
    def is_alert(self) -> bool:
        return "alert" in self.content


@dataclass(frozen=True)
class Asked:
    """A query of a panel or an annotation, and where it stands."""

    where: str
    expression: str
    legend: str = ""


@cache
def dashboards() -> list[DashboardView]:
    return [read_dashboard(path) for path in sorted(GENERATED.glob("*.json"))]


@cache
def asked() -> list[Asked]:
    """Return every query of every dashboard."""
    return [
        *(
            Asked(f"{dashboard.name}: {panel.title}", query.expression, query.legend)
            for dashboard in dashboards()
            for panel in dashboard.panels
            for query in panel.queries
        ),
        *(
            Asked(f"{dashboard.name}: {annotation.name}", annotation.expression)
            for dashboard in dashboards()
            for annotation in dashboard.annotations
        ),
    ]


@cache
def rules() -> list[Rule]:
    return [
        Rule(rule.get("record") or rule["alert"], rule["expr"], rule)
        for path in sorted((PROMETHEUS_DIR / "rules").glob("*.yml"))
        for group in YAML(typ="safe").load(path)["groups"]
        for rule in group["rules"]
    ]
