"""The operator's commands, on the data of a real service, running or stopped."""

import base64
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from connect_actor.client import Channel, ConnectClient, Identity
from connect_actor.keys.sources import KeySource, load_identity
from connect_actor.persistence.inspection import inspect_channel
from connect_actor.v1 import connect_pb2 as wire
from tests.support.process import PATIENCE, RunningService, Start


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def command(*arguments: str, expect: int = 0) -> str:
    """Run a command of the operator; return what it printed."""
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "connect_actor.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == expect, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if expect == 0 or done.stdout else done.stderr


def inspect(data: Path, *arguments: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(
        command("inspect", f"--data-dir={data}", "--json", *arguments)
    )
    return shown


def client_of(service: RunningService) -> ConnectClient:
    return ConnectClient(
        service.ready["listen"], pinned_identity=bytes.fromhex(service.ready["identity"])
    )


async def talk(channel: Channel, messages: int = 1) -> None:
    for _ in range(messages):
        assert channel.open(await channel.encrypt(b"down")) == b"down"
        assert await channel.decrypt(channel.seal(b"up")) == b"up"


async def established(client: ConnectClient) -> Channel:
    channel = await client.establish(Identity.generate(os.urandom))
    await talk(channel)
    return channel


async def continued(client: ConnectClient, channel: Channel) -> None:
    """Go on with a channel of an earlier connection."""
    await talk(Channel(channel.connect_id, channel.session, client.stub))


async def refused(client: ConnectClient, channel: Channel) -> str:
    request = wire.EncryptRequest(connect_id=channel.connect_id, plaintext=b"x")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await client.stub.Encrypt(request)
    return error.value.details() or ""


def secrets_of(data: Path, channel: int) -> Iterator[bytes]:
    """Yield key material of the journal: of the file, the service and a channel."""
    source = KeySource(data / "sealing.key")
    keys = source.load(os.urandom, may_make=False)
    yield keys.sealing.secret
    yield load_identity(data / "identity.sealed", keys, os.urandom).private_key
    found = inspect_channel(data / "journal.db", keys, channel)
    assert found is not None
    _, session = found
    ratchet = session.ratchet
    yield ratchet.root_key
    for chain in (ratchet.sending, ratchet.receiving):
        if chain is not None:
            yield chain.chain_key
    assert ratchet.own_key is not None
    yield ratchet.own_key.private_key
    for pair in session.channel_keys.one_time_prekeys.values():
        yield pair.private_key
    with sqlite3.connect(data / "journal.db") as connection:
        for (salt,) in connection.execute("SELECT salt FROM writers"):
            yield salt
    connection.close()


async def test_no_command_prints_a_secret(start: Start, data: Path, tmp_path: Path) -> None:
    service = start()
    async with client_of(service) as client:
        channel = await established(client)
    printed = []
    for shown in ([], ["--json"]):
        at = f"--data-dir={data}"
        printed.append(command("inspect", at, *shown))
        printed.append(command("inspect", at, f"--channel={channel.connect_id}", *shown))
        printed.append(command("verify", at, "--all", *shown))
        printed.append(command("backup", at, str(tmp_path / f"backup{len(printed)}"), *shown))
        printed.append(command("restore", at, str(tmp_path / "backup3"), *shown, expect=3))
        printed.append(command("reseal", at, *shown, expect=3))
    service.signal(signal.SIGTERM)
    secrets = list(secrets_of(data, channel.connect_id))
    for shown in ([], ["--json"]):
        printed.append(command("reseal", at, *shown))
        printed.append(command("restore", at, str(tmp_path / "backup3"), *shown))
    assert len(printed) == 16
    assert len(secrets) > 10
    everything = "\n".join(printed)
    # What would have been found, if it were there.
    assert str(channel.connect_id) in everything
    for secret in secrets:
        for form in (secret.hex(), base64.b64encode(secret).decode()[:-2], repr(secret)[2:-1]):
            assert form not in everything


async def test_a_running_service_is_inspected_and_verified(start: Start, data: Path) -> None:
    service = start("--snapshot-interval=10")
    async with client_of(service) as client:
        channel = await established(client)
        await talk(channel, 6)
        channel.seal(b"never arrives")
        await talk(channel)
        shown = inspect(data, f"--channel={channel.connect_id}")
        figures = inspect(data)
        found = json.loads(command("verify", f"--data-dir={data}", "--json"))
    assert shown["sequence_number"] == 17
    # The first one comes early, by the channel's id.
    assert shown["snapshot"] == range(11 - channel.connect_id % 10, 18, 10)[-1]
    assert shown["records_behind_snapshot"] == 17 - shown["snapshot"]
    assert shown["skipped_keys"] == 1
    assert shown["deliveries_kept"] == 8
    assert shown["redelivery_window"] == 16
    assert (shown["max_skip"], shown["expired"]) == (1_000, False)
    assert figures["lease"]["held"]
    assert figures["channels"] == 1
    assert figures["epochs"][-1]["strategy"] == "differential"
    assert (found["whole"], found["channels_seen"]) == (True, 1)
    assert "no channel 5" in command("inspect", f"--data-dir={data}", "--channel=5", expect=1)


async def test_a_killed_service_s_journal_is_looked_at_as_it_is(start: Start, data: Path) -> None:
    service = start()
    async with client_of(service) as client:
        channel = await established(client)
    service.signal(signal.SIGKILL)
    figures = inspect(data)
    assert not figures["lease"]["held"]
    assert figures["rows"] == figures["lease"]["head"] == 3
    assert "whole" in command("verify", f"--data-dir={data}")
    after = start()
    async with client_of(after) as client:
        await continued(client, channel)


async def test_damage_ends_in_exit_code_1_and_names_the_channel(start: Start, data: Path) -> None:
    service = start()
    async with client_of(service) as client:
        channel = await established(client)
    service.signal(signal.SIGTERM)
    with sqlite3.connect(data / "journal.db") as connection:
        connection.execute("UPDATE snapshots SET payload = zeroblob(99)")
    connection.close()
    said = command("verify", f"--data-dir={data}", expect=1)
    assert "NOT WHOLE" in said
    assert f"channel {channel.connect_id}: snapshot" in said
    which = f"--channel={channel.connect_id}"
    assert "damaged" in command("inspect", f"--data-dir={data}", which, expect=1)


# --- Backup and restore ---------------------------------------------------------------------------


async def test_a_backup_of_a_running_service_gives_its_channels_up_if_it_went_on(
    start: Start, data: Path, tmp_path: Path
) -> None:
    service = start()
    backup = tmp_path / "backup"
    async with client_of(service) as client:
        channel = await established(client)
        assert "master keys" in command("backup", f"--data-dir={data}", str(backup))
        await talk(channel)
    assert not (backup / "sealing.key").exists()
    said = command("restore", f"--data-dir={data}", str(backup), expect=3)
    assert "end its process first" in said
    service.signal(signal.SIGTERM)
    said = command(
        "restore", f"--data-dir={data}", str(backup), "--nothing-written-since", expect=3
    )
    assert "written since" in said
    assert "given up" in command("restore", f"--data-dir={data}", str(backup))
    (data / "journal.db-lease").unlink()
    after = start()
    assert after.ready["identity"] == service.ready["identity"]
    async with client_of(after) as client:
        assert "may have gone on after the backup" in await refused(client, channel)
        await established(client)
    assert inspect(data)["channels_given_up"] == 1


async def test_a_service_moves_to_another_directory_by_backup_and_restore(
    start: Start, data: Path, tmp_path: Path
) -> None:
    service = start()
    async with client_of(service) as client:
        channel = await established(client)
    service.signal(signal.SIGTERM)
    backup, other = tmp_path / "backup", tmp_path / "other"
    command("backup", f"--data-dir={data}", str(backup))
    key = f"--sealing-key-file={data / 'sealing.key'}"
    assert "whole, a backup" in command("verify", f"--data-dir={backup}", key)
    moved = [f"--data-dir={other}", key]
    assert "go on" in command("restore", *moved, str(backup), "--nothing-written-since")
    after = start(*moved)
    assert after.ready["identity"] == service.ready["identity"]
    async with client_of(after) as client:
        await continued(client, channel)


async def test_a_service_does_not_start_on_a_backup_put_in_place_by_hand(
    start: Start, data: Path, tmp_path: Path
) -> None:
    service = start()
    async with client_of(service) as client:
        await established(client)
    service.signal(signal.SIGTERM)
    command("backup", f"--data-dir={data}", str(tmp_path / "backup"))
    shutil.copyfile(tmp_path / "backup" / "journal.db", data / "journal.db")
    said = command("serve", f"--data-dir={data}", "--listen=127.0.0.1:0", expect=3)
    assert "connect-actor restore" in said


async def test_an_old_copy_put_in_place_by_hand_is_recognised(start: Start, data: Path) -> None:
    service = start()
    async with client_of(service) as client:
        channel = await established(client)
    service.signal(signal.SIGTERM)
    old = (data / "journal.db").read_bytes()
    service = start()
    async with client_of(service) as client:
        await continued(client, channel)
    service.signal(signal.SIGTERM)
    (data / "journal.db").write_bytes(old)
    assert "older copy" in command("verify", f"--data-dir={data}", expect=1)
    after = start()
    async with client_of(after) as client:
        assert "newest records may be" in await refused(client, channel)
        await established(client)


async def test_a_copied_directory_is_refused_until_the_operator_answers_for_it(
    start: Start, data: Path, tmp_path: Path
) -> None:
    service = start()
    async with client_of(service) as client:
        channel = await established(client)
    service.signal(signal.SIGTERM)
    shutil.copytree(data, tmp_path / "moved")
    moved = f"--data-dir={tmp_path / 'moved'}"
    said = command("serve", moved, "--listen=127.0.0.1:0", expect=3)
    assert "is a copy" in said
    assert "connect-actor restore --nothing-written-since" in said
    assert "--nothing-written-since" in command("restore", moved, expect=2)
    assert "they go on" in command("restore", moved, "--nothing-written-since")
    after = start(moved)
    async with client_of(after) as client:
        await continued(client, channel)


async def test_a_copied_journal_that_lacks_its_end_is_not_accepted(
    start: Start, data: Path, tmp_path: Path
) -> None:
    service = start()
    async with client_of(service) as client:
        channel = await established(client)
        shutil.copytree(data, tmp_path / "moved")
        await talk(channel, 5)
    service.signal(signal.SIGTERM)
    shutil.copy(data / "journal.db-lease", tmp_path / "moved")
    moved = f"--data-dir={tmp_path / 'moved'}"
    said = command("restore", moved, "--nothing-written-since", expect=3)
    assert "something was written since" in said


# --- Rotation -------------------------------------------------------------------------------------


def key_ids(data: Path, *arguments: str) -> set[str]:
    figures = inspect(data, *arguments)
    return {use["key_id"] for use in figures["keys"]} | {figures["identity_key_id"]}


async def test_keys_are_rotated_while_the_service_runs(start: Start, data: Path) -> None:
    service = start()
    file = data / "sealing.key"
    old = file.read_text()
    (old_id,) = key_ids(data)
    new = os.urandom(32).hex() + "\n"
    async with client_of(service) as client:
        channel = await established(client)
        file.write_text(new + old)
        service.process.send_signal(signal.SIGHUP)
        # It does the rest by itself.
        while old_id in (ids := key_ids(data)):
            assert service.process.poll() is None
        assert len(ids) == 1
        await talk(channel)
    file.write_text(new)
    service.signal(signal.SIGTERM)
    after = start()
    assert after.ready["identity"] == service.ready["identity"]
    async with client_of(after) as client:
        await continued(client, channel)
    assert key_ids(data) == ids


async def test_keys_are_rotated_while_the_service_is_stopped(start: Start, data: Path) -> None:
    service = start()
    async with client_of(service) as client:
        channel = await established(client)
    service.signal(signal.SIGTERM)
    file = data / "sealing.key"
    old = file.read_text()
    new = os.urandom(32).hex() + "\n"
    file.write_text(new)
    assert "not given" in command("reseal", f"--data-dir={data}", expect=3)
    file.write_text(new + old)
    done = json.loads(command("reseal", f"--data-dir={data}", "--json"))
    assert (done["rows"], done["snapshots"], done["older_key_ids_needed"]) == (4, 1, [])
    file.write_text(new)
    assert key_ids(data) == {done["key_id"]}
    after = start()
    async with client_of(after) as client:
        await continued(client, channel)


async def test_an_old_key_that_damage_still_needs_is_named(start: Start, data: Path) -> None:
    service = start()
    async with client_of(service) as client:
        await established(client)
    service.signal(signal.SIGTERM)
    (old_id,) = key_ids(data)
    with sqlite3.connect(data / "journal.db") as connection:
        connection.execute("UPDATE log SET payloads = zeroblob(99) WHERE number = 1")
    connection.close()
    file = data / "sealing.key"
    file.write_text(os.urandom(32).hex() + "\n" + file.read_text())
    assert f"keep master key {old_id}" in command("reseal", f"--data-dir={data}", expect=1)


# --- One writer -----------------------------------------------------------------------------------


async def test_a_service_that_stood_still_is_replaced_and_writes_nothing_more(
    start: Start, data: Path
) -> None:
    stale = start("--journal-lease=1")
    async with client_of(stale) as old_client:
        channel = await established(old_client)
        stale.process.send_signal(signal.SIGSTOP)
        while inspect(data)["lease"]["silent"] < 1:
            pass
        successor = start("--journal-lease=1")
        async with client_of(successor) as client:
            await continued(client, channel)
            before = inspect(data)
            stale.process.send_signal(signal.SIGCONT)
            await refused(old_client, channel)
            assert stale.process.wait(PATIENCE) == 3
            assert "taken the journal over" in stale.log
            after = inspect(data)
            assert (after["last_row"], after["epochs"]) == (before["last_row"], before["epochs"])
            assert after["lease"]["epoch"] == before["lease"]["epoch"] == 2
            await continued(client, channel)


@pytest.mark.parametrize(
    ("arguments", "expected", "said"),
    [
        (["inspect"], 3, "there is no directory"),
        (["inspect", "--channel=5"], 3, "there is no directory"),
        (["verify"], 3, "there is no directory"),
        (["reseal"], 3, "there is no directory"),
        (["restore", "nowhere"], 3, "sealing.key is missing"),
        (["backup", "somewhere"], 3, "there is no directory"),
        (["backup"], 2, "directory"),
        (["inspect", "--config=/no/such/file"], 2, "does not exist"),
    ],
)
def test_commands_without_data_say_what_is_missing_and_make_nothing(
    data: Path, arguments: list[str], expected: int, said: str
) -> None:
    assert said in command(*arguments, f"--data-dir={data}", expect=expected)
    assert not data.exists()


# Each with all that it needs but for a data directory.
COMMANDS = (
    ["inspect"],
    ["inspect", "--channel=5"],
    ["verify"],
    ["reseal"],
    ["backup", "somewhere"],
    ["restore", "nowhere"],
    ["serve", "--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0"],
)


def line_of(arguments: list[str], data: Path) -> str:
    """Return the one line that a command ends with that can't be done."""
    lines = command(*arguments, f"--data-dir={data}", expect=3).splitlines()
    # What a service logs before is JSON.
    (said,) = [line for line in lines if not line.startswith("{")]
    assert said.startswith("connect-actor: ")
    return said


@pytest.mark.parametrize("arguments", COMMANDS[:5])
def test_an_empty_directory_is_told_for_what_it_is(data: Path, arguments: list[str]) -> None:
    data.mkdir()
    assert f"{data} holds no journal.db" in line_of(arguments, data)
    assert not list(data.iterdir())


@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_file_is_no_data_directory(data: Path, arguments: list[str]) -> None:
    data.touch()
    for directory in (data, data / "below"):
        assert f"{directory} is no directory" in line_of(arguments, directory)


@pytest.mark.skipif(os.geteuid() == 0, reason="root has access to every directory")
@pytest.mark.parametrize("arguments", COMMANDS)
def test_a_directory_of_another_user_is_one_line(data: Path, arguments: list[str]) -> None:
    data.mkdir(0o000)
    for directory in (data, data / "below"):
        assert "Permission denied" in line_of(arguments, directory)


@pytest.mark.parametrize("channel", ["0", "-1", "x", "1.0", str(2**63), str(2**64)])
def test_an_id_that_no_channel_can_have_is_refused_as_such(data: Path, channel: str) -> None:
    said = command("inspect", f"--channel={channel}", f"--data-dir={data}", expect=2)
    assert "expected a connect id, 1 to 9223372036854775807" in said


async def test_exit_codes_mean_the_same_whatever_becomes_of_the_output(
    start: Start, data: Path
) -> None:
    service = start()
    async with client_of(service) as client:
        channel = await established(client)
    service.signal(signal.SIGTERM)

    def codes(program: str) -> list[int]:
        ends = []
        for redirect in (">&-", "| true", ">/dev/full"):
            script = f'"$0" -m connect_actor.cli {program} --data-dir="$1" {redirect}'
            done = subprocess.run(  # noqa: S603 - our own command
                [
                    *("/bin/bash", "-c", script + '; exit "${PIPESTATUS[0]}"'),
                    *(sys.executable, str(data)),
                ],
                stderr=subprocess.PIPE,
                timeout=PATIENCE,
                check=False,
            )
            assert b"Traceback" not in done.stderr
            ends.append(done.returncode)
        return ends

    assert codes("inspect") == [0, 0, 4]
    assert codes(f"inspect --channel={channel.connect_id} --json") == [0, 0, 4]
    assert codes("inspect --channel=5") == [1, 1, 1]
    assert codes("verify --all") == [0, 0, 4]
    with sqlite3.connect(data / "journal.db") as connection:
        connection.execute("UPDATE snapshots SET payload = zeroblob(99)")
    connection.close()
    assert codes("verify") == [1, 1, 1]
