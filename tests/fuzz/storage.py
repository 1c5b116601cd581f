"""Targets of what is stored: sealed blobs, rows of the log, key files."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from connect_actor.keys.keyring import KeyRing
from connect_actor.keys.sources import KeyFileError, KeySource, load_identity
from connect_actor.persistence.contract import CorruptRecordError
from connect_actor.persistence.log_rows import RowWriter, entries_of, first_place, record_at
from connect_actor.persistence.sealing import SALT_SIZE, Sealer, payloads_context
from tests.fuzz.target import require
from tests.support.channels import seeded
from tests.support.secret_files import write_secret

__all__ = ["STORAGE_TARGETS"]

_KEYS = KeyRing.of(bytes(range(32)))
_ROW = 7


def _written() -> tuple[bytes, bytes]:
    """Return directory and payloads of a row of some records."""
    writer = RowWriter(_ROW)
    for number in range(1, 6):
        writer.add(number * 1_000, number, 2, b"x" * number * 10)
    writer.finish()
    _, directory, payloads = writer.rows[0]
    return directory, payloads


class _BytesTarget:
    style: ClassVar[str] = "bytes"
    max_steps: ClassVar[int] = 0
    base_bytes: ClassVar[int] = 0

    def close(self) -> None:
        pass


class SealedTarget(_BytesTarget):
    """A sealed blob."""

    name: ClassVar[str] = "sealed"

    def __init__(self) -> None:
        self._context = payloads_context(_ROW, bytes(28))
        self._sealer = Sealer(random=bytes)  # zeros: the corpus is to stay as it is
        self._sealer.begin_epoch(1, _KEYS.sealing, bytes(SALT_SIZE), "full")
        self._valid = {
            f"{size}-bytes": self._sealer.seal(bytes(size), self._context) for size in (0, 1, 300)
        }

    def seeds(self) -> Mapping[str, bytes]:
        return self._valid

    def run(self, data: bytes) -> bool:
        try:
            self._sealer.open(data, self._context)
        except CorruptRecordError:
            return False
        require(data in self._valid.values(), "a blob opened that was not sealed")
        return True


class RowTarget(_BytesTarget):
    """A row's two parts, opened: the number of the directory's bytes comes first."""

    name: ClassVar[str] = "row"

    def seeds(self) -> Mapping[str, bytes]:
        directory, payloads = _written()
        return {"five-records": len(directory).to_bytes(2, "big") + directory + payloads}

    def run(self, data: bytes) -> bool:
        length = int.from_bytes(data[:2], "big")
        directory, payloads = data[2 : 2 + length], data[2 + length :]
        try:
            entries = list(entries_of(_ROW, directory))
            for place, *_ in entries:
                if first_place(_ROW) <= place < first_place(_ROW + 1):
                    record_at(place, payloads)
        except CorruptRecordError:
            return False
        return True


class KeyFileTarget(_BytesTarget):
    """The files of the master key and of the identity: either may hold the input."""

    name: ClassVar[str] = "keyfile"

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._path = Path(self._folder.name) / "key"

    def seeds(self) -> Mapping[str, bytes]:
        self._path.unlink(missing_ok=True)
        load_identity(self._path, _KEYS, seeded(1))
        keys = (
            f"# the newer one\n{bytes(32).hex()}\n{_KEYS.sealing.secret.hex()}  # and the older\n"
        )
        return {"master": keys.encode(), "identity": self._path.read_bytes()}

    def run(self, data: bytes) -> bool:
        write_secret(self._path, data)
        loaders: tuple[Callable[[], object], ...] = (
            lambda: KeySource(self._path, file=self._path).load(seeded(1)),
            lambda: load_identity(self._path, _KEYS, seeded(1)),
        )
        accepted = 0
        for load in loaders:
            try:
                load()
            except KeyFileError:
                continue
            accepted += 1
        require(self._path.read_bytes() == data, "a key file was written over")
        return accepted > 0

    def close(self) -> None:
        self._folder.cleanup()


STORAGE_TARGETS = (SealedTarget, RowTarget, KeyFileTarget)
