"""Every query on a real Prometheus with real services under real load, and the stack itself.

One service for each strategy on its on-disk journal, a load on each, and Prometheus with our rules:
what ``make stack`` runs, on a smaller scale and watched more closely.
"""

import asyncio
import fcntl
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from math import isnan
from typing import Any

import psutil
import pytest

from grafana.dashboards.queries import resolve
from grafana.local.__main__ import answers
from grafana.local.programs import Programs
from grafana.local.prometheus import PrometheusApi, PrometheusError, Series
from grafana.local.stack import STRATEGIES, LocalStack, StackOptions, enter_all
from tests.support.compiler import HOOK_EXPECTED
from tests.support.dashboards import Asked, asked, rules
from tests.support.process import PATIENCE, none_left

# Channels rest for 40 times as long as between two operations of one, on average, with probability
# exp(-1 * 120 / 40) = 5 %: there is always something that passivates, and something that recovers.
# A part lasts longer than its rates look back, so that in every second part all has data for 12 s.
OPTIONS = StackOptions(rate="120", channels=40, part_seconds=32, idle_timeout=1, scrape_seconds=0.5)
RATE_INTERVAL = "4s"
TIME_RANGE = "1m"

# Until every query that has to have data has some, of every strategy.
LONGEST_WAIT = 240

# What has no data in health, and why.
EMPTY_IN_HEALTH = {
    "overview: Refusals by reason": "nothing is refused",
    "rule ConnectTargetAbsent": "services are among the targets",
    "rule ConnectCertificateExpiring": "without TLS there is none",
} | {
    f"{dashboard}: {event}": "nothing restarts; tested by promtool"
    for dashboard in ("overview", "runtime", "strategies")
    for event in ("restarts", "strategy changes")
}

# The collector runs after 20,000 containers: at the stack's load perhaps not within a test. One
# part of the course has nothing that is intended, and which it is depends on the clock.
MAY_BE_EMPTY = {
    "runtime: Pause, mean",
    "overview: Intended and achieved",
    "strategies: Course",
    *(
        f"{dashboard}: {part}"
        for dashboard in ("overview", "runtime", "strategies")
        for part in ("equal load", "at the limit")
    ),
}

NEEDS_HOOK = re.compile(r"connect_allocat(ions|ed_bytes)[_:]")


@dataclass
class Seen:
    """What Prometheus answered."""

    answers: dict[str, list[Series]] = field(default_factory=dict)
    """By query, as it stands in dashboards and rules."""
    missing: list[Asked] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    rules: list[dict[str, Any]] = field(default_factory=list)
    refusal: str = ""
    """What it said to a query that is none."""


def is_complete(series: Iterable[Series]) -> bool:
    """Tell whether there is data, and of every strategy if it tells strategies apart."""
    told = {one.labels.get("strategy") for one in series if not isnan(one.value)}
    return told == {None} or told >= {*STRATEGIES}


def must_have_data(query: Asked) -> bool:
    return query.where not in {*EMPTY_IN_HEALTH, *MAY_BE_EMPTY} and (
        HOOK_EXPECTED or not NEEDS_HOOK.search(query.expression)
    )


def compared(alert: str) -> list[str]:
    """Return what an alert compares: in health the comparisons themselves have no result."""
    parts = re.split(r"^(?:and|or)$", alert, flags=re.MULTILINE)
    return [re.sub(r"\s*(?:>|<|==)\s*[\d.e+]+\s*$", "", part) for part in parts]


def questions() -> list[Asked]:
    return [
        *asked(),
        *(
            Asked(f"rule {rule.name}", expression)
            for rule in rules()
            for expression in (compared(rule.expression) if rule.is_alert else [rule.expression])
        ),
    ]


async def watch_a_load(programs: Programs) -> Seen:
    seen = Seen()
    async with LocalStack(programs, OPTIONS) as stack:
        await asyncio.to_thread(ask, stack.prometheus, seen)
    return seen


def ask(prometheus: PrometheusApi, seen: Seen) -> None:
    """Ask everything at one time, so that it can be compared, until nothing is missing."""
    queries, deadline = questions(), time.monotonic() + LONGEST_WAIT
    while True:
        now = time.time()
        seen.answers = {
            expression: prometheus.query(resolve(expression, RATE_INTERVAL, TIME_RANGE), now)
            for expression in {query.expression for query in queries}
        }
        seen.missing = [
            query
            for query in queries
            if must_have_data(query) and not is_complete(seen.answers[query.expression])
        ]
        if not seen.missing or time.monotonic() > deadline:
            break
        time.sleep(OPTIONS.scrape_seconds)
    seen.targets = prometheus.get("targets")["activeTargets"]
    seen.rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    try:
        prometheus.query("rate(")
    except PrometheusError as error:
        seen.refusal = str(error)


