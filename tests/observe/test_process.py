"""What a process tells of itself, which nothing else may read."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.process_collector import ProcessCollector

import connect_actor.observe.process
from connect_actor.observe.process import OwnProcess, disk_bytes
from tests.support.plain_user import as_plain_user, plain_users_directory
from tests.support.process import PATIENCE

NAMES = {
    "process_cpu_seconds",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_resident_memory_peak_bytes",
    "process_start_time_seconds",
    "process_threads",
    "process_virtual_memory_bytes",
}


def told() -> dict[str, Metric]:
    return {family.name: family for family in OwnProcess(registry=None).collect()}


def value(name: str) -> float:
    number: float = told()[name].samples[0].value
    return number


# Writes to storage, as what its argument names; then it forbids dumps and tells what it has used,
# beside what the kernel says of it through a file that was opened before.
HARDENED = """
import json, os, sys
from connect_actor.process.hardening import forbid_dumps
from connect_actor.observe.process import OwnProcess, disk_bytes

accounts = open("/proc/self/io", "rb", buffering=0)
forbid_dumps()
with open(sys.argv[1], "wb") as file:
    file.write(bytes(1 << 20))
    os.fsync(file.fileno())
fields = dict(line.split(": ") for line in accounts.read().decode().splitlines())
print(json.dumps({
    "names": sorted(family.name for family in OwnProcess(registry=None).collect()),
    "kernel": [int(fields["read_bytes"]), int(fields["write_bytes"])],
    "told": disk_bytes(),
    "user": os.geteuid(),
}))
"""


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="this kernel accounts for no I/O")
def test_a_plain_users_hardened_process_tells_all_that_it_uses() -> None:
    with plain_users_directory() as directory:
        # If that is a tmpfs, the figures agree at 0.
        ran = subprocess.run(  # noqa: S603 - our own program
            as_plain_user(sys.executable, "-c", HARDENED, str(directory / "written")),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert set(found["names"]) == NAMES
    assert found["told"] == found["kernel"]


def test_cpu_time_is_finer_than_a_clock_tick() -> None:
    tick = 1 / os.sysconf("SC_CLK_TCK")
    before = value("process_cpu_seconds")
    begun = time.process_time()
    while time.process_time() < begun + tick / 10:
        pass
    spent = value("process_cpu_seconds") - before
    assert tick / 10 <= spent
    assert spent % tick
    (family,) = [
        each
        for each in ProcessCollector(registry=None).collect()
        if each.name == "process_cpu_seconds"
    ]
    assert value("process_cpu_seconds") == pytest.approx(family.samples[0].value, abs=1)


def test_peak_memory_is_never_below_what_is_held_and_threads_are_counted() -> None:
    assert value("process_resident_memory_peak_bytes") > 1_000_000
    assert value("process_threads") >= 1


def test_a_scrape_can_ask_for_these_alone() -> None:
    registry = CollectorRegistry()
    OwnProcess(registry=registry)
    asked = ["process_cpu_seconds_total", "process_threads"]
    found = [family.name for family in registry.restricted_registry(asked).collect()]
    assert sorted(found) == ["process_cpu_seconds", "process_threads"]


def test_where_the_kernel_does_not_account_for_storage_there_is_no_figure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(connect_actor.observe.process, "_ACCOUNTED", tmp_path / "io")
    assert disk_bytes() is None


def test_without_proc_the_rest_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(connect_actor.observe.process, "_STATUS", tmp_path / "status")
    assert "process_cpu_seconds" in told()
    assert "process_threads" not in told()
