"""``loadgen compare``: fair rounds, and what a real comparison must show on any machine."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from connect_loadgen.cli import main
from connect_loadgen.experiment.results import Round
from connect_loadgen.experiment.turns import shuffled_rounds
from connect_loadgen.experiments.compare import LOOK, VARIANTS, warnings_of
from connect_loadgen.probes.trial import Variant
from connect_loadgen.report.html import render
from connect_loadgen.report.page import page_of
from tests.support.results import load, make_compare, read, require_sound, round_of, sides_of

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
    result = read(tmp_path / "compare.json")
    require_sound(code, result)
    rounds = {name: side.rounds[0] for name, side in result.sides.items()}
    assert list(rounds) == ["full", "cached", "differential", "memory"]
    assert sorted(each.position for each in rounds.values()) == [1, 2, 3, 4]
    for name, each in rounds.items():
        require_verified(each)
        require_recovered(name, each)
    require_order_of_record_sizes(
        {name: each.figures["record_bytes_per_message"] for name, each in rounds.items()}
    )
    # With what and where it was made.
    assert result.settings["channels"] == 4
    assert result.environment.cpus >= 1
    assert result.environment.versions["grpcio"] != "not installed"


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_what_is_compared_keeps_no_answers_and_the_report_says_so(
    variant: Variant, tmp_path: Path
) -> None:
    assert "--redelivery-window=0" in variant.options(tmp_path, None).command_line()
    assert "redelivery_window 0" in render(page_of(make_compare(), LOOK))


def require_verified(turn: Round) -> None:
    load_, cost = turn.load, turn.cost
    assert load_ is not None
    assert cost is not None
    assert load_.messages > 10
    assert load_.verification_failures == 0
    assert load_.errors == {}
    assert load_.operations_finished == load_.operations_sent
    assert cost.messages == cost.records == load_.messages


def require_recovered(name: str, turn: Round) -> None:
    if name == "memory":
        assert turn.recovery is None
    else:
        assert turn.recovery is not None
        assert turn.recovery.channels == turn.recovery.verified_channels == 4


def require_order_of_record_sizes(record: dict[str, Any]) -> None:
    # What is cached is how the state is made, not what is written.
    assert record["full"] == pytest.approx(record["cached"], rel=0.1)
    assert record["differential"] < record["cached"] / 10
    assert record["memory"] == pytest.approx(record["differential"], rel=0.2)


# --- Rounds ---------------------------------------------------------------------------------------


def test_every_round_runs_every_variant_once() -> None:
    for order in shuffled_rounds(VARIANTS, 20, seed=3):
        assert sorted(variant.name for variant in order) == sorted(v.name for v in VARIANTS)


def test_no_variant_keeps_its_place_over_the_rounds() -> None:
    first = Counter(order[0].name for order in shuffled_rounds(VARIANTS, 100, seed=1))
    assert set(first) == {variant.name for variant in VARIANTS}
    assert min(first.values()) > 10


def test_the_order_is_that_of_the_seed() -> None:
    assert shuffled_rounds(VARIANTS, 5, seed=1) == shuffled_rounds(VARIANTS, 5, seed=1)
    assert shuffled_rounds(VARIANTS, 5, seed=1) != shuffled_rounds(VARIANTS, 5, seed=2)


# --- Warnings -------------------------------------------------------------------------------------


def test_nothing_is_said_of_rounds_that_went_well() -> None:
    assert warnings_of(sides_of({"full": [round_of("full", 1, load())]})) == []


def test_what_went_wrong_is_told_by_variant_and_round() -> None:
    bad = load(wrong=2, errors={"UNAVAILABLE": 3}, generator_warnings=["too slow"])
    rounds = [round_of("full", 1, load()), round_of("full", 2, bad)]
    told = warnings_of(sides_of({"full": rounds}))
    assert [text.partition(": ")[2] for text in told] == [
        "INVALID: generator saturated; the round is left out",
        "too slow",
        "2 answers were WRONG",
        "operations failed: {'UNAVAILABLE': 3}",
    ]
    assert all(text.startswith("full, round 2: ") for text in told)


def test_channels_that_did_not_come_back_are_told() -> None:
    turn = round_of("full", 1, load())
    assert turn.recovery is not None
    lost = turn.recovery.model_copy(update={"channels": 5, "verified_channels": 3})
    (told,) = warnings_of(sides_of({"full": [turn.model_copy(update={"recovery": lost})]}))
    assert "only 3 of 5 channels" in told
