"""The generated dashboards: up to date, fit for Grafana, and by the rules of good dashboards.

Those are Grafana's dashboard-linter's, as far as they can be checked without it, and our own.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from grafana.dashboards.generate import GENERATED, generate
from grafana.local.panels import View
from grafana.local.stack import STRATEGIES
from tests.support.dashboards import Asked, asked, dashboards, rules
from tests.support.metric_table import documented

SCHEMA = json.loads((Path(__file__).parent / "schema" / "dashboard.schema.json").read_text())
NAMES = ("overview", "strategies", "runtime")

# Series that are neither ours nor a rule's: Prometheus makes them.
MADE_BY_PROMETHEUS = {"up", "ALERTS"}


def generated(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((GENERATED / f"{name}.json").read_text())
    return content


def charts(name: str) -> list[View]:
    (found,) = [dashboard for dashboard in dashboards() if dashboard.name == name]
    return [panel for panel in found.panels if panel.kind != "row"]


def every_panel() -> list[tuple[str, dict[str, Any]]]:
    return [
        (name, panel)
        for name in NAMES
        for panel in generated(name)["panels"]
        if panel["type"] != "row"
    ]


# --- Generated ------------------------------------------------------------------------------------


def test_the_dashboards_are_up_to_date() -> None:
    committed = {path.name: path.read_text() for path in GENERATED.iterdir()}
    assert committed == generate(), "run `make dashboards` and commit what it wrote"


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_is_one_by_grafanas_own_types(name: str) -> None:
    faults = [
        f"{'/'.join(map(str, fault.absolute_path))}: {fault.message[:200]}"
        for fault in Draft7Validator(SCHEMA).iter_errors(generated(name))
    ]
    assert faults == []


def misspell_option(dashboard: dict[str, Any]) -> None:
    chart = next(panel for panel in dashboard["panels"] if panel["type"] == "timeseries")
    chart["options"]["tooltips"] = chart["options"].pop("tooltip")


def misspell_field(dashboard: dict[str, Any]) -> None:
    chart = next(panel for panel in dashboard["panels"] if panel["type"] == "timeseries")
    chart["fieldConfig"]["defaults"]["custom"]["lineWidths"] = 1


def choose_unknown_colours(dashboard: dict[str, Any]) -> None:
    dashboard["panels"][1]["fieldConfig"]["defaults"]["color"]["mode"] = "palette-modern"


def forget_query(dashboard: dict[str, Any]) -> None:
    del dashboard["panels"][1]["targets"][0]["expr"]


def refresh_variable_sometimes(dashboard: dict[str, Any]) -> None:
    dashboard["templating"]["list"][1]["refresh"] = 7


@pytest.mark.parametrize(
    "spoil",
    [
        misspell_option,
        misspell_field,
        choose_unknown_colours,
        forget_query,
        refresh_variable_sometimes,
    ],
)
def test_the_schema_notices_a_mistake(spoil: Callable[[dict[str, Any]], None]) -> None:
    dashboard = generated("overview")
    spoil(dashboard)
    assert list(Draft7Validator(SCHEMA).iter_errors(dashboard))


# --- Dashboards -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_nobody_edits_a_dashboard_but_here(name: str) -> None:
    assert generated(name)["editable"] is False


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_opens_on_now_and_moves(name: str) -> None:
    dashboard = generated(name)
    assert dashboard["time"] == {"from": "now-15m", "to": "now"}
    assert dashboard["refresh"] == "5s"


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_links_to_the_others_and_keeps_what_was_chosen(name: str) -> None:
    links = generated(name)["links"]
    assert {link["url"] for link in links} == {
        f"/d/connect-actor-{other}" for other in NAMES if other != name
    }
    assert all(link["includeVars"] and link["keepTime"] for link in links)
    assert generated(name)["uid"] == f"connect-actor-{name}"


@pytest.mark.parametrize("name", NAMES)
def test_a_dashboard_marks_restarts_and_strategy_changes(name: str) -> None:
    assert [event["name"] for event in generated(name)["annotations"]["list"]] == [
        "restarts",
        "strategy changes",
    ]


@pytest.mark.parametrize("name", NAMES)
def test_there_is_one_datasource_and_everything_uses_it(name: str) -> None:
    dashboard = generated(name)
    first, *others = dashboard["templating"]["list"]
    assert (first["name"], first["label"], first["query"]) == (
        "datasource",
        "Data Source",
        "prometheus",
    )
    assert all(variable["type"] != "datasource" for variable in others)
    used = [
        thing["datasource"]
        for thing in (
            *others,
            *dashboard["annotations"]["list"],
            *(panel for panel in dashboard["panels"] if panel["type"] != "row"),
            *(target for panel in dashboard["panels"] for target in panel.get("targets", ())),
        )
    ]
    assert {json.dumps(source, sort_keys=True) for source in used} == {
        '{"type": "prometheus", "uid": "$datasource"}'
    }


@pytest.mark.parametrize("name", NAMES)
def test_variables_choose_several_or_all_and_follow_the_time_range(name: str) -> None:
    variables = generated(name)["templating"]["list"][1:]
    assert {"job", "instance", "strategy"} <= {variable["name"] for variable in variables}
    for variable in variables:
        assert variable["label"] == variable["name"]
        assert variable["multi"] is variable["includeAll"] is True
        assert variable["allValue"] == ".+"
        assert variable["refresh"] == 2
        assert variable["query"].endswith(f", {variable['name']})")


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_is_used(name: str) -> None:
    queries = " ".join(query.expression for panel in charts(name) for query in panel.queries)
    for variable in generated(name)["templating"]["list"][1:]:
        assert f'=~"${variable["name"]}"' in queries, variable["name"]


# --- Panels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "panel"), every_panel(), ids=[f"{name}: {it['title']}" for name, it in every_panel()]
)
def test_a_panel_says_what_it_shows_and_what_it_means_if_it_shows_nothing(
    name: str, panel: dict[str, Any]
) -> None:
    del name
    assert len(panel["title"]) > 15
    assert panel["description"].endswith(".")
    assert panel["targets"]
    defaults = panel["fieldConfig"]["defaults"]
    assert defaults["unit"]
    assert defaults["noValue"]
    assert [mapping["options"]["match"] for mapping in defaults["mappings"]] == ["null+nan"]
    assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("name", NAMES)
def test_panels_fill_the_grid_without_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in generated(name)["panels"]:
        grid = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(grid["x"], grid["x"] + grid["w"])
            for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not cells & taken
        taken |= cells
    assert len(taken) == 24 * (1 + max(y for _, y in taken))


def test_lines_take_their_colour_from_their_name() -> None:
    for _, panel in every_panel():
        mode = panel["fieldConfig"]["defaults"]["color"]["mode"]
        assert mode == (
            "palette-classic-by-name" if panel["type"] == "timeseries" else "thresholds"
        )
        assert panel["fieldConfig"]["overrides"] == []


def test_titles_and_ids_are_unique_on_a_dashboard() -> None:
    for name in NAMES:
        panels = generated(name)["panels"]
        for key in ("title", "id"):
            assert len({panel[key] for panel in panels}) == len(panels)


def test_the_comparison_has_every_axis_that_the_audit_argues_about() -> None:
    titles = " ".join(panel.title for panel in charts("strategies"))
    for axis in (
        "Throughput",
        "p99",
        "Journal bytes per message",
        "Allocation per message",
        "GC",
        "CPU per message",
        "Write amplification",
    ):
        assert axis in titles


def test_strategies_are_told_apart_on_every_panel_of_the_comparison() -> None:
    for panel in charts("strategies"):
        assert [query.legend for query in panel.queries] == ["{{strategy}}"]
    assert len(STRATEGIES) == 3


# --- Queries --------------------------------------------------------------------------------------


def selectors(expression: str) -> Iterator[tuple[str, str, str]]:
    """Yield each name of a series, what stands before it, and what stands behind it."""
    names = r"\b(instance_strategy:[\w:]+|(?:connect|loadgen|process|python)_\w+|up|ALERTS)\b"
    for found in re.finditer(names, expression):
        yield found[1], expression[: found.start()], expression[found.end() :]


@pytest.mark.parametrize("query", asked(), ids=lambda query: query.where)
def test_a_query_asks_for_the_chosen_jobs_and_instances_only(query: Asked) -> None:
    found = list(selectors(query.expression))
    assert found
    for name, _, behind in found:
        assert behind.startswith('{job=~"$job", instance=~"$instance"'), name


@cache
def known_series() -> set[str]:
    known = MADE_BY_PROMETHEUS | {rule.name for rule in rules()}
    for row in documented():
        known |= (
            {f"{row.name}{part}" for part in ("_bucket", "_sum", "_count")}
            if row.kind == "histogram"
            else {row.name}
        )
    return known


@pytest.mark.parametrize("query", asked(), ids=lambda query: query.where)
def test_a_query_asks_for_series_that_exist(query: Asked) -> None:
    assert {name for name, _, _ in selectors(query.expression)} <= known_series()


@pytest.mark.parametrize("query", asked(), ids=lambda query: query.where)
def test_counters_are_read_by_their_increase_alone(query: Asked) -> None:
    for name, before, behind in selectors(query.expression):
        is_counter = name.endswith(("_total", "_bucket", "_sum", "_count"))
        assert is_counter == bool(re.search(r"\b(rate|increase)\($", before)), name
        if is_counter:
            assert re.match(r"\{[^}]*\}\[\$__(rate_interval|range)\]\)", behind), name


@pytest.mark.parametrize("query", asked(), ids=lambda query: query.where)
def test_rates_are_over_grafanas_interval(query: Asked) -> None:
    # The linter would have $__rate_interval everywhere; a total "in this time range" is over
    # $__range.
    for function, interval in re.findall(r"\b(\w+)\([^()\[]*\[([^\]]+)\]", query.expression):
        assert interval == ("$__range" if function == "increase" else "$__rate_interval")
