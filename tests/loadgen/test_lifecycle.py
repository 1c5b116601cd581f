"""Churn and storms beside a load, on a real service."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connect_loadgen.cli import main
from tests.support.results import read, require_sound

Run = Callable[..., dict[str, Any]]

CHANNELS = 6


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a small load and return its figures."""

    def run(*flags: str, code: int = 0) -> dict[str, Any]:
        output = tmp_path / "run.json"
        small = ("--concurrency=16", "--frame-operations=8", "--warm-up-seconds=0")
        arguments = ["run", f"--channels={CHANNELS}", *small, *flags, f"--output={tmp_path}"]
        ended = main(arguments)
        result = read(output)
        if code:
            assert ended == result.exit == code
        else:
            require_sound(ended, result)
        load: dict[str, Any] = json.loads(output.read_text())["sides"]["run"]["rounds"][0]["load"]
        return load

    return run


@pytest.mark.parametrize("transport", ["stream", "unary"])
def test_channels_are_replaced_at_a_rate_and_no_message_is_lost(run: Run, transport: str) -> None:
    load = run("--churn-rate=20", "--duration-seconds=1", f"--transport={transport}")
    lifecycle = load["lifecycle"]
    # Due at 50, 100, ... 950 ms.
    assert lifecycle["establish"]["count"] + load["replacements_skipped"] == 19
    assert lifecycle["close"]["count"] == lifecycle["establish"]["count"] > 0
    assert (load["verification_failures"], load["errors"]) == (0, {})
    assert load["operations_finished"] == load["operations_sent"] > 0


def test_storms_bring_every_channel_back_while_others_come_and_go(run: Run) -> None:
    # Each channel's turn to be closed comes ten times a second: in the middle of storms, too.
    storms = "--storms=restore@0.2,reconnect@0.3,reconnect@0.5"
    load = run(storms, "--churn-rate=60", "--duration-seconds=0.8")
    assert load["lifecycle"]["restore"]["count"] == CHANNELS
    assert load["lifecycle"]["reconnect"]["count"] == 2 * CHANNELS
    assert (load["verification_failures"], load["errors"]) == (0, {})


def test_without_churn_and_storms_nothing_is_done_to_channels(run: Run) -> None:
    assert run("--duration-seconds=0.2")["lifecycle"] == {}


def test_a_load_that_breaks_a_bound_is_stopped_and_fails(run: Run) -> None:
    load = run("--stop-if=p50>0.001", "--duration-seconds=60", code=1)
    assert load["stopped"] == "p50 was above 0.001 ms"
    assert load["duration_seconds"] < 60
    assert load["messages_per_second"] > 0
    assert load["errors"] == {}


def test_a_load_within_its_bounds_is_not_stopped(run: Run) -> None:
    load = run("--stop-if=p50>60000,errors>0.5", "--duration-seconds=0.6")
    assert load["stopped"] is None
    assert load["duration_seconds"] == pytest.approx(0.6)


def test_thinking_users_ask_less(run: Run) -> None:
    load = run("--think-seconds=0.2", "--duration-seconds=1", "--concurrency=4")
    # Each of 4 at most every 200 ms.
    assert 4 <= load["operations_finished"] <= 20
