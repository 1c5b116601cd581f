"""Several generator processes: what they share, what they add up to, and that none stays behind."""

import asyncio
import json
import os
from pathlib import Path

import psutil
import pytest

from connect_loadgen.cli import main
from connect_loadgen.drive.figures import LoadFigures
from connect_loadgen.drive.fleet import merge_loads, open_load, split
from connect_loadgen.drive.transport import TransportError
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.service.endpoint import Endpoint
from connect_loadgen.service.process import ServiceOptions, ServiceProcess
from connect_loadgen.settings.load import RunSettings, load_settings
from tests.support.process import PATIENCE
from tests.support.results import latency, load, read, require_sound

SMALL = ("--processes=2", "--channels=5", "--warm-up-seconds=0", "--frame-operations=8")


def workers() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children(recursive=True)
        if "connect_loadgen.drive.worker" in child.cmdline()
    ]


# --- Sharing --------------------------------------------------------------------------------------


def test_channels_and_what_is_in_flight_are_split_without_rest() -> None:
    flags = ["--processes=3", "--channels=200", "--concurrency=1000", "--max-in-flight=100"]
    parts = split(load_settings(RunSettings, [*flags, "--churn-rate=3"]))
    assert [part.channels for part in parts] == [67, 67, 66]
    assert [part.concurrency for part in parts] == [334, 333, 333]
    assert [part.max_in_flight for part in parts] == [34, 33, 33]
    assert [part.churn_rate for part in parts] == [1, 1, 1]


def test_each_process_has_a_sequence_of_its_own_and_the_first_that_of_the_seed() -> None:
    parts = split(load_settings(RunSettings, ["--processes=3", "--seed=7", "--concurrency=999"]))
    assert parts[0].seed == 7
    assert len({part.seed for part in parts}) == 3


# --- Adding up ------------------------------------------------------------------------------------


def test_counts_are_summed_and_histograms_merged() -> None:
    fast = load(1000, milliseconds=[1] * 99, errors={"UNAVAILABLE": 1}, wrong=1)
    slow = load(500, milliseconds=[100] * 901, errors={"UNAVAILABLE": 2, "INTERNAL": 1})
    merged = merge_loads([fast, slow], None)
    assert merged.messages_per_second == 1500
    assert merged.messages == 2 * fast.messages
    assert merged.verification_failures == 1
    assert merged.errors == {"UNAVAILABLE": 3, "INTERNAL": 1}
    assert merged.latency["encrypt"].service_time == latency(*[1] * 99, *[100] * 901)
    assert merged.latency["encrypt"].from_intended_send is None


def test_rates_and_latencies_of_open_loops_are_added_too() -> None:
    merged = merge_loads([load(rate=100.0), load(rate=100.0)], None)
    assert merged.intended_rate == 200
    due = merged.latency["encrypt"].from_intended_send
    assert due is not None
    assert due.count == 8


def busy(cpu_share: float) -> LoadFigures:
    calm = load()
    generator = calm.generator.model_copy(update={"cpu_share": cpu_share})
    return calm.model_copy(update={"generator": generator})


def test_a_load_is_valid_only_if_every_process_kept_up() -> None:
    assert merge_loads([busy(0.4), busy(0.5)], 0.2).generator.verdict == "valid"
    merged = merge_loads([busy(0.4), busy(0.95)], 0.2)
    assert merged.generator.verdict == "INVALID: generator saturated"
    assert [check.verdict for check in merged.processes] == [
        "valid",
        "INVALID: generator saturated",
    ]
    (warning,) = merged.generator.warnings
    assert warning.startswith("process 2: the generator used 95% of a core, the service 20%")
    # A service that was as busy may have been the limit itself.
    assert merge_loads([busy(0.4), busy(0.95)], 0.9).generator.verdict == "valid"


def test_one_process_that_was_stopped_stops_the_load() -> None:
    stopped = load().model_copy(update={"stopped": "enough"})
    assert merge_loads([load(), stopped], None).stopped == "enough"


# --- Real processes -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["--concurrency=16", "--rate=poisson:200"])
def test_processes_put_one_load_together_and_verify_every_message(tmp_path: Path, how: str) -> None:
    output = tmp_path / "run.json"
    flags = ["--duration-seconds=0.5", "--storms=restore@0.2", f"--output={tmp_path}"]
    code = main(["run", *SMALL, *flags, how])
    require_sound(code, read(output))
    result = json.loads(output.read_text())["sides"]["run"]["rounds"][0]
    figures = result["load"]
    assert len(figures["processes"]) == 2
    assert figures["messages"] == result["cost"]["records"] > 10
    assert (figures["verification_failures"], figures["errors"]) == (0, {})
    assert figures["lifecycle"]["restore"]["count"] == 5
    assert figures["intended_rate"] == (200 if "rate" in how else None)
    assert workers() == []


def test_a_condition_stops_all_processes(tmp_path: Path) -> None:
    output = tmp_path / "run.json"
    flags = ["--stop-if=p50>0.001", "--concurrency=16", "--duration-seconds=60"]
    assert main(["run", *SMALL, *flags, f"--output={tmp_path}"]) == 1
    figures = json.loads(output.read_text())["sides"]["run"]["rounds"][0]["load"]
    assert figures["stopped"] == "p50 was above 0.001 ms"
    assert figures["duration_seconds"] < 30


async def test_a_process_that_dies_ends_the_load_and_the_others(tmp_path: Path) -> None:
    settings = load_settings(RunSettings, [*SMALL, "--duration-seconds=60"])
    options = ServiceOptions(strategy="full", journal="memory", data_dir=tmp_path)
    with CommandProgress() as progress:
        async with ServiceProcess(options, PATIENCE) as service:

            async def put() -> None:
                async with open_load(service.endpoint, settings, progress) as work:
                    assert len(workers()) == 2
                    measuring = asyncio.create_task(work.measure())
                    os.kill(workers()[-1].pid, 9)
                    await measuring

            with pytest.raises(TransportError, match=r"generator process [12] died"):
                await put()
            assert workers() == []


async def test_a_process_that_cannot_reach_the_service_says_so() -> None:
    settings = load_settings(RunSettings, [*SMALL, "--timeout-seconds=1"])
    with (
        CommandProgress() as progress,
        pytest.raises(TransportError, match=r"generator process [12]: nobody answers"),
    ):
        async with open_load(Endpoint("127.0.0.1:1"), settings, progress):
            raise AssertionError("it was opened")
    assert workers() == []
