"""``loadgen crash`` with real processes: an honest service passes, one that cheats is caught."""

import json
import shlex
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

from connect_loadgen.crash.blows import Phase, plan_blows
from connect_loadgen.crash.settings import CrashSettings
from connect_loadgen.settings.load import ConfigurationError, load_settings
from tests.support.process import PATIENCE

ROOT = Path(__file__).parents[2]

# The first four kills of each strategy are one of each phase.
SEED = 25906
SMALL = (f"--seed={SEED}", "--kills=4", "--channels=30", "--in-flight=32", "--load-seconds=0.3")
# A service that cheats may also come to a standstill, which is no more than one more fault.
HANG_LIMIT = "--hang-limit=5"


def crash(
    output: Path, *flags: str, service: str | None = None
) -> tuple["subprocess.CompletedProcess[str]", dict[str, Any]]:
    """Run the command; ``service`` is how its journal cheats."""
    command = (sys.executable, "-m", "tests.support.cheating_service", service or "")
    cheat = () if service is None else (f"--service-command={shlex.join(command)}",)
    done = subprocess.run(  # noqa: S603 - our own command
        [
            sys.executable,
            "-m",
            "connect_loadgen.cli",
            "crash",
            f"--output={output}",
            *flags,
            *cheat,
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
        check=False,
        # Where the cheating service can be found.
        cwd=ROOT,
    )
    assert (output / "crash.json").exists(), done.stderr
    return done, json.loads((output / "crash.json").read_text())


@pytest.mark.parametrize("strategy", ["full", "cached", "differential"])
def test_an_honest_service_keeps_its_promises_over_kills_in_every_phase(
    tmp_path: Path, strategy: str
) -> None:
    done, result = crash(tmp_path, *SMALL, f"--strategy={strategy}")
    assert done.returncode == 0, done.stdout
    assert "No fault" in done.stdout
    (figures,) = result["detail"]
    assert figures["strategy"] == strategy
    assert figures["faults"] == {}
    assert sum(figures["kills"].values()) == 4
    # A start and a stop may be over before their kill is due: another phase is hit then.
    assert figures["kills"]["under load"] >= 1
    assert figures["lives"] == 4 + figures["ended_before_the_kill"] + 1
    assert figures["proved_at_the_end"] > 0
    assert figures["replays_refused"] + figures["redelivered"] > 0
    # The kills fell among such work.
    work = figures["service_work"]
    assert min(work[name] for name in ("records", "snapshots", "snapshots deleted")) > 0
    assert figures["messages"] > figures["operations"]["encrypt"]["done"] > 0


def test_a_service_that_is_as_slow_as_the_cheat_and_honest_passes(tmp_path: Path) -> None:
    data = tmp_path / "data"
    flags = ("--strategy=differential", f"--data-dir={data}")
    done, result = crash(tmp_path, *SMALL, *flags, service="slow")
    assert done.returncode == 0, done.stdout
    assert result["detail"][0]["faults"] == {}
    # What was named is kept.
    assert (data / "differential" / "journal.db").exists()


def test_a_service_that_replies_before_its_commit_is_caught(tmp_path: Path) -> None:
    flags = ("--strategy=differential", HANG_LIMIT)
    done, result = crash(tmp_path, *SMALL, *flags, service="early")
    assert done.returncode == 1
    faults = result["detail"][0]["faults"]
    assert faults["lost"] > 0
    assert faults["decrypted twice"] > 0
    assert f"differential: {faults['lost']} x lost" in done.stdout


def test_a_service_that_uses_an_index_again_is_caught(tmp_path: Path) -> None:
    flags = ("--strategy=full", HANG_LIMIT)
    done, result = crash(tmp_path, *SMALL, *flags, service="rewinding")
    assert done.returncode == 1
    assert result["detail"][0]["faults"]["reused"] > 0


def test_a_service_that_does_not_come_back_is_a_fault(tmp_path: Path) -> None:
    # Not even for the first time.
    command = shlex.join((sys.executable, "-c", "import sys; sys.exit('no')"))
    done, result = crash(tmp_path, *SMALL, "--strategy=full", f"--service-command={command}")
    assert done.returncode == 1
    assert result["detail"][0]["faults"] == {"down": 1}
    assert "did not start: exit code 1" in done.stdout


# --- The plan, and what it is told ----------------------------------------------------------------


def test_the_same_seed_plans_the_same_kills_in_all_phases() -> None:
    plan = list(islice(plan_blows(Random(7)), 200))
    assert plan == list(islice(plan_blows(Random(7)), 200))
    assert plan != list(islice(plan_blows(Random(8)), 200))
    phases = Counter(blow.phase for blow in plan)
    assert min(phases[phase] for phase in Phase) >= 10
    assert phases.most_common(1)[0][0] is Phase.UNDER_LOAD
    assert all(0 <= blow.share < 1 for blow in plan)
    assert sum(blow.phase is Phase.STARTING and blow.share < 0.01 for blow in plan) >= 3


def test_strategies_are_all_unless_some_are_named() -> None:
    assert load_settings(CrashSettings, []).strategy == ("full", "cached", "differential")
    for flags in (["--strategy=full", "--strategy=cached"], ["--strategy=full,cached"]):
        assert load_settings(CrashSettings, flags).strategy == ("full", "cached")
    with pytest.raises(ConfigurationError, match="--strategy"):
        load_settings(CrashSettings, ["--strategy=best"])
