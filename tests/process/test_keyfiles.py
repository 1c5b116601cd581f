"""The service's long-lived secrets: where they come from, and what is refused."""

import asyncio
import os
import shlex
import signal
import stat
import sys
from pathlib import Path

import psutil
import pytest

from connect_actor.keys.keyring import KeyRing
from connect_actor.keys.sources import KeyFileError, KeySource, load_identity
from connect_actor.process.paths import key_source
from connect_actor.settings import SettingsError, load_settings
from tests.process.test_process import run_cli
from tests.support.house import until
from tests.support.process import Start, none_left
from tests.support.secret_files import write_secret

OLD, NEW = bytes(range(32)), bytes(32)


def test_keys_are_made_once_and_come_back(tmp_path: Path) -> None:
    source = KeySource(tmp_path / "new" / "sealing.key")
    made = source.load(os.urandom)
    assert source.load(os.urandom).sealing == made.sealing
    identity = load_identity(tmp_path / "identity", made, os.urandom)
    assert load_identity(tmp_path / "identity", made, os.urandom) == identity


def test_key_files_are_their_owners_alone_and_nothing_else_is_left(tmp_path: Path) -> None:
    KeySource(tmp_path / "sealing.key").load(os.urandom)
    load_identity(tmp_path / "identity", KeyRing.of(OLD), os.urandom)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"sealing.key": 0o600, "identity": 0o600}


def test_no_key_is_made_where_something_has_been_sealed(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="put it back"):
        KeySource(tmp_path / "sealing.key").load(os.urandom, may_make=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", ["file", "keys", "command"])
def test_keys_come_from_a_file_the_environment_or_a_command(tmp_path: Path, way: str) -> None:
    text = f"# the new one\n{NEW.hex()}  # seals\n\n{OLD.hex()}\n"
    file = write_secret(tmp_path / "keys", text)
    script = f"print(open({str(file)!r}).read())"
    source = {
        "file": KeySource(tmp_path / "made", file=file),
        "keys": KeySource(tmp_path / "made", keys=f"{NEW.hex()},{OLD.hex()}"),
        "command": KeySource(tmp_path / "made", command=shlex.join((sys.executable, "-c", script))),
    }[way]
    keys = source.load(os.urandom)
    assert [key.secret for key in keys.keys] == [NEW, OLD]
    assert keys.sealing.secret == NEW
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", ["", "# nothing\n", "abcd", NEW.hex() + "00", "g" * 64])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, content: str) -> None:
    path = write_secret(tmp_path / "sealing.key", content)
    with pytest.raises(KeyFileError, match="64 hex digits") as refused:
        KeySource(path).load(os.urandom)
    assert not content or content not in str(refused.value)
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("false", "failed with exit code 1"),
        ("sh -c 'kill -9 $$'", "failed with exit code -9"),
        ("/no/such/program", "can't be run"),
        ("'", "can't be run"),
        ("echo \0", "can't be run"),
        ("", "is empty"),
        ("  ", "is empty"),
        ("true", "printed nothing"),
        ("echo", "printed nothing"),
        ("printf '#'", "64 hex digits"),
        ("printf '\\377'", "64 hex digits"),
        ("head -c 65536 /dev/zero", "64 hex digits"),
        ("head -c 65537 /dev/zero", "prints over 65,536 bytes"),
        ("yes", "prints over 65,536 bytes"),
    ],
)
def test_a_command_that_fails_is_told(tmp_path: Path, command: str, reason: str) -> None:
    with pytest.raises(KeyFileError, match=reason):
        KeySource(tmp_path / "made", command=command).load(os.urandom)


def test_a_command_that_takes_too_long_is_killed_with_what_it_has_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connect_actor.keys.sources._COMMAND_TIMEOUT", 0.5)
    source = KeySource(tmp_path / "made", command=hanging(tmp_path))
    with pytest.raises(KeyFileError, match=r"took over 0\.5 s"):
        source.load(os.urandom)
    assert none_left(started_by(tmp_path))


async def test_a_command_that_is_no_longer_waited_for_is_killed_with_what_it_has_started(
    tmp_path: Path,
) -> None:
    reading = asyncio.create_task(
        KeySource(tmp_path / "made", command=hanging(tmp_path)).read(os.urandom)
    )
    await until(lambda: len(started_by(tmp_path)) == 2)
    processes = started_by(tmp_path)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert none_left(processes)


@pytest.mark.parametrize("passes", range(1, 9))
async def test_a_command_is_killed_however_early_it_is_given_up(
    tmp_path: Path, passes: int
) -> None:
    reading = asyncio.create_task(
        KeySource(tmp_path / "made", command=hanging(tmp_path)).read(os.urandom)
    )
    for _ in range(passes):
        await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    # Its directory is in the command line of everything that it starts.
    mark = str(tmp_path)
    assert none_left(
        process
        for process in psutil.process_iter()
        if any(mark in word for word in command_line(process))
    )


