"""The service as a process of its own."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from connect_actor.network.connections import http_get

Start = Callable[..., "RunningService"]

# Nothing takes as long, on whichever machine; a test that gets here has failed.
PATIENCE = 300


class RunningService:
    """A started service that has said that it is ready."""

    def __init__(self, arguments: list[str], log: Path, stderr: int | None = None) -> None:
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "connect_actor.cli", "serve", *arguments],
                stdout=subprocess.PIPE,
                stderr=file if stderr is None else stderr,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log
        self.ready: dict[str, Any] = json.loads(line)

    @property
    def log(self) -> str:
        """What it has logged; a running service's newest lines may be on their way."""
        return self._log.read_text()

    def log_to_the_end(self) -> str:
        """Stop the service, unless it has ended, and return all that it has logged."""
        if self.process.poll() is None:
            assert self.signal(signal.SIGTERM) == 0
        return self.log

    def signal(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def scrape(address: str) -> str:
    """Return what is told at the metrics address, host:port."""
    status, body = http_get(address, "/metrics", PATIENCE)
    assert status == 200
    return body.decode()


def child_of(
    parent: "subprocess.Popen[Any]", is_it: Callable[[psutil.Process], bool]
) -> psutil.Process:
    """Wait for a process that another one starts, itself or through others, and return it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for child in psutil.Process(parent.pid).children(recursive=True):
            # There may be others, which end while they are looked at.
            with suppress(psutil.NoSuchProcess):
                if is_it(child):
                    return child
        time.sleep(0.05)
    raise AssertionError("no such process was started")


def none_left(processes: Iterable[psutil.Process]) -> bool:
    """Wait until all of them have ended, and say whether they have."""
    waiting, deadline = list(processes), time.monotonic() + PATIENCE
    while waiting and time.monotonic() < deadline:
        time.sleep(0.05)
        waiting = [process for process in waiting if not _has_ended(process)]
    return not waiting


def _has_ended(process: psutil.Process) -> bool:
    try:
        # Whoever has adopted an orphan may take its time to take notice of its end.
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def run_python(program: str, *arguments: str) -> str:
    """Run a program in an interpreter of its own and return what it prints."""
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    ).stdout


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start services on free ports and this test's data directory; none outlives the test."""
    services: list[RunningService] = []

    def start(*arguments: str, stderr: int | None = None) -> RunningService:
        service = RunningService(
            [
                "--listen=127.0.0.1:0",
                "--metrics-listen=127.0.0.1:0",
                f"--data-dir={tmp_path / 'data'}",
                *arguments,
            ],
            tmp_path / f"stderr-{len(services)}",
            stderr,
        )
        services.append(service)
        return service

    yield start
    for service in services:
        service.process.kill()
        service.process.wait()
        assert service.process.stdout is not None
        service.process.stdout.close()
