"""The generated dashboards: up to date, fit for Grafana, and by the rules of good dashboards.

Those are Grafana's dashboard-linter's, as far as they can be checked without it, and our own.
"""

import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from grafana.dashboards.generate import GENERATED, generate
from grafana.local.stack import STRATEGIES
from tests.support.dashboards import Asked, asked, dashboard_json, every_panel, panels, rules
from tests.support.metric_table import documented

SCHEMA = json.loads((Path(__file__).parent / "schema" / "dashboard.schema.json").read_text())
NAMES = ("overview", "strategies", "runtime")

# Series that are neither ours nor a rule's: Prometheus makes them.
MADE_BY_PROMETHEUS = {"up", "ALERTS"}


def generated(name: str) -> dict[str, Any]:
    """Return a dashboard that the test may spoil."""
    return deepcopy(dashboard_json(name))


def charts(name: str) -> list[dict[str, Any]]:
    return [panel for dashboard, panel in every_panel() if dashboard == name]


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
def test_a_dashboard_marks_restarts_strategy_changes_and_the_parts_of_the_course(
    name: str,
) -> None:
    assert [event["name"] for event in generated(name)["annotations"]["list"]] == [
        "restarts",
        "strategy changes",
        "equal load",
        "at the limit",
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
            *charts(name),
            *(target for panel in charts(name) for target in panel["targets"]),
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
        # All jobs are all of ours, by name; what else they hold is all there is.
        assert variable.get("allValue", "") == ("" if variable["name"] == "job" else ".+")
        assert variable["refresh"] == 2
        assert variable["query"].endswith(f", {variable['name']})")


@pytest.mark.parametrize("name", NAMES)
def test_only_jobs_of_ours_can_be_chosen(name: str) -> None:
    (job,) = [each for each in generated(name)["templating"]["list"] if each["name"] == "job"]
    (names,) = re.findall(r'__name__=~"([^"]+)"', job["query"])
    assert all(series.startswith(("connect_", "loadgen_")) for series in names.split("|"))


@pytest.mark.parametrize("name", NAMES)
def test_every_variable_is_used(name: str) -> None:
    queries = " ".join(target["expr"] for panel in charts(name) for target in panel["targets"])
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
    # Measured in Grafana at 1,280 pixels: a panel of 4 columns shows 15 letters of its title.
    assert len(panel["title"]) <= 3.6 * panel["gridPos"]["w"]
    assert not re.search(r"[:.;?!]", panel["title"])
    assert panel["description"].endswith(".")
    assert panel["targets"]
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["options"]["yAxis"]["unit"] if panel["type"] == "heatmap" else defaults["unit"]
    assert defaults["noValue"]
    if panel["type"] != "heatmap":
        assert [mapping["options"]["match"] for mapping in defaults["mappings"]] == ["null+nan"]
    assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("name", NAMES)
def test_panels_fill_the_grid_without_overlap(name: str) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels(name):
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
        if panel["type"] == "heatmap":
            continue
        mode = panel["fieldConfig"]["defaults"]["color"]["mode"]
        has_lines = panel["type"] == "timeseries" or panel["targets"][0]["instant"]
        assert mode == ("palette-classic-by-name" if has_lines else "thresholds")
        assert panel["fieldConfig"]["overrides"] == []


def test_titles_and_ids_are_unique_on_a_dashboard() -> None:
    for name in NAMES:
        for key in ("title", "id"):
            assert len({panel[key] for panel in panels(name)}) == len(panels(name))


def rows(name: str) -> dict[str, bool]:
    """Return the titles of a dashboard's rows, and whether they are collapsed."""
    return {
        panel["title"]: panel.get("collapsed", False)
        for panel in panels(name)
        if panel["type"] == "row"
    }


def test_only_the_first_row_of_the_runtime_dashboard_is_open() -> None:
    first, *others = rows("runtime").values()
    assert not first
    assert len(others) >= 5
    assert all(others)


def test_the_comparison_opens_with_the_answer_and_the_course() -> None:
    answer, *panels_of_answer = [
        panel for panel in panels("strategies") if panel["gridPos"]["y"] < 7
    ]
    assert answer["title"].startswith("The answer")
    assert [panel["title"] for panel in panels_of_answer] == [
        "Course",
        "Messages",
        "CPU",
        "Allocation",
        "Disk bytes",
        "Journal bytes",
    ]
    assert list(rows("strategies").values())[:2] == [False, False]


def test_the_answers_come_from_the_parts_of_the_course_and_nothing_else() -> None:
    answers = [query for query in asked() if query.expression.count("strategy_loop:")]
    assert {query.where.partition(": ")[2] for query in answers} == {
        "Messages",
        "CPU",
        "Allocation",
        "Disk bytes",
        "Journal bytes",
    }
    for query in answers:
        loop = "closed" if query.where.endswith("Messages") else "open"
        found = re.findall(r'strategy_loop:(\w+):rate15s\{loop="(\w+)"', query.expression)
        assert {part for _, part in found} == {loop}
        # Nothing but series, functions and the windows: no number is written into it.
        assert not re.search(r"(?<![\w\[])\d", query.expression)


def test_the_comparison_has_every_axis_that_the_audit_argues_about() -> None:
    titles = " ".join(panel["title"] for panel in charts("strategies"))
    for axis in (
        "Messages per second",
        "p99",
        "Journal bytes / message",
        "Allocation / message",
        "GC",
        "CPU time / message",
        "Write amplification",
    ):
        assert axis in titles


def test_strategies_are_told_apart_on_every_panel_of_the_comparison() -> None:
    for panel in charts("strategies"):
        if panel["type"] != "heatmap" and panel["title"] != "Course":
            assert [target["legendFormat"] for target in panel["targets"]] == ["{{strategy}}"]
    heatmaps = [panel for panel in charts("strategies") if panel["type"] == "heatmap"]
    assert [panel["title"].split()[-1] for panel in heatmaps] == list(STRATEGIES)


# --- Queries --------------------------------------------------------------------------------------


def selectors(expression: str) -> Iterator[tuple[str, str, str]]:
    """Yield each name of a series, what stands before it, and what stands behind it."""
    names = (
        r"\b((?:instance_strategy(?:_operation)?|strategy_loop):[\w:]+"
        r"|(?:connect|loadgen|process|python)_\w+|up|ALERTS)\b"
    )
    for found in re.finditer(names, expression):
        yield found[1], expression[: found.start()], expression[found.end() :]


@pytest.mark.parametrize("query", asked(), ids=lambda query: query.where)
def test_a_query_asks_for_the_chosen_jobs_and_instances_only(query: Asked) -> None:
    found = list(selectors(query.expression))
    assert found
    for name, _, behind in found:
        # A strategy's course is made by several targets.
        of_targets = not name.startswith("strategy_loop:")
        assert behind.startswith('{job=~"$job", instance=~"$instance"' if of_targets else "{loop=")


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
        whole = {"increase", "avg_over_time"}
        assert interval == ("$__range" if function in whole else "$__rate_interval")