def command_line(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


async def test_a_service_stops_though_its_key_command_hangs(start: Start, tmp_path: Path) -> None:
    write_secret(tmp_path / "keys", NEW.hex())
    # The first time it prints the keys.
    script = f"cat {tmp_path / 'keys'} && rm {tmp_path / 'keys'} || exec {hanging(tmp_path)}"
    service = start(f"--sealing-key-command=sh -c {shlex.quote(script)}")
    service.process.send_signal(signal.SIGHUP)
    await until(lambda: len(started_by(tmp_path)) == 2)
    processes = started_by(tmp_path)
    assert service.signal(signal.SIGTERM) == 0
    assert none_left(processes)
    assert "sealing_key_command" not in service.log


def hanging(directory: Path) -> str:
    """Return a command that starts another one and waits for it; both write down their ids."""
    script = f"echo $$ > {directory}/first; sh -c 'echo $$ > {directory}/second; sleep 1000'; true"
    return f"sh -c {shlex.quote(script)}"


def started_by(directory: Path) -> list[psutil.Process]:
    """Return the processes of a hanging command that have said who they are, and are there."""
    files = [directory / "first", directory / "second"]
    texts = [file.read_text().strip() for file in files if file.exists()]
    return [psutil.Process(int(text)) for text in texts if text and psutil.pid_exists(int(text))]


@pytest.mark.parametrize(
    "flags",
    [
        [f"--sealing-keys={NEW.hex()}"],
        ["--sealing-keys", NEW.hex()],
        [f"--SEALING-KEYS={NEW.hex()}"],
        [f"--sealing_keys={NEW.hex()}"],
        [f"--sealing-keys={NEW.hex()},{OLD.hex()}"],
        [f"--sealing-key={NEW.hex()}"],
        [f"--sealing-key-file={NEW.hex().upper()}"],
        [f"--sealing-key-command=echo {NEW.hex()}"],
        [f"--sealing-key-command=sh -c 'echo \"{NEW.hex()}\"'"],
        ["--sealing-keys="],
        [OLD.hex()],
    ],
)
@pytest.mark.parametrize("command", ["serve", "verify"])
def test_a_sealing_key_on_a_command_line_is_refused_and_not_repeated(
    tmp_path: Path, command: str, flags: list[str]
) -> None:
    refused = run_cli(command, f"--data-dir={tmp_path / 'data'}", *flags)
    assert refused.returncode == 2
    assert "on a command line" in refused.stderr
    assert NEW.hex() not in refused.stderr.lower()
    assert OLD.hex() not in refused.stderr
    assert refused.stdout == ""
    assert not (tmp_path / "data").exists()


def test_a_digest_in_a_path_is_no_key(tmp_path: Path) -> None:
    refused = run_cli("verify", f"--data-dir={tmp_path}/{NEW.hex()}/_data")
    assert "there is no directory" in refused.stderr


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o606])
def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    file = write_secret(tmp_path / "keys", NEW.hex())
    assert KeySource(tmp_path / "made", file=file).load(os.urandom).sealing.secret == NEW
    file.chmod(mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:04o}.*chmod"):
        KeySource(tmp_path / "made", file=file).load(os.urandom)
    with pytest.raises(KeyFileError, match="chmod"):
        KeySource(file).load(os.urandom)


@pytest.mark.parametrize("spelled", ["sealing_keys", '"sealing_keys"', "SEALING_KEYS"])
def test_a_configuration_file_with_keys_is_a_key_file(tmp_path: Path, spelled: str) -> None:
    file = write_secret(tmp_path / "c.toml", f"workers = 1\n{spelled} = '{NEW.hex()}'\n")
    keys = key_source(load_settings([f"--config={file}"])).load(os.urandom)
    assert keys.sealing.secret == NEW
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod") as refused:
        load_settings([f"--config={file}"])
    assert NEW.hex() not in str(refused.value)
    file.write_text("# sealing_keys come from the environment\nworkers = 1\n")
    assert load_settings([f"--config={file}"]).sealing_keys is None


def test_a_key_file_without_an_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").symlink_to("/dev/zero")
    with pytest.raises(KeyFileError, match="more than"):
        KeySource(tmp_path / "made", file=tmp_path / "keys").load(os.urandom)


def test_a_key_is_never_written_into_a_file_that_was_there(tmp_path: Path) -> None:
    draft = tmp_path / "sealing.key.new"
    draft.write_text("")
    draft.chmod(0o666)
    with draft.open() as held:
        KeySource(tmp_path / "sealing.key").load(os.urandom)
        assert held.read() == ""
    assert stat.S_IMODE((tmp_path / "sealing.key").stat().st_mode) == 0o600


def test_the_identity_is_on_disk_only_sealed(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    identity = load_identity(path, KeyRing.of(OLD), os.urandom)
    assert identity.private_key not in path.read_bytes()
    with pytest.raises(KeyFileError, match="not given"):
        load_identity(path, KeyRing.of(NEW), os.urandom)


def test_the_identity_is_sealed_anew_under_a_rotated_key(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    identity = load_identity(path, KeyRing.of(OLD), os.urandom)
    assert load_identity(path, KeyRing.of(NEW, OLD), os.urandom) == identity
    assert load_identity(path, KeyRing.of(NEW), os.urandom) == identity
    with pytest.raises(KeyFileError, match="not given"):
        load_identity(path, KeyRing.of(OLD), os.urandom)


def test_a_damaged_identity_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    load_identity(path, KeyRing.of(OLD), os.urandom)
    intact = path.read_bytes()
    for damaged in (intact[:-1], intact[:-1] + bytes([intact[-1] ^ 1])):
        path.write_bytes(damaged)
        with pytest.raises(KeyFileError, match=r"damaged|bytes, expected"):
            load_identity(path, KeyRing.of(OLD), os.urandom)
        assert path.read_bytes() == damaged


def test_a_crash_while_a_key_is_written_leaves_no_half_a_key(tmp_path: Path) -> None:
    (tmp_path / "sealing.key.new").write_bytes(b"half")
    source = KeySource(tmp_path / "sealing.key")
    made = source.load(os.urandom)
    assert source.load(os.urandom).sealing == made.sealing
    assert [path.name for path in tmp_path.iterdir()] == ["sealing.key"]


def test_a_byte_order_mark_before_the_keys_is_passed_over(tmp_path: Path) -> None:
    file = write_secret(tmp_path / "keys", f"\ufeff{NEW.hex()}\n")
    assert KeySource(tmp_path / "made", file=file).load(os.urandom).sealing.secret == NEW
