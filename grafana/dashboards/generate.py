"""Writes the dashboards as JSON (``make dashboards``)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard, Panel, RowPanel

from grafana.dashboards import overview, runtime, strategies

__all__ = ["GENERATED", "generate"]

GENERATED = Path(__file__).parents[1] / "generated"


def generate() -> Mapping[str, str]:
    """Return the JSON of every dashboard, by the name of its file."""
    modules = {"overview": overview, "strategies": strategies, "runtime": runtime}
    return {f"{name}.json": _encode(module.build().build()) for name, module in modules.items()}


def _encode(dashboard: Dashboard) -> str:
    for variable in (dashboard.templating and dashboard.templating.list_val) or ():
        # The SDK gives every variable what only those of an interval have.
        variable.auto = variable.auto_min = variable.auto_count = None
    panels = [each for panel in dashboard.panels or () for each in (panel, *_inside(panel))]
    for number, panel in enumerate(panels, start=1):
        panel.id_val = number
    return JSONEncoder(indent=2, sort_keys=True, ensure_ascii=False).encode(dashboard) + "\n"


def _inside(panel: Panel | RowPanel) -> Sequence[Panel | RowPanel]:
    return panel.panels if isinstance(panel, RowPanel) else ()


if __name__ == "__main__":
    for name, text in generate().items():
        (GENERATED / name).write_text(text)
