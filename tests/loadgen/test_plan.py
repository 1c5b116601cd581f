"""``--dry-run``: what would be done, without doing it."""

from pathlib import Path

import pytest

from connect_loadgen.cli import main
from connect_loadgen.experiment.turns import shuffled_rounds
from connect_loadgen.experiments.compare import VARIANTS, CompareSettings
from connect_loadgen.plan import plan_of_compare, plan_of_run
from connect_loadgen.settings.load import RunSettings, load_settings


def plan(*flags: str) -> str:
    return "\n".join(plan_of_run(load_settings(RunSettings, list(flags))))


def test_a_plan_of_a_run_says_what_every_setting_of_the_load_comes_to() -> None:
    text = plan(
        "--channels=200",
        "--processes=3",
        "--channel-skew=1.1",
        "--rate=poisson:100..1000",
        "--decrypt-weight=3",
        "--churn-rate=3",
        "--storms=reconnect@4,restore@3",
        "--stop-if=p99>50",
        "--strategy=full",
    )
    assert "strategy full" in text
    assert "200, 3 processes: 67 + 67 + 66, chosen by Zipf 1.1" in text
    assert "encrypt 25%, decrypt 75%" in text
    assert "5,500 due in 10 s" in text
    assert "warm-up 2 s at 100 operations/s" in text
    assert "about 30 in all" in text
    assert text.index("restore of 200 channels after 3 s") < text.index("reconnect of 200")
    assert "if p99>50" in text
    assert "load in all: 12 s" in text


def test_a_closed_loop_is_called_so() -> None:
    assert "closed loop: 512 in flight\n" in plan()
    assert "512 in flight, exponential:1 s of thought" in plan("--think-seconds=exponential:1")
    assert "the one at here:1" in plan("--target=here:1")


def test_a_plan_of_a_comparison_has_its_very_order() -> None:
    lines = plan_of_compare(load_settings(CompareSettings, ["--rounds=2", "--seed=5"]))
    for number, order in enumerate(shuffled_rounds(VARIANTS, 2, 5), 1):
        assert f"round {number}: {', '.join(variant.name for variant in order)}" in lines
    assert lines[-1] == "load in all: 8 runs, 96 s"


@pytest.mark.parametrize("command", ["run", "compare"])
def test_a_dry_run_says_its_plan_and_leaves_nothing(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--dry-run", f"--output={tmp_path / 'results'}"]) == 0
    captured = capsys.readouterr()
    assert "channels: 200" in captured.out
    assert captured.err == ""
    assert list(tmp_path.iterdir()) == []
