"""The generated dashboards and Prometheus's rules, as tests look at them."""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from ruamel.yaml import YAML

from grafana.dashboards.generate import GENERATED
from grafana.local.stack import PROMETHEUS_DIR

__all__ = [
    "Asked",
    "Rule",
    "asked",
    "dashboard_json",
    "dashboards",
    "every_panel",
    "panels",
    "rules",
]


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
def dashboards() -> list[str]:
    """Return the names of the generated dashboards."""
    return sorted(path.stem for path in GENERATED.glob("*.json"))


@cache
def dashboard_json(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GENERATED / f"{name}.json").read_text())
    return content


def panels(name: str) -> list[dict[str, Any]]:
    """Return rows and panels of a dashboard, those in collapsed rows included."""
    return [
        each
        for panel in dashboard_json(name)["panels"]
        for each in (panel, *panel.get("panels", ()))
    ]


def every_panel() -> list[tuple[str, dict[str, Any]]]:
    """Return every panel that is no row, with its dashboard's name."""
    return [
        (name, panel) for name in dashboards() for panel in panels(name) if panel["type"] != "row"
    ]


@cache
def asked() -> list[Asked]:
    """Return every query of every dashboard."""
    return [
        *(
            Asked(f"{name}: {panel['title']}", target["expr"], target["legendFormat"])
            for name, panel in every_panel()
            for target in panel["targets"]
        ),
        *(
            Asked(f"{name}: {annotation['name']}", annotation["expr"])
            for name in dashboards()
            for annotation in dashboard_json(name)["annotations"]["list"]
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
