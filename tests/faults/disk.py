"""A disk that loses power: from a recording of the shim to all that could be left on the disk.

The model is POSIX's, which promises little: what was written, and the names of files, may be on
the disk in any selection until a sync of the file, or of the directory, has succeeded. What is lost
or kept as one is a *piece*: a write within one page of the page cache, a change of a file's length,
or one of the directory. A piece of a write may also be torn between sectors, and the file be as
long as if a lost piece were there.

After a sync that failed, the pages that were to be written are marked clean (Rebello et al., ATC
2020): they can be read until power fails, but no later sync writes them, unless something else is
written to the same page. A directory is the file system's own, which journals it or stops: after a
failed sync of it a later one that succeeds is good for all.
"""

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Choice", "Disk", "Files", "Operation", "load", "mark", "read_trace", "save"]

PAGE = 4_096
SECTOR = 512
_RECORD = struct.Struct("<c3xIqq")
_DIRECTORY = "/"
_MARK = "M"

Files = dict[str, bytes]
"""Contents by name."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One change, or a mark that a program has left in the recording."""

    kind: str
    """As in ``shim.c``: Create, Write, Truncate, Sync, Failed sync, Unlink, Rename; or Mark."""
    name: str
    offset: int = 0
    """Where a write begins; the length that a truncation leaves."""
    content: bytes = b""
    """What a write writes; the new name in a rename."""


def mark(text: str) -> bytes:
    """Return what to append to a recording in order to mark a place."""
    name = text.encode()
    return _RECORD.pack(_MARK.encode(), len(name), 0, 0) + name


def read_trace(trace: Path) -> list[Operation]:
    """Return what was recorded."""
    data = trace.read_bytes()
    operations = []
    at = 0
    while at < len(data):
        kind, name_length, offset, length = _RECORD.unpack_from(data, at)
        at += _RECORD.size
        name = data[at : at + name_length].decode()
        at += name_length
        content = data[at : at + length]
        at += len(content)
        operations.append(Operation(kind.decode(), name, offset, content))
    return operations


@dataclass(slots=True)
class _Piece:
    """What is lost or kept as one."""

    operation: Operation
    file: int
    """Which file, whatever its name; -1: a change of the directory."""
    offset: int = 0
    content: bytes = b""
    durable: bool = False
    doomed: bool = False
    """Whether a sync has failed to write it."""

    @property
    def page(self) -> int:
        return self.offset // PAGE


Choice = dict[int, int]
"""Pieces that are on the disk though no sync has put them there: by number, a mask of sectors."""

WHOLE = -1


