"""A service of several processes as an operator and its callers meet it."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from connect_actor.client import Channel, ConnectClient, Identity
from connect_actor.client.errors import error_of
from connect_actor.errors import ConnectError, StorageError
from connect_actor.keys.sources import identity_key_id
from connect_actor.v1 import connect_pb2 as wire
from connect_actor.workers.member import worker_of
from tests.process.test_operator import command
from tests.process.test_process import run_cli
from tests.support.house import until
from tests.support.process import PATIENCE, RunningService, Start, scrape
from tests.support.secret_files import write_secret

WORKERS = 2
CHANNELS = 24


@asynccontextmanager
async def connected(
    service: RunningService, connections: int
) -> AsyncIterator[list[ConnectClient]]:
    """Connect some times: the kernel spreads connections over the workers."""
    async with AsyncExitStack() as stack:
        pinned = bytes.fromhex(service.ready["identity"])
        yield [
            await stack.enter_async_context(
                ConnectClient(service.ready["listen"], pinned_identity=pinned)
            )
            for _ in range(connections)
        ]


async def establish(clients: Sequence[ConnectClient], count: int = CHANNELS) -> list[Channel]:
    """Make channels, by turns over all connections."""
    me = Identity.generate(os.urandom)
    channels = await asyncio.gather(
        *(clients[number % len(clients)].establish(me) for number in range(count))
    )
    owned = [0] * WORKERS
    for channel in channels:
        owned[worker_of(channel.connect_id, WORKERS)] += 1
    # One in eight million that a worker has none.
    assert min(owned) > 0
    return channels


async def talk(client: ConnectClient, channels: Sequence[Channel], text: bytes) -> None:
    """Encrypt and decrypt one message on each channel, all on one stream."""
    async with client.exchange() as stream:
        asked = [
            wire.Operation(
                encrypt=wire.EncryptRequest(connect_id=channel.connect_id, plaintext=text)
            )
            for channel in channels
        ]
        for channel, result in zip(channels, await stream.call(asked), strict=True):
            assert channel.open(result.encrypt.payload) == text
        sealed = [
            wire.Operation(
                decrypt=wire.DecryptRequest(
                    connect_id=channel.connect_id, payload=channel.seal(text)
                )
            )
            for channel in channels
        ]
        for result in await stream.call(sealed):
            assert result.decrypt.plaintext == text


async def encrypt_on(
    channel: Channel, note: Callable[[Channel, wire.CipherPayload], object]
) -> Exception:
    """Encrypt one message after the other until the service ends; return how that showed."""
    while True:
        try:
            payload = await channel.encrypt(b"on and on")
        except (ConnectError, grpc.aio.AioRpcError) as error:
            return error
        note(channel, payload)


def refusal(data: Path, *flags: str) -> str:
    """Start a service that can't be; return what it says."""
    free = ("--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0")
    refused = run_cli("serve", *free, f"--data-dir={data}", *flags)
    assert refused.returncode == 3
    assert "Traceback" not in refused.stderr
    return refused.stderr


def workers_of(service: RunningService) -> list[psutil.Process]:
    return psutil.Process(service.process.pid).children()


async def test_channels_are_served_over_every_connection_and_after_a_restart(
    start: Start,
) -> None:
    service = start("--workers=2")
    async with connected(service, 6) as clients:
        channels = await establish(clients)
        for client in clients:
            await talk(client, channels, b"before")
    assert service.signal(signal.SIGTERM) == 0
    assert "Traceback" not in service.log
    after = start("--workers=2")
    assert after.ready["identity"] == service.ready["identity"]
    async with connected(after, 6) as clients:
        for client in clients:
            await talk(client, channels, b"after")
        answered = await clients[0].stub.Restore(
            wire.RestoreRequest(connect_id=channels[0].connect_id)
        )
        assert answered.expires_at_unix_micros > 0


async def test_what_was_answered_outlives_kill_9_of_all(start: Start) -> None:
    service = start("--workers=2")
    workers = workers_of(service)
    async with connected(service, 4) as clients:
        channels = await establish(clients)
        await talk(clients[0], channels, b"before")
    service.signal(signal.SIGKILL)
    # The kernel ends them with their supervisor.
    assert psutil.wait_procs(workers, PATIENCE)[1] == []
    after = start("--workers=2")
    async with connected(after, 4) as clients:
        await talk(clients[0], channels, b"after")


