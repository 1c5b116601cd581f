"""Prometheus's rules and configuration, by its own tool, and what promtool can't know of them."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from grafana.dashboards.overview import SLOW_BUDGET
from grafana.dashboards.queries import resolve
from grafana.local.programs import Programs
from grafana.local.stack import PROMETHEUS_DIR, configuration
from tests.support.dashboards import asked, dashboard_json, dashboards, rules
from tests.support.process import PATIENCE

RULE_FILES = sorted((PROMETHEUS_DIR / "rules").glob("*.yml"))
TEST_FILES = sorted((PROMETHEUS_DIR / "tests").glob("*.yml"))
ROOT = PROMETHEUS_DIR.parents[1]

yaml = YAML(typ="safe")


def promtool(programs: Programs, *arguments: str | Path) -> tuple[bool, str]:
    done = subprocess.run(  # noqa: S603 - Prometheus's own tool
        [programs.promtool, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    return done.returncode == 0, done.stdout + done.stderr


def alerts() -> list[str]:
    return [rule.name for rule in rules() if rule.is_alert]


# --- By promtool ----------------------------------------------------------------------------------


def test_the_rules_are_rules(programs: Programs) -> None:
    passed, said = promtool(programs, "check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES)
    assert passed, said


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_rules_do_what_their_tests_say(programs: Programs, path: Path) -> None:
    passed, said = promtool(programs, "test", "rules", path)
    assert passed, said


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("ratio_rate1h > 0.144", "ratio_rate1h > 0.25"),
        ("ratio_rate30m > 0.06", "ratio_rate30m > 0.001"),
        ("ratio_rate5m > 0.144", "ratio_rate1h > 0.144"),
        ('operation="establish", le="0.25"', 'operation="establish", le="0.1"'),
        ("increase(connect_operation_duration_seconds_count[6h])", "vector(1e9)"),
        ("[1h], 4 * 3600", "[1h], 60"),
        ("- time() < 1209600", "- time() < 1309600"),
        ('reason="late"', 'reason="cap"'),
        ('absent(up{job="connect-actor"})', 'absent(up{job="connect-actor"} == 1)'),
        ('up{job="connect-actor"} == 0', 'up{job="loadgen"} == 0'),
        ("rate(connect_journal_timeouts_total[1m])", "rate(connect_journal_rejections_total[1m])"),
        ("increase(connect_actor_recovery_failures_total[5m])", "vector(0)"),
        ("for: 2m", "for: 30m"),
        ("severity: critical", "severity: warning"),
        ('status!="OK"', 'status="OK"'),
    ],
)
def test_the_tests_notice_a_changed_rule(
    programs: Programs, tmp_path: Path, good: str, bad: str
) -> None:
    for folder, paths in (("rules", RULE_FILES), ("tests", TEST_FILES)):
        (tmp_path / folder).mkdir()
        for path in paths:
            text = path.read_text()
            (tmp_path / folder / path.name).write_text(
                text.replace(good, bad) if folder == "rules" else text
            )
    assert any(good in path.read_text() for path in RULE_FILES)
    passed, _ = promtool(programs, "test", "rules", *(tmp_path / "tests").iterdir())
    assert not passed


def test_the_configuration_of_the_local_stack_is_one(programs: Programs, tmp_path: Path) -> None:
    path = tmp_path / "prometheus.yml"
    addresses = dict.fromkeys(("full", "cached", "differential"), "127.0.0.1:1")
    yaml.dump(configuration(addresses, addresses, 0.5), path)
    passed, said = promtool(programs, "check", "config", path)
    assert passed, said
    assert f"{len(RULE_FILES)} rule files found" in said


def test_the_local_stack_is_scraped_as_the_compose_stack_is() -> None:
    services = {name: f"service-{name}:9464" for name in ("full", "cached", "differential")}
    loads = {name: f"load-{name}:9465" for name in ("full", "cached", "differential")}
    compose = yaml.load(PROMETHEUS_DIR / "prometheus.yml")
    local = configuration(services, loads, 5)
    assert local["scrape_configs"] == compose["scrape_configs"]
    assert local["global"]["scrape_interval"] == "5000ms"
    assert [Path(pattern).name for pattern in local["rule_files"]] == [
        Path(pattern).name for pattern in compose["rule_files"]
    ]


# --- Annotations, which only dashboards have ------------------------------------------------------


def test_restarts_strategy_changes_and_parts_of_the_course_are_marked_when_they_happen(
    programs: Programs, tmp_path: Path
) -> None:
    events = {
        event["name"]: resolve(event["expr"], "20s", "15m")
        for event in dashboard_json("overview")["annotations"]["list"]
    }
    started = 'process_start_time_seconds{job="j", instance="a"}'
    info = 'connect_service_info{job="j", instance="a", journal="sqlite", version="1", strategy='
    moved = {"labels": '{job="j", instance="a", strategy="differential"}', "value": 1}
    restarted = {"labels": '{job="j", instance="a"}', "value": 1}
    pacing = 'loadgen_pacing{job="l", strategy='
    all_do = {"labels": '{job="l"}', "value": 1}

    def expects(name: str, second: int, *samples: dict[str, Any]) -> dict[str, Any]:
        return {
            "expr": events[name],
            "eval_time": f"{second}s",
            "exp_samples": list(samples),
        }

    test = {
        "interval": "5s",
        "input_series": [
            {"series": started, "values": "100x11 160x20"},
            {"series": f'{info}"full"}}', "values": "1x11 stale"},
            {"series": f'{info}"differential"}}', "values": "_x12 1x20"},
            {"series": f'{pacing}"full", instance="f", loop="open"}}', "values": "1x11 0+0x20"},
            {"series": f'{pacing}"full", instance="f", loop="closed"}}', "values": "0+0x11 1x20"},
            {"series": f'{pacing}"cached", instance="c", loop="open"}}', "values": "1x12 0+0x19"},
            {"series": f'{pacing}"cached", instance="c", loop="closed"}}', "values": "0+0x12 1x19"},
        ],
        "promql_expr_test": [
            expects("restarts", 55),
            expects("restarts", 65, restarted),
            expects("restarts", 90),
            expects("strategy changes", 55),
            expects("strategy changes", 65, moved),
            expects("strategy changes", 90),
            expects("equal load", 55, all_do),
            expects("at the limit", 55),
            # One has changed over, and the other not yet been asked.
            expects("equal load", 60),
            expects("at the limit", 60),
            expects("equal load", 65),
            expects("at the limit", 65, all_do),
        ],
    }
    path = tmp_path / "annotations.yml"
    # Without it, samples are read up to the last whole minute only.
    yaml.dump({"evaluation_interval": "5s", "tests": [test]}, path)
    passed, said = promtool(programs, "test", "rules", path)
    assert passed, said


# --- The course, whose answers only a dashboard has -----------------------------------------------


def test_the_answers_are_what_the_parts_of_the_course_showed(
    programs: Programs, tmp_path: Path
) -> None:
    answers = {
        query.where: resolve(query.expression, "20s", "4m")
        for query in asked()
        if "strategy_loop:" in query.expression
    }

    def counts(metric: str, strategy: str, equal: float, limit: float, labels: str = "") -> Any:  # noqa: ANN401 - promtool's form
        # 5 s between samples: an equal load for two minutes, then the limit for two.
        return {
            "series": f'{metric}{{job="s", instance="{strategy}"{labels}}}',
            "values": f"0+{equal * 5}x23 {equal * 120}+{limit * 5}x24",
        }

    series = []
    for strategy, messages, cpu, journal, disk, allocated in (
        ("full", 2500, 0.5, 3_000_000, 4000, 90_000),
        ("differential", 4000, 0.2, 10_000, 1000, 30_000),
    ):
        of = f', strategy="{strategy}"'
        info = f'connect_service_info{{job="s", instance="{strategy}"{of}, version="1"}}'
        series += [
            {
                "series": f'loadgen_pacing{{job="l", instance="{strategy}"{of}, loop="{loop}"}}',
                "values": f"{first}x23 {1 - first}x24",
            }
            for loop, first in (("open", 1), ("closed", 0))
        ]
        series += [
            {"series": info, "values": "1x48"},
            counts("connect_changes_total", strategy, 1000, messages, of),
            counts("process_cpu_seconds_total", strategy, cpu, 0.9),
            counts("connect_journal_record_bytes_total", strategy, journal, journal, of),
            counts("connect_journal_snapshot_bytes_total", strategy, 0, 0, of),
            counts("connect_disk_written_bytes_total", strategy, disk, 99, of),
            counts("connect_allocated_bytes_total", strategy, allocated, 99, of),
        ]
    shown = {
        "Messages": 1.6,
        "CPU": 0.4,
        "Allocation": 0.333,
        "Disk bytes": 0.25,
        "Journal bytes": 300,
    }
    assert set(answers) == {f"strategies: {title}" for title in shown}
    test = {
        "interval": "5s",
        "input_series": series,
        "promql_expr_test": [
            {
                "expr": f"round({answers[f'strategies: {title}']}, 0.001)",
                "eval_time": "235s",
                "exp_samples": [
                    {"labels": '{strategy="full"}', "value": 1},
                    {"labels": '{strategy="differential"}', "value": value},
                ],
            }
            for title, value in shown.items()
        ],
    }
    path = tmp_path / "course.yml"
    rule_files = [str(PROMETHEUS_DIR / "rules" / "recording.yml")]
    content = {"rule_files": rule_files, "evaluation_interval": "5s", "tests": [test]}
    yaml.dump(content, path)
    passed, said = promtool(programs, "test", "rules", path)
    assert passed, said


# --- What promtool can't know ---------------------------------------------------------------------


def test_a_recording_rule_is_named_by_its_levels_metric_and_operations() -> None:
    for rule in rules():
        if not rule.is_alert:
            by, metric, how = rule.name.split(":")
            assert re.fullmatch(r"[a-z0-9_]+", metric)
            if by == "strategy_loop":
                assert how in {"rate15s", "min20s"}
            else:
                assert by in {"instance_strategy", "instance_strategy_operation"}
                assert "job, instance, strategy" in rule.expression
                window = re.fullmatch(r"(?:\w+_)?rate(\d+[mh])", how)
                assert window is not None
                assert set(re.findall(r"\[(\w+)\]", rule.expression)) == {window[1]}


def test_every_recording_rule_is_shared() -> None:
    used = [query.expression for query in asked()] + [rule.expression for rule in rules()]
    for rule in rules():
        # A part of the course is told from the others by a rule alone, and a window of hours would
        # cost too much to look at anew each time.
        is_costly = rule.name.startswith(("strategy_loop:", "instance_strategy_operation:"))
        at_least = 1 if is_costly else 2
        if not rule.is_alert:
            assert sum(rule.name in expression for expression in used) >= at_least, rule.name


def test_every_alert_says_how_bad_it_is_what_happened_and_what_to_do() -> None:
    for rule in rules():
        if rule.is_alert:
            notes = rule.content["annotations"]
            assert rule.content["labels"]["severity"] in {"critical", "warning"}
            assert "{{ $labels." in notes["summary"]
            assert len(notes["description"]) > len(notes["summary"])
            assert notes["dashboard"] in {f"/d/connect-actor-{name}" for name in dashboards()}


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ +(.+?) *$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}


def test_every_runbook_link_leads_to_the_section_of_its_alert() -> None:
    for rule in rules():
        if rule.is_alert:
            page, _, anchor = rule.content["annotations"]["runbook_url"].partition("#")
            assert anchor == rule.name.lower()
            assert anchor in anchors(ROOT / page), f"{page} has no section {rule.name}"


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    pages = {
        rule.content["annotations"]["runbook_url"].partition("#")[0]
        for rule in rules()
        if rule.is_alert
    }
    for page in pages:
        text = (ROOT / page).read_text()
        named = re.findall(r"^#+ +((?:Connect|Loadgen)[A-Z]\w+)$", text, re.MULTILINE)
        assert set(named) <= set(alerts())


def test_every_alert_is_tested_firing_and_quiet() -> None:
    cases = [
        case
        for path in TEST_FILES
        for test in yaml.load(path)["tests"]
        for case in test.get("alert_rule_test", ())
    ]
    for name in alerts():
        fires = {bool(case["exp_alerts"]) for case in cases if case["alertname"] == name}
        assert fires == {True, False}, name


def test_every_recording_rule_is_tested() -> None:
    text = (PROMETHEUS_DIR / "tests" / "recording.yml").read_text()
    for rule in rules():
        if not rule.is_alert:
            assert rule.name in text, rule.name


def test_dashboard_and_alert_have_the_same_objective() -> None:
    slow = [rule for rule in rules() if rule.name == "ConnectOperationsSlow"]
    bounds = [set(re.findall(r"slow:\S+ > (\S+)", rule.expression)) for rule in slow]
    assert bounds == [{f"{burn * SLOW_BUDGET:g}"} for burn in (14.4, 6)]