@dataclass(slots=True)
class Disk:
    """Goes through a recording; ``images`` gives what a crash could leave at each place."""

    base: Files = field(default_factory=dict)
    """What is durable at the beginning."""
    deaf: bool = False
    """Whether syncs do nothing and say that they do: a disk that lies."""
    _pieces: list[_Piece] = field(default_factory=list)
    _names: dict[str, int] = field(default_factory=dict)
    _files: int = 0

    def __post_init__(self) -> None:
        for name in self.base:
            self._names[f"/{name}"] = self._files
            self._files += 1

    def apply(self, operation: Operation) -> None:
        """Let one change happen, in the page cache."""
        kind, name = operation.kind, operation.name
        if kind == "C":
            self._names[name] = self._files
            self._files += 1
            self._pieces.append(_Piece(operation, -1, self._names[name]))
        elif kind == "U":
            del self._names[name]
            self._pieces.append(_Piece(operation, -1))
        elif kind == "R":
            self._names[operation.content.decode()] = self._names.pop(name)
            self._pieces.append(_Piece(operation, -1))
        elif kind == "T":
            self._pieces.append(_Piece(operation, self._names[name], operation.offset))
        elif kind == "W":
            self._write(operation)
        elif kind in "SF":
            self._sync(-1 if name == _DIRECTORY else self._names[name], failed=kind == "F")

    def _write(self, operation: Operation) -> None:
        file = self._names[operation.name]
        offset, end = operation.offset, operation.offset + len(operation.content)
        while offset < end:
            next_offset = min(end, (offset // PAGE + 1) * PAGE)
            content = operation.content[offset - operation.offset : next_offset - operation.offset]
            piece = _Piece(operation, file, offset, content)
            for other in self._pieces:
                if other.doomed and other.file == file and other.page == piece.page:
                    # The page is dirty again, with all that is in it.
                    other.doomed = False
            self._pieces.append(piece)
            offset = next_offset

    def _sync(self, file: int, *, failed: bool) -> None:
        if self.deaf or (failed and file < 0):
            return
        for piece in self._pieces:
            if piece.file == file and not piece.durable and not piece.doomed:
                piece.durable, piece.doomed = not failed, failed

    @property
    def loose(self) -> list[int]:
        """Numbers of the pieces that may be on the disk or not."""
        return [number for number, piece in enumerate(self._pieces) if not piece.durable]

    def image(self, choice: Choice, fill: bytes | None = None) -> Files:
        """Return what is on the disk after a crash.

        Args:
            choice: which of the loose pieces are there.
            fill: a byte of which there are as many as a lost piece at a file's end would have had;
                None: the file is shorter.
        """
        contents = [bytearray(content) for content in self.base.values()]
        contents += [bytearray() for _ in range(self._files - len(contents))]
        names = {f"/{name}": number for number, name in enumerate(self.base)}
        for number, piece in enumerate(self._pieces):
            sectors = WHOLE if piece.durable else choice.get(number, 0)
            if piece.file >= 0:
                _change(contents[piece.file], piece, sectors, fill)
            elif sectors:
                _rename(names, piece)
        return {name.removeprefix("/"): bytes(contents[file]) for name, file in names.items()}

    def choices(self, source: random.Random, most: int) -> Iterator[tuple[Choice, bytes | None]]:
        """Yield what of the loose pieces may be there.

        All selections, if there are three pieces at most. Else all, none, and ``most`` random
        ones; in a third of them a piece is torn, in a third lost ones leave their room behind.
        """
        loose = self.loose
        if len(loose) <= 3:
            for mask in range(1 << len(loose)):
                yield {n: WHOLE for bit, n in enumerate(loose) if mask >> bit & 1}, None
        else:
            yield {}, None
            yield dict.fromkeys(loose, WHOLE), None
        for turn in range(most if loose else 0):
            share = source.choice((0.2, 0.5, 0.8))
            choice = {n: WHOLE for n in loose if source.random() < share}
            if turn % 3 == 0:
                choice[source.choice(loose)] = source.getrandbits(PAGE // SECTOR)
            yield choice, source.choice((b"\0", b"\xa5")) if turn % 3 == 1 else None


def _rename(names: dict[str, int], piece: _Piece) -> None:
    operation = piece.operation
    if operation.kind == "C":
        names[operation.name] = piece.offset
        return
    file = names.pop(operation.name, None)
    if operation.kind == "R" and file is not None:
        names[operation.content.decode()] = file


def _change(file: bytearray, piece: _Piece, sectors: int, fill: bytes | None) -> None:
    if piece.operation.kind == "T":
        if sectors:
            del file[piece.offset :]
            file.extend(bytes(piece.offset - len(file)))
        return
    end = piece.offset + len(piece.content)
    if fill is not None and not sectors and len(file) < end:
        file.extend(bytes(max(0, piece.offset - len(file))))
        file.extend(fill * (end - len(file)))
    for begin in range(piece.offset, end, SECTOR) if sectors not in (0, WHOLE) else ():
        stop = min(end, (begin // SECTOR + 1) * SECTOR)
        if sectors >> (begin % PAGE // SECTOR) & 1:
            _put(file, begin, piece.content[begin - piece.offset : stop - piece.offset])
    if sectors == WHOLE:
        _put(file, piece.offset, piece.content)


def _put(file: bytearray, offset: int, content: bytes) -> None:
    if len(file) < offset:
        file.extend(bytes(offset - len(file)))
    file[offset : offset + len(content)] = content


def save(files: Files, directory: Path) -> None:
    """Put an image into an empty directory."""
    for name, content in files.items():
        (directory / name).write_bytes(content)


def load(directory: Path) -> Files:
    """Return what is in a directory, but for the WAL's index: shared memory, lost in a crash."""
    return {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if not path.name.endswith("-shm")
    }