@pytest.fixture(scope="module")
def seen(programs: Programs, tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Seen:
    """Watch one load, whichever test process comes first; the others get what it has seen."""
    base = tmp_path_factory.getbasetemp()
    # Beside the directories of all processes of this run of the tests; never of an earlier run.
    shared = (base if worker_id == "master" else base.parent) / "seen-by-prometheus"
    with shared.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not shared.exists():
            shared.write_bytes(pickle.dumps(asyncio.run(watch_a_load(programs))))
        found: Seen = pickle.loads(shared.read_bytes())  # noqa: S301 - our own
    return found


def by_strategy(seen: Seen, expression: str) -> dict[str, float]:
    return {series.labels["strategy"]: series.value for series in seen.answers[expression]}


def queries_of(panel: str) -> list[str]:
    """Return the queries of a panel, by its dashboard and title."""
    return [query.expression for query in asked() if query.where == panel]


def values(seen: Seen, panel: str) -> dict[str, float]:
    """Return what a panel with one query shows for each strategy."""
    (query,) = queries_of(panel)
    return by_strategy(seen, query)


# --- Every query ----------------------------------------------------------------------------------


def test_every_query_of_every_panel_rule_and_alert_has_data(seen: Seen) -> None:
    assert [query.where for query in seen.missing] == []


def test_what_is_said_to_be_empty_in_health_is_empty(seen: Seen) -> None:
    for query in questions():
        if query.where in EMPTY_IN_HEALTH:
            assert seen.answers[query.expression] == [], query.where
    assert {*EMPTY_IN_HEALTH, *MAY_BE_EMPTY} <= {query.where for query in questions()}


def test_every_label_that_a_legend_names_is_one_of_its_series(seen: Seen) -> None:
    for query in asked():
        for label in re.findall(r"\{\{(\w+)\}\}", query.legend):
            assert all(label in one.labels for one in seen.answers[query.expression]), query.where


def test_prometheus_scrapes_every_service_and_every_generator(seen: Seen) -> None:
    assert [target["health"] for target in seen.targets] == ["up"] * 2 * len(STRATEGIES)
    assert all(target["lastError"] == "" for target in seen.targets)


def test_prometheus_evaluates_every_rule(seen: Seen) -> None:
    assert sorted(rule["name"] for rule in seen.rules) == sorted(rule.name for rule in rules())
    assert {rule["health"] for rule in seen.rules} == {"ok"}


def test_prometheus_refuses_what_is_no_query(seen: Seen) -> None:
    assert "parse error" in seen.refusal


# --- What they say --------------------------------------------------------------------------------


def test_all_strategies_serve_messages(seen: Seen) -> None:
    throughput = values(seen, "strategies: Messages per second")
    assert set(throughput) == set(STRATEGIES)
    assert all(value > 0 for value in throughput.values())


def test_full_writes_several_times_what_differential_writes(seen: Seen) -> None:
    journal = values(seen, "strategies: Journal bytes / message")
    assert journal["full"] > 4 * journal["differential"]


def test_the_disk_takes_more_than_had_to_be_written(seen: Seen) -> None:
    assert all(value > 1 for value in values(seen, "strategies: Write amplification").values())


def test_a_message_costs_time_and_collections_take_a_share_of_it(seen: Seen) -> None:
    cpu = values(seen, "strategies: CPU time / message")
    assert set(cpu) == set(STRATEGIES)
    assert all(0 < value < 1 for value in cpu.values())
    # In so short a run the collector may not have been called for.
    collector = values(seen, "strategies: GC share of time")
    assert set(collector) == set(STRATEGIES)
    assert all(0 <= value < 1 for value in collector.values())


def test_channels_come_back_from_the_journal(seen: Seen) -> None:
    recovery = values(seen, "strategies: Recovery, mean")
    assert set(recovery) == set(STRATEGIES)
    assert all(0 < value < 1 for value in recovery.values())


@pytest.mark.parametrize(
    "panel", ["overview: Messages, client and service", "overview: p99, client and service"]
)
def test_client_and_service_are_shown_side_by_side(seen: Seen, panel: str) -> None:
    both = [by_strategy(seen, query) for query in queries_of(panel)]
    assert [set(side) for side in both] == [set(STRATEGIES)] * 2
    assert all(value > 0 for side in both for value in side.values())


def test_the_course_answers_how_the_strategies_differ(seen: Seen) -> None:
    for panel in ("Messages", "CPU", "Disk bytes", "Journal bytes"):
        answer = values(seen, f"strategies: {panel}")
        assert set(answer) == set(STRATEGIES)
        assert answer["full"] == pytest.approx(1)
        assert all(value > 0 for value in answer.values())
    # A fraction of full's: one in so many.
    assert values(seen, "strategies: Journal bytes")["differential"] > 4


@pytest.mark.parametrize(
    "panel",
    [
        "overview: Targets down",
        "overview: Error share",
        "overview: Wrong answers",
        "runtime: Failed commits",
        "runtime: Failed loads",
        "runtime: Actor crashes",
    ],
)
def test_nothing_is_wrong_in_health(seen: Seen, panel: str) -> None:
    (query,) = queries_of(panel)
    assert [series.value for series in seen.answers[query]] == [0]


# --- What it says of a course ---------------------------------------------------------------------


class Answering(PrometheusApi):
    """Answers every query with these values."""

    def __init__(self, **values: float) -> None:
        super().__init__("")
        self.asked: list[str] = []
        self._values = values

    def query(self, expression: str, at: float | None = None) -> list[Series]:
        del at
        self.asked.append(expression)
        return [Series({"strategy": name}, value) for name, value in self._values.items()]


def test_after_a_course_a_line_for_each_strategy_says_what_it_showed() -> None:
    prometheus = Answering(full=1, differential=1.634)
    full, cached, differential = answers(prometheus, 180)
    assert full == (
        "full         messages 1.00x, cpu 1.00x, allocation 1.00x, disk bytes 1.00x,"
        " journal bytes 1/1"
    )
    assert cached.split() == ["cached"]
    assert "messages 1.63x" in differential
    assert differential.endswith("journal bytes 1/2")
    assert all("[180s]" in expression for expression in prometheus.asked)


def test_a_prometheus_that_does_not_answer_is_what_is_said() -> None:
    (said,) = answers(PrometheusApi("127.0.0.1:1"), 180)
    assert said.startswith("no Prometheus answers at 127.0.0.1:1")


# --- Starting side by side ------------------------------------------------------------------------


class Part:
    """Something to start that never gets ready, and takes its time to clean up."""

    def __init__(self, turns: int, fault: Exception | None = None) -> None:
        self.begun = asyncio.Event()
        self.is_clean = False
        self._turns = turns
        self._fault = fault

    async def __aenter__(self) -> None:
        self.begun.set()
        try:
            if self._fault is not None:
                raise self._fault
            await asyncio.Event().wait()
        finally:
            for _ in range(self._turns):
                await asyncio.sleep(0)
            self.is_clean = True

    async def __aexit__(self, *error: object) -> None:
        raise AssertionError


async def test_parts_that_start_clean_up_in_peace_when_the_start_is_given_up() -> None:
    parts = [Part(0), Part(5), Part(20)]
    async with AsyncExitStack() as exits:
        start = asyncio.create_task(enter_all(exits, parts))
        for part in parts:
            await part.begun.wait()
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
    assert all(part.is_clean for part in parts)


async def test_a_part_that_fails_is_told_of_after_all_others_have_cleaned_up() -> None:
    parts = [Part(20), Part(0, OSError("no port")), Part(5)]
    async with AsyncExitStack() as exits:
        with pytest.raises(OSError, match="no port"):
            await enter_all(exits, parts)
    assert all(part.is_clean for part in parts)


# --- make stack -----------------------------------------------------------------------------------


def start_stack(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "grafana.local", "--prometheus-listen=127.0.0.1:0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(process: subprocess.Popen[str], text: str) -> str:
    said = ""
    assert process.stdout is not None
    while text not in said:
        line = process.stdout.readline()
        assert line, process.communicate()
        said += line
    return said


def test_the_stack_says_where_it_is_and_ctrl_c_ends_all_of_it(programs: Programs) -> None:
    del programs
    process = start_stack("--rate=20", "--channels=5")
    said = read_until(process, "Ctrl-C ends everything")
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) == 2 * len(STRATEGIES) + 1
    (address,) = re.findall(r"Prometheus +http://(\S+)", said)
    assert PrometheusApi(address).query("vector(1)")[0].value == 1
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE * 2)
    assert (process.returncode, err) == (0, "")
    assert out.endswith("stack: stopped\n")
    assert none_left(children)


def test_a_stack_that_loses_a_part_ends_and_says_which(programs: Programs) -> None:
    del programs
    process = start_stack("--rate=20", "--channels=5")
    read_until(process, "Ctrl-C ends everything")
    children = psutil.Process(process.pid).children(recursive=True)
    next(child for child in children if "--strategy=cached" in child.cmdline()).kill()
    _, err = process.communicate(timeout=PATIENCE * 2)
    assert process.returncode == 1
    assert "stack:" in err
    assert none_left(children)


def test_a_stack_given_up_while_it_starts_leaves_nothing(programs: Programs) -> None:
    del programs
    process = start_stack("--rate=20", "--channels=5")
    read_until(process, "starting")
    deadline = time.monotonic() + PATIENCE
    while not (children := psutil.Process(process.pid).children(recursive=True)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE * 2)
    assert (process.returncode, err) == (
        1,
        "stack: given up; what was started is stopped\n",
    )
    assert none_left(children)
