"""Starting, stopping, killing and misconfiguring the real process."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from connect_actor.client import Channel, ConnectClient, Identity
from connect_actor.v1 import connect_pb2 as wire
from tests.support.process import PATIENCE, RunningService, Start, run_python, scrape
from tests.support.secret_files import write_secret


def run_cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "connect_actor.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, **environment},
    )


async def open_channel(client: ConnectClient) -> Channel:
    channel = await client.establish(Identity.generate(os.urandom))
    assert channel.open(await channel.encrypt(b"before")) == b"before"
    return channel


def client_of(service: RunningService) -> ConnectClient:
    return ConnectClient(
        service.ready["listen"], pinned_identity=bytes.fromhex(service.ready["identity"])
    )


@pytest.mark.parametrize("strategy", ["full", "cached", "differential"])
async def test_a_channel_survives_kill_9_and_a_change_of_strategy(
    start: Start, strategy: str
) -> None:
    service = start(f"--strategy={strategy}")
    async with client_of(service) as client:
        channel = await open_channel(client)
    service.signal(signal.SIGKILL)
    after = start("--strategy=differential")
    assert after.ready["identity"] == service.ready["identity"]
    async with client_of(after) as client:
        restored = await client.stub.Restore(wire.RestoreRequest(connect_id=channel.connect_id))
        assert restored.sending_chain_length == 1
        request = wire.EncryptRequest(connect_id=channel.connect_id, plaintext=b"after")
        assert channel.open((await client.stub.Encrypt(request)).payload) == b"after"
    told = f"last written by strategy {strategy}" in after.log_to_the_end()
    assert told is (strategy != "differential")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stopped_service_has_saved_its_channels_and_exits_with_0(
    start: Start, number: signal.Signals
) -> None:
    service = start()
    async with client_of(service) as client:
        channel = await open_channel(client)
    assert service.signal(number) == 0
    after = start()
    async with client_of(after) as client:
        restored = await client.stub.Restore(wire.RestoreRequest(connect_id=channel.connect_id))
        assert restored.sending_chain_length == 1
    assert metric(after, "connect_actor_recoveries_total") == 1


async def test_a_stopping_service_refuses_new_calls(start: Start) -> None:
    service = start()
    async with client_of(service) as client:
        await open_channel(client)
        assert service.signal(signal.SIGTERM) == 0
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await client.stub.Restore(wire.RestoreRequest(connect_id=1), timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_the_ready_line_names_what_a_supervisor_needs(start: Start) -> None:
    service = start()
    assert service.ready["event"] == "ready"
    assert service.ready["pid"] == service.process.pid
    assert len(bytes.fromhex(service.ready["identity"])) == 32
    for address in (service.ready["listen"], service.ready["metrics"]):
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), PATIENCE):
            pass


def test_a_second_service_on_the_same_journal_is_refused(start: Start, tmp_path: Path) -> None:
    start()
    second = run_cli(
        "serve",
        "--listen=127.0.0.1:0",
        "--metrics-listen=127.0.0.1:0",
        f"--data-dir={tmp_path / 'data'}",
    )
    assert second.returncode == 3
    assert "in use by another service" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("which", ["listen", "metrics"])
def test_a_port_in_use_is_one_clear_line(start: Start, tmp_path: Path, which: str) -> None:
    taken = start().ready[which]
    flag = {"listen": "--listen", "metrics": "--metrics-listen"}[which]
    other = {"listen": "--metrics-listen", "metrics": "--listen"}[which]
    second = run_cli(
        "serve", f"{flag}={taken}", f"{other}=127.0.0.1:0", f"--data-dir={tmp_path / 'other'}"
    )
    assert second.returncode == 3
    assert f"can't listen on {taken}" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "usage: connect-actor"),
        (["dance"], "usage: connect-actor"),
        (["serve", "--strategy=fastest"], "one of full, cached, differential"),
        (["serve", "--snapshot-interval=0"], "--snapshot-interval: expected more than 0 (got '0')"),
        (["serve", "--config=/no/such/file"], "/no/such/file does not exist"),
    ],
)
def test_a_bad_command_line_is_refused_with_what_to_change(arguments: list[str], said: str) -> None:
    refused = run_cli(*arguments)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr


def test_help_is_no_error() -> None:
    assert run_cli("--help").returncode == 0
    flags = run_cli("serve", "--help")
    assert flags.returncode == 0
    assert "--snapshot-interval" in flags.stdout


def test_health_is_asked_where_the_environment_says(start: Start) -> None:
    service = start()
    listen = service.ready["listen"]
    port = listen.rpartition(":")[2]
    for asked in (
        run_cli("health", f"--target={listen}"),
        run_cli(
            "health",
            CONNECT_ACTOR_LISTEN=f"0.0.0.0:{port}",
            CONNECT_ACTOR_ALLOW_PLAINTEXT="true",
        ),
    ):
        assert asked.stdout == "SERVING\n"
        assert asked.returncode == 0


def test_a_service_that_does_not_answer_is_not_healthy() -> None:
    asked = run_cli("health", "--target=127.0.0.1:1", "--timeout=1")
    assert asked.returncode == 1
    assert "no answer from 127.0.0.1:1" in asked.stdout


def test_health_is_asked_without_a_proxy(start: Start) -> None:
    service = start()
    nowhere = "http://127.0.0.1:1"
    asked = run_cli(
        "health",
        f"--target={service.ready['listen']}",
        http_proxy=nowhere,
        no_proxy="",
        NO_PROXY="",
    )
    assert asked.stdout == "SERVING\n"


def test_asking_for_health_does_not_load_a_service() -> None:
    # It is asked every few seconds, at the cost of the service that it is asked of.
    program = (
        "import sys; from connect_actor.cli import main;"
        "sys.argv[1:] = ['health', '--target=127.0.0.1:1', '--timeout=1']; assert main() == 1;"
        "print(sorted(sys.modules.keys() & {'grpc', 'pydantic', 'pykka', 'uvloop'}))"
    )
    assert run_python(program).splitlines()[-1] == "['grpc']"


def test_a_damaged_key_file_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_secret(data / "sealing.key", b"too short")
    refused = run_cli("serve", "--listen=127.0.0.1:0", f"--data-dir={data}")
    assert refused.returncode == 3
    assert "does not hold master keys" in refused.stderr


def test_a_librarys_warning_is_a_line_of_json_too() -> None:
    program = (
        "import sys, warnings; sys.stderr = sys.stdout;"
        "from connect_actor.observe.logs import configure_logging;"
        "configure_logging('info'); warnings.warn('a serial number is odd')"
    )
    assert "a serial number is odd" in json.loads(run_python(program))["event"]


async def test_logs_are_lines_of_json_without_secrets(start: Start) -> None:
    service = start("--log-level=debug")
    async with client_of(service) as client:
        channel = await client.establish(Identity.generate(os.urandom))
        await channel.decrypt(channel.seal(b"a very secret text"))
        forged = channel.seal(b"another secret text")
        forged.ciphertext = bytes(len(forged.ciphertext))
        with pytest.raises(Exception, match="forged"):
            await channel.decrypt(forged)
    assert service.signal(signal.SIGTERM) == 0
    lines = [json.loads(line) for line in service.log.splitlines()]
    assert all({"event", "level", "logger", "timestamp"} <= line.keys() for line in lines)
    assert "secret text" not in service.log
    keys = channel.session.ratchet
    for secret in (
        keys.root_key,
        *(chain.chain_key for chain in (keys.sending, keys.receiving) if chain),
    ):
        assert secret.hex() not in service.log
        assert repr(secret) not in service.log


def metric(service: RunningService, name: str) -> float:
    for line in scrape(service.ready["metrics"]).splitlines():
        if line.startswith(f"{name}{{"):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no series {name}")