@pytest.mark.parametrize("which", range(WORKERS))
async def test_a_worker_that_is_killed_ends_the_service_and_nothing_answered_is_lost(
    start: Start, which: int
) -> None:
    service = start("--workers=2")
    workers = workers_of(service)
    answered: dict[int, int] = {}
    async with connected(service, 4) as clients:
        channels = await establish(clients)

        def note(channel: Channel, payload: wire.CipherPayload) -> None:
            assert payload.ratchet_index >= answered.get(channel.connect_id, 0)
            answered[channel.connect_id] = payload.ratchet_index + 1

        load = asyncio.gather(*(encrypt_on(channel, note) for channel in channels))
        await until(lambda: len(answered) == CHANNELS)
        workers[which].kill()
        await load
    assert service.process.wait(PATIENCE) == 128 + signal.SIGKILL
    assert psutil.wait_procs(workers, PATIENCE)[1] == []
    assert f"worker {which} has ended with -9: the others are stopped" in service.log
    after = start("--workers=2")
    async with connected(after, 1) as [client]:
        for channel in channels:
            restored = await client.stub.Restore(wire.RestoreRequest(connect_id=channel.connect_id))
            assert restored.sending_chain_length >= answered[channel.connect_id]


@pytest.mark.parametrize("which", range(WORKERS))
async def test_a_worker_that_stands_still_is_killed_and_ends_the_service(
    start: Start, which: int
) -> None:
    service = start("--workers=2", "--worker-timeout=4")
    workers = workers_of(service)
    async with connected(service, 4) as clients:
        channels = await establish(clients)
        # Longer than the time limit: those that run are left alone.
        await asyncio.sleep(6)
        await talk(clients[0], channels, b"alive")
    workers[which].suspend()
    assert service.process.wait(PATIENCE) == 128 + signal.SIGKILL
    assert psutil.wait_procs(workers, PATIENCE)[1] == []
    assert f"worker {which} has stood still for 4 s and is killed" in service.log
    after = start("--workers=2")
    async with connected(after, 1) as [client]:
        await talk(client, channels, b"after")


async def test_a_stop_while_there_is_load_answers_or_refuses_every_operation(
    start: Start,
) -> None:
    service = start("--workers=2")
    async with connected(service, 4) as clients:
        channels = await establish(clients)
        answered: list[Channel] = []
        load = asyncio.gather(
            *(encrypt_on(channel, lambda one, _: answered.append(one)) for channel in channels)
        )
        await until(lambda: len(answered) >= 10 * CHANNELS)
        service.process.send_signal(signal.SIGTERM)
        ends = await load
    assert service.process.wait(PATIENCE) == 0
    # Nothing is left in doubt by a stop in order.
    assert [end for end in ends if isinstance(end, StorageError)] == []
    events = [json.loads(line) for line in service.log.splitlines()]
    stopped = [event["worker"] for event in events if event["event"] == "stopped"]
    assert sorted(stopped) == [0, 1]


@pytest.mark.parametrize(("made_for", "given"), [(2, 3), (2, 1), (1, 2)])
async def test_another_number_of_workers_is_refused_with_what_to_do(
    start: Start, tmp_path: Path, made_for: int, given: int
) -> None:
    assert start(f"--workers={made_for}").signal(signal.SIGTERM) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()}
    said = refusal(tmp_path / "data", f"--workers={given}")
    assert f"give --workers {made_for}, or another --data-dir" in said
    assert {path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()} == before


def test_the_ready_line_is_that_of_one_service(start: Start) -> None:
    service = start("--workers=2")
    assert service.ready["event"] == "ready"
    assert service.ready["pid"] == service.process.pid
    assert len(bytes.fromhex(service.ready["identity"])) == 32
    for address in (service.ready["listen"], service.ready["metrics"]):
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), PATIENCE):
            pass
    assert len(workers_of(service)) == 2
    assert run_cli("health", "--target", service.ready["listen"]).stdout == "SERVING\n"


@pytest.mark.parametrize("second", ["--workers=1", "--workers=2"])
def test_a_second_service_on_the_address_is_refused_whatever_its_journal(
    start: Start, tmp_path: Path, second: str
) -> None:
    listen = start("--workers=2").ready["listen"]
    said = refusal(tmp_path / "other", second, f"--listen={listen}")
    assert f"can't listen on {listen}" in said


