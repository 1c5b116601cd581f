"""Thousands of schedules in which every rule holds; and the same seed is the same schedule."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.__main__ import main
from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import run_schedule
from tests.simulation.storage import Fault

# In parts, so that several workers share them. More: make simulate.
_PARTS = 20
_SEEDS_A_PART = 100


@pytest.mark.parametrize("part", range(_PARTS))
def test_every_rule_holds_in_every_schedule(part: int) -> None:
    for seed in range(part * _SEEDS_A_PART, (part + 1) * _SEEDS_A_PART):
        violation = run_schedule(seed).violation
        assert violation is None, f"python -m tests.simulation --first {seed} --seeds 1 --trace"


def test_every_fault_and_every_answer_is_met() -> None:
    faults: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    for seed in range(200):
        outcome = run_schedule(seed)
        faults += outcome.faults
        answers += outcome.answers
    assert {fault.value for fault in Fault if fault is not Fault.NONE} <= faults.keys()
    assert {
        "slow journal",
        "defect",
        "a foreign writer",
        "a channel is damaged",
        "the process dies between rounds",
        "the service is stopped",
    } <= faults.keys()
    assert {"Establish", "Encrypt", "Decrypt", "Restore", "Close"} <= answers.keys()
    assert {
        "WriteUncertainError",
        "WriteRejectedError",
        "ReadFailedError",
        "ChannelDamagedError",
        "MessageReplayedError",
        "AuthenticationFailedError",
        "OverloadedError",
        "ActorCrashedError",
    } <= answers.keys()


def _trace(seed: int) -> list[str]:
    lines: list[str] = []
    run_schedule(seed, watch=lines.append)
    return lines


def test_the_same_seed_replays_the_same_trace() -> None:
    for seed in range(12):
        assert run_schedule(seed) == run_schedule(seed)
    assert _trace(1) == _trace(1)
    assert len({run_schedule(seed).digest for seed in range(12)}) == 12


def test_another_process_with_other_hashes_replays_the_same_trace() -> None:
    digest = "from tests.simulation.schedule import run_schedule; print(run_schedule(3).digest)"
    told = {
        subprocess.run(  # noqa: S603 - ourselves
            [sys.executable, "-c", digest],
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for hash_seed in ("1", "2")
    }
    assert told == {run_schedule(3).digest}


def test_a_failure_names_its_seed_and_how_to_replay_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulation", "--seeds", "20", "--first", "5"])
    with MUTANTS["answers_before_the_commit"]():
        assert main() == 1
        told = capsys.readouterr().out
        assert main() == 1
    assert capsys.readouterr().out == told
    assert told.startswith("seed 5, step ")
    assert "python -m tests.simulation --first 5 --seeds 1 --trace" in told


def test_a_clean_run_says_what_was_tried(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["simulation", "--seeds", "3"])
    assert main() == 0
    assert capsys.readouterr().out.startswith("3 schedules, ")
