"""The service as a process of its own."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Start = Callable[..., "RunningService"]

# Long enough for a loaded machine; a test that gets here has failed.
PATIENCE = 30


class RunningService:
    """A started service that has said that it is ready."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self._log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(  # noqa: S603 - our own command
                [sys.executable, "-m", "service.cli", "serve", *arguments],
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log
        self.ready: dict[str, Any] = json.loads(line)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def signal(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


def run_python(program: str) -> str:
    """Run a program in an interpreter of its own and return what it prints."""
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    ).stdout


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start services on free ports and this test's data directory; none outlives the test."""
    services: list[RunningService] = []

    def start(*arguments: str) -> RunningService:
        service = RunningService(
            [
                "--listen=127.0.0.1:0",
                "--metrics-listen=127.0.0.1:0",
                f"--data-dir={tmp_path / 'data'}",
                *arguments,
            ],
            tmp_path / f"stderr-{len(services)}",
        )
        services.append(service)
        return service

    yield start
    for service in services:
        service.process.kill()
        service.process.wait()
        assert service.process.stdout is not None
        service.process.stdout.close()
