"""``loadgen compare``: fair rounds, and what a real comparison must show on any machine."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from connect_loadgen.cli import main
from connect_loadgen.compare import VARIANTS, order_of_rounds, warnings_of
from connect_loadgen.experiment.results import CompareResult
from connect_loadgen.probes.trial import Variant
from connect_loadgen.report.compare_page import compare_page
from connect_loadgen.report.html import render
from tests.support.results import load, make_compare, require_sound, round_of

TINY = (
    "--rounds=1",
    "--channels=4",
    "--concurrency=16",
    "--frame-operations=8",
    "--warm-up-seconds=0",
    "--duration-seconds=0.4",
)


def test_a_comparison_shows_what_must_hold_on_any_machine(tmp_path: Path) -> None:
    code = main(["compare", *TINY, f"--output={tmp_path}"])
    written = (tmp_path / "compare.json").read_text()
    require_sound(code, CompareResult.model_validate_json(written))
    result: dict[str, Any] = json.loads(written)
    rounds = {variant["name"]: variant["rounds"][0] for variant in result["variants"]}
    assert list(rounds) == ["full", "cached", "differential", "memory"]
    assert sorted(each["position"] for each in rounds.values()) == [1, 2, 3, 4]
    for name, each in rounds.items():
        require_verified(each["load"], each["cost"])
        require_recovered(name, each["recovery"])
    require_order_of_record_sizes(
        {
            name: each["cost"]["record_bytes"] / each["cost"]["messages"]
            for name, each in rounds.items()
        }
    )
    # With what and where it was made.
    assert result["settings"]["channels"] == 4
    assert result["environment"]["cpus"] >= 1
    assert result["environment"]["versions"]["grpcio"] != "not installed"


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_what_is_compared_keeps_no_answers_and_the_report_says_so(
    variant: Variant, tmp_path: Path
) -> None:
    assert "--redelivery-window=0" in variant.options(tmp_path, None).command_line()
    assert "redelivery_window 0" in render(compare_page(make_compare()))


def require_verified(load: dict[str, Any], cost: dict[str, Any]) -> None:
    assert load["messages"] > 10
    assert load["verification_failures"] == 0
    assert load["errors"] == {}
    assert load["operations_finished"] == load["operations_sent"]
    assert cost["messages"] == cost["records"] == load["messages"]


def require_recovered(name: str, recovery: dict[str, Any] | None) -> None:
    if name == "memory":
        assert recovery is None
    else:
        assert recovery is not None
        assert recovery["channels"] == recovery["verified_channels"] == 4


def require_order_of_record_sizes(record: dict[str, float]) -> None:
    # What is cached is how the state is made, not what is written.
    assert record["full"] == pytest.approx(record["cached"], rel=0.1)
    assert record["differential"] < record["cached"] / 10
    assert record["memory"] == pytest.approx(record["differential"], rel=0.2)


# --- Rounds ---------------------------------------------------------------------------------------


def test_every_round_runs_every_variant_once() -> None:
    for order in order_of_rounds(20, seed=3):
        assert sorted(variant.name for variant in order) == sorted(v.name for v in VARIANTS)


def test_no_variant_keeps_its_place_over_the_rounds() -> None:
    first = Counter(order[0].name for order in order_of_rounds(100, seed=1))
    assert set(first) == {variant.name for variant in VARIANTS}
    assert min(first.values()) > 10


def test_the_order_is_that_of_the_seed() -> None:
    assert order_of_rounds(5, seed=1) == order_of_rounds(5, seed=1)
    assert order_of_rounds(5, seed=1) != order_of_rounds(5, seed=2)


# --- Warnings -------------------------------------------------------------------------------------


def test_nothing_is_said_of_rounds_that_went_well() -> None:
    assert warnings_of({"full": [round_of("full", 1, load())]}) == []


def test_what_went_wrong_is_told_by_variant_and_round() -> None:
    bad = load(wrong=2, errors={"UNAVAILABLE": 3}, generator_warnings=["too slow"])
    told = warnings_of({"full": [round_of("full", 1, load()), round_of("full", 2, bad)]})
    assert [text.partition(": ")[2] for text in told] == [
        "INVALID: generator saturated; the round is left out",
        "too slow",
        "2 answers were WRONG",
        "operations failed: {'UNAVAILABLE': 3}",
    ]
    assert all(text.startswith("full, round 2: ") for text in told)


def test_channels_that_did_not_come_back_are_told() -> None:
    round_ = round_of("full", 1, load())
    assert round_.recovery is not None
    lost = round_.recovery.model_copy(update={"channels": 5, "verified_channels": 3})
    (told,) = warnings_of({"full": [round_.model_copy(update={"recovery": lost})]})
    assert "only 3 of 5 channels" in told
