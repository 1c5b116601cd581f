"""The disk fails under a running service: what its callers are told, and that it comes back."""

import errno
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from connect_actor.client import Channel, ConnectClient
from connect_actor.v1 import connect_pb2 as wire
from tests.faults.shim import Call, Fault, Shim
from tests.process.test_process import client_of, open_channel
from tests.support.compiler import needs_compiler
from tests.support.house import until
from tests.support.process import PATIENCE, RunningService

pytestmark = needs_compiler

FULL = Fault("the disk is full", Call.WRITE, errno.ENOSPC)
READ_ONLY = Fault("the disk is read-only", Call.WRITE | Call.OPEN, errno.EROFS)
BROKEN = Fault("the disk is broken", Call.SYNC, errno.EIO)


def arguments_of(tmp_path: Path) -> list[str]:
    listen = ["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"]
    return [*listen, f"--data-dir={tmp_path / 'data'}"]


@pytest.fixture
def service(
    shim: Shim, library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RunningService]:
    """Start a service under the shim, which looks at its data."""
    for name, value in shim.environment(library).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "data").mkdir()
    shim.watch(tmp_path / "data")
    more = ("--journal-timeout=0.5", "--restart-backoff=0.01")
    service = RunningService([*arguments_of(tmp_path), *more], tmp_path / "stderr")
    monkeypatch.undo()
    yield service
    shim.heal()
    service.process.kill()
    service.process.wait()
    assert service.process.stdout is not None
    service.process.stdout.close()


async def told(client: ConnectClient, channel: Channel) -> tuple[grpc.StatusCode, str] | None:
    """Ask for an Encrypt; return the error's code and reason, or None if it went well."""
    request = wire.EncryptRequest(connect_id=channel.connect_id, plaintext=b"x")
    try:
        payload = (await client.stub.Encrypt(request)).payload
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)
        assert status is not None
        info = ErrorInfo()
        assert status.details[0].Unpack(info)
        return error.code(), info.reason
    assert channel.open(payload) == b"x"
    return None


async def comes_back(client: ConnectClient, channel: Channel) -> None:
    """Ask until it goes well, but not for ever."""
    for _ in range(1_000):
        if await told(client, channel) is None:
            return
    raise AssertionError("the service did not recover")


@pytest.mark.parametrize("fault", [FULL, READ_ONLY, BROKEN], ids=lambda fault: fault.name)
async def test_a_failing_disk_leaves_the_outcome_unknown_and_the_service_alive(
    service: RunningService, shim: Shim, fault: Fault
) -> None:
    async with client_of(service) as client:
        channel, other = await open_channel(client), await open_channel(client)
        shim.fail(fault)
        assert await told(client, channel) == (grpc.StatusCode.UNAVAILABLE, "WRITE_UNCERTAIN")
        for asked in (other, channel):
            outcome = await told(client, asked)
            assert outcome is not None
            assert outcome[0] is grpc.StatusCode.UNAVAILABLE
        assert shim.failed > 0
        shim.heal()
        await comes_back(client, channel)
        await comes_back(client, other)
    assert service.process.poll() is None


async def test_a_hanging_sync_is_answered_in_time_and_nothing_is_accepted_meanwhile(
    service: RunningService, shim: Shim
) -> None:
    uncertain = (grpc.StatusCode.UNAVAILABLE, "WRITE_UNCERTAIN")
    async with client_of(service) as client:
        channel, other = await open_channel(client), await open_channel(client)
        shim.hang(Call.SYNC)
        assert await told(client, channel) == uncertain
        assert shim.waiting == 1
        for _ in range(5):
            outcome = await told(client, other)
            assert outcome is not None
            assert outcome[0] is grpc.StatusCode.UNAVAILABLE
        assert shim.waiting == 1
        shim.heal()
        await until(lambda: shim.waiting == 0)
        await comes_back(client, other)
        await comes_back(client, channel)


async def test_a_service_whose_journal_hangs_ends_all_the_same(
    service: RunningService, shim: Shim
) -> None:
    async with client_of(service) as client:
        channel = await open_channel(client)
        shim.hang(Call.SYNC)
        assert await told(client, channel) is not None
    assert service.signal(signal.SIGTERM) == 3
    assert "was not closed" in service.log


@pytest.mark.parametrize("fault", [FULL, READ_ONLY], ids=lambda fault: fault.name)
def test_a_service_does_not_start_on_a_disk_that_can_not_be_written(
    shim: Shim, library: Path, tmp_path: Path, fault: Fault
) -> None:
    (tmp_path / "data").mkdir()
    shim.watch(tmp_path / "data")
    shim.fail(fault)
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "connect_actor.cli", "serve", *arguments_of(tmp_path)],
        env=shim.environment(library),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode not in (0, None)
    assert shim.failed > 0
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
