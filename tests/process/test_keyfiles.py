"""The service's two secrets on disk."""

import os
import stat
from pathlib import Path

import pytest

from service.keyfiles import KeyFileError, load_identity, load_master_key
from service.randomness import BlockRandom

MASTER = bytes(range(32))


def test_keys_are_made_once_and_come_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "sealing.key"
    made = load_master_key(path, os.urandom)
    assert len(made) == 32
    assert load_master_key(path, os.urandom) == made
    identity = load_identity(tmp_path / "identity", made, os.urandom)
    assert load_identity(tmp_path / "identity", made, os.urandom) == identity


def test_key_files_are_their_owners_alone_and_nothing_else_is_left(tmp_path: Path) -> None:
    load_master_key(tmp_path / "sealing.key", os.urandom)
    load_identity(tmp_path / "identity", MASTER, os.urandom)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"sealing.key": 0o600, "identity": 0o600}


def test_the_identity_is_on_disk_only_sealed(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    identity = load_identity(path, MASTER, os.urandom)
    assert identity.private_key not in path.read_bytes()
    with pytest.raises(KeyFileError, match="another master key"):
        load_identity(path, bytes(32), os.urandom)


@pytest.mark.parametrize("content", [b"", b"short", bytes(33)])
def test_a_file_of_another_size_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "sealing.key"
    path.write_bytes(content)
    with pytest.raises(KeyFileError, match=f"holds {len(content)} bytes, expected 32"):
        load_master_key(path, os.urandom)
    assert path.read_bytes() == content


def test_a_crash_while_a_key_is_written_leaves_no_half_a_key(tmp_path: Path) -> None:
    (tmp_path / "sealing.key.new").write_bytes(b"half")
    made = load_master_key(tmp_path / "sealing.key", os.urandom)
    assert (tmp_path / "sealing.key").read_bytes() == made
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
