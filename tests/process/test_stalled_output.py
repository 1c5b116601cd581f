"""A service whose output nobody reads, or can take: it serves, and it stops."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from connect_actor.client import ConnectClient, Identity
from connect_actor.network.connections import connect
from tests.support.process import PATIENCE, Start, scrape


@pytest.fixture
def stalled() -> Iterator[int]:
    """Return the end of a pipe that is full and is never read."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, bytes(4_096))
    except BlockingIOError:
        os.set_blocking(writing, True)
    yield writing
    os.close(reading)
    os.close(writing)


async def serves(target: str) -> None:
    # Until there is a socket, and behind it a service.
    async with connect(target) as connection:
        await connection.channel_ready()
    async with ConnectClient(target) as client:
        channel = await client.establish(Identity.generate(os.urandom))
        assert channel.open(await channel.encrypt(b"x")) == b"x"


@pytest.mark.parametrize(
    ("how", "which"),
    [("not read", "stdout"), ("not read", "stderr"), ("full", "both"), ("closed", "both")],
)
async def test_a_service_serves_and_stops_whatever_becomes_of_its_output(
    tmp_path: Path, stalled: int, how: str, which: str
) -> None:
    socket = tmp_path / "socket"
    full = os.open("/dev/full", os.O_WRONLY)
    unread, gone = os.pipe()
    os.close(unread)
    end = {"not read": stalled, "full": full, "closed": gone}[how]
    process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own command, and no long start
        [
            *(sys.executable, "-m", "connect_actor.cli", "serve", "--log-level=debug"),
            f"--listen=unix:{socket}",
            "--metrics-listen=127.0.0.1:0",
            f"--data-dir={tmp_path / 'data'}",
        ],
        stdout=subprocess.DEVNULL if which == "stderr" else end,
        stderr=subprocess.DEVNULL if which == "stdout" else end,
    )
    try:
        await serves(f"unix:{socket}")
        process.send_signal(signal.SIGHUP)  # which is logged
        await serves(f"unix:{socket}")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
        os.close(full)
        os.close(gone)


async def test_workers_serve_and_stop_though_nobody_reads_their_errors(
    start: Start, stalled: int
) -> None:
    service = start("--workers=2", "--log-level=debug", stderr=stalled)
    await serves(service.ready["listen"])
    assert service.signal(signal.SIGTERM) == 0


def test_a_service_that_cannot_start_says_so_to_nobody_and_ends(
    tmp_path: Path, stalled: int
) -> None:
    (tmp_path / "data").touch()
    done = subprocess.run(  # noqa: S603 - our own command
        [
            *(sys.executable, "-m", "connect_actor.cli", "serve", "--listen=127.0.0.1:0"),
            f"--data-dir={tmp_path / 'data'}",
        ],
        stdout=stalled,
        stderr=stalled,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 3


def test_dropped_lines_are_in_the_metrics(start: Start) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    service = start("--log-level=debug", stderr=full)
    os.close(full)
    lines = scrape(service.ready["metrics"]).splitlines()
    (told,) = [line for line in lines if line.startswith("connect_log_lines_dropped_total{")]
    assert float(told.split()[-1]) > 0
    assert service.signal(signal.SIGTERM) == 0
