"""The service's long-lived secrets: where they come from, and what is refused."""

import os
import stat
import sys
from pathlib import Path

import pytest

from service.keyfiles import KeyFileError, KeySource, load_identity
from service.persistence.keyring import KeyRing
from service.randomness import BlockRandom

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
    file = tmp_path / "keys"
    file.write_text(text)
    script = f"print(open({str(file)!r}).read())"
    source = {
        "file": KeySource(tmp_path / "made", file=file),
        "keys": KeySource(tmp_path / "made", keys=f"{NEW.hex()},{OLD.hex()}"),
        "command": KeySource(tmp_path / "made", command=f'{sys.executable} -c "{script}"'),
    }[way]
    keys = source.load(os.urandom)
    assert [key.secret for key in keys.keys] == [NEW, OLD]
    assert keys.sealing.secret == NEW
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("content", ["", "# nothing\n", "abcd", NEW.hex() + "00", "g" * 64])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, content: str) -> None:
    path = tmp_path / "sealing.key"
    path.write_text(content)
    with pytest.raises(KeyFileError, match="64 hex digits") as refused:
        KeySource(path).load(os.urandom)
    assert not content or content not in str(refused.value)
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("command", "reason"),
    [("false", "exit code 1"), ("/no/such/program", "can't be run"), ("'", "can't be run")],
)
def test_a_command_that_fails_is_told(tmp_path: Path, command: str, reason: str) -> None:
    with pytest.raises(KeyFileError, match=reason):
        KeySource(tmp_path / "made", command=command).load(os.urandom)


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


def test_block_randomness_never_gives_the_same_bytes_twice() -> None:
    random = BlockRandom()
    drawn = [random(12) for _ in range(2_000)]
    assert all(len(nonce) == 12 for nonce in drawn)
    assert len(set(drawn)) == 2_000


def test_keys_are_never_drawn_from_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = os.urandom

    def urandom(size: int) -> bytes:
        asked.append(size)
        return real(size)

    monkeypatch.setattr(os, "urandom", urandom)
    random = BlockRandom()
    random(12)
    random(32)
    random(12)
    assert asked == [4_096, 32]