def test_a_second_service_on_the_journals_is_refused(start: Start, tmp_path: Path) -> None:
    first = start("--workers=2")
    assert "in use by another service" in refusal(tmp_path / "data", "--workers=2")
    assert first.process.poll() is None


async def test_the_metrics_are_those_of_all_workers(start: Start) -> None:
    service = start("--workers=2")
    async with connected(service, 4) as clients:
        await establish(clients)
    told = await asyncio.to_thread(scrape, service.ready["metrics"])
    (made,) = [
        family.samples
        for family in text_string_to_metric_families(told)
        if family.name == "connect_channels_established"
    ]
    assert {sample.labels["worker"] for sample in made} == {"0", "1"}
    assert sum(sample.value for sample in made) == CHANNELS


async def test_the_keys_are_rotated_in_every_journal(start: Start, tmp_path: Path) -> None:
    service = start("--workers=2")
    data = tmp_path / "data"
    async with connected(service, 4) as clients:
        await establish(clients)
    old, new = (data / "sealing.key").read_text().strip(), os.urandom(32).hex()
    sealed_by = identity_key_id(data / "identity.sealed")
    write_secret(data / "new.key", f"{new}\n{old}\n")
    (data / "new.key").rename(data / "sealing.key")
    service.process.send_signal(signal.SIGHUP)
    await until(lambda: service.log.count("sealing under master key") == 2)
    # Which one worker has done for all, without being stopped.
    assert identity_key_id(data / "identity.sealed") != sealed_by
    assert service.signal(signal.SIGTERM) == 0
    at = (f"--data-dir={data}", "--workers=2")
    for worker in range(WORKERS):
        command("reseal", *at, f"--worker={worker}")
    (data / "sealing.key").write_text(f"{new}\n")
    for worker in range(WORKERS):
        assert "whole" in command("verify", *at, f"--worker={worker}")
    assert start("--workers=2").ready["identity"] == service.ready["identity"]


async def test_the_operators_commands_work_on_one_workers_journal(
    start: Start, tmp_path: Path
) -> None:
    service = start("--workers=2")
    data = tmp_path / "data"
    at = (f"--data-dir={data}", "--workers=2")
    async with connected(service, 4) as clients:
        channels = await establish(clients)
    found = [
        json.loads(command("inspect", *at, "--json", f"--worker={worker}"))["channels"]
        for worker in range(WORKERS)
    ]
    assert sum(found) == CHANNELS
    for channel in channels[:4]:
        shown = command("inspect", *at, f"--channel={channel.connect_id}")
        assert str(channel.connect_id) in shown
    assert service.signal(signal.SIGTERM) == 0
    moved = tmp_path / "moved"
    for worker in range(WORKERS):
        one = f"--worker={worker}"
        command("backup", *at, one, str(tmp_path / f"backup-{worker}"))
        command(
            "restore",
            f"--data-dir={moved}",
            "--workers=2",
            f"--sealing-key-file={data / 'sealing.key'}",
            one,
            "--nothing-written-since",
            str(tmp_path / f"backup-{worker}"),
        )
    after = start(
        "--workers=2", f"--data-dir={moved}", f"--sealing-key-file={data / 'sealing.key'}"
    )
    assert after.ready["identity"] == service.ready["identity"]
    async with connected(after, 2) as [client, _]:
        await talk(client, channels, b"moved")


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--workers=2"], 2, "give one of --worker 0 to 1"),
        (["--workers=2", "--worker=2"], 2, "give one of --worker 0 to 1"),
        (["--workers=2", "--worker=-1"], 2, "give one of --worker 0 to 1"),
        ([], 3, "give --workers 2, or another --data-dir"),
    ],
)
def test_a_command_that_does_not_say_whose_journal_is_told_to(
    tmp_path: Path, flags: list[str], code: int, said: str
) -> None:
    (tmp_path / "journal-0-of-2.db").touch()
    assert said in command("verify", f"--data-dir={tmp_path}", *flags, expect=code)


async def test_refusals_come_from_the_worker_that_has_the_channel(start: Start) -> None:
    service = start("--workers=2")
    async with connected(service, 1) as [client], client.exchange() as stream:
        unknown = [
            wire.Operation(restore=wire.RestoreRequest(connect_id=number)) for number in range(1, 9)
        ]
        results = await stream.call(unknown)
    assert {type(error_of(result.error)).__name__ for result in results} == {"ChannelNotFoundError"}
