"""The other side of ``shim.c``: builds it, and tells it what to do."""

import ctypes
import errno
import mmap
import os
import subprocess
from dataclasses import dataclass
from enum import IntFlag
from pathlib import Path

from tests.support.compiler import COMPILER

__all__ = ["FAULTS", "Call", "Fault", "Shim", "build"]

_SOURCE = Path(__file__).with_name("shim.c")
_PATH_SIZE = 1_024


class Call(IntFlag):
    """Calls of libc that can be told to fail. As in ``shim.c``."""

    OPEN = 1
    WRITE = 2
    SYNC = 4
    TRUNCATE = 8
    UNLINK = 16
    READ = 32


@dataclass(frozen=True, slots=True)
class Fault:
    """How calls of one kind fail."""

    name: str
    call: Call
    error: int
    """What they fail with; 0: they do a half of what was asked, and say so."""
    torn: bool = False
    """Whether a half is written before the error."""


FAULTS = (
    Fault("a write fails", Call.WRITE, errno.EIO),
    Fault("a write finds the disk full", Call.WRITE, errno.ENOSPC),
    Fault("a write finds the disk read-only", Call.WRITE, errno.EROFS),
    Fault("a write is short", Call.WRITE, 0),
    Fault("a write is torn, then fails", Call.WRITE, errno.EIO, torn=True),
    Fault("a sync fails", Call.SYNC, errno.EIO),
    Fault("a truncation fails", Call.TRUNCATE, errno.EIO),
    Fault("opening a file fails", Call.OPEN, errno.EIO),
    Fault("opening a file finds the disk read-only", Call.OPEN, errno.EROFS),
    Fault("a deletion fails", Call.UNLINK, errno.EIO),
    Fault("a read fails", Call.READ, errno.EIO),
    Fault("a read is short", Call.READ, 0),
)


class _Control(ctypes.Structure):
    """``struct control`` of ``shim.c``."""

    armed: int
    kinds: int
    nth: int
    times: int
    error: int
    torn: int
    hang: int
    recording: int
    calls: int
    failed: int
    waiting: int
    unseen: int
    directory: bytes
    trace: bytes
    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in (
                "armed",
                "kinds",
                "nth",
                "times",
                "error",
                "torn",
                "hang",
                "recording",
                "calls",
                "failed",
                "waiting",
                "unseen",
            )
        ),
        ("directory", ctypes.c_char * _PATH_SIZE),
        ("trace", ctypes.c_char * _PATH_SIZE),
    )


class Shim:
    """What is asked of the shim, in this process or another, through the file that both map."""

    def __init__(self, control: Path) -> None:
        if not control.exists():
            control.write_bytes(bytes(ctypes.sizeof(_Control)))
        self._path = control
        with control.open("r+b") as file:
            self._control = _Control.from_buffer(mmap.mmap(file.fileno(), 0))

    def environment(self, library: Path) -> dict[str, str]:
        """Return the environment of a process that has the shim."""
        return {
            **os.environ,
            "LD_PRELOAD": str(library),
            "FAULTS_CONTROL": str(self._path),
            "PYTHONPATH": str(_SOURCE.parents[2]),
        }

    def watch(self, directory: Path) -> None:
        """Look at the calls on the files of a directory from now on."""
        self.ignore()
        self._control.directory = str(directory.resolve()).encode()
        self._control.unseen = 0
        self._control.armed = 1

    def ignore(self) -> None:
        """Let every call through, uncounted."""
        control = self._control
        control.armed = control.kinds = control.nth = control.hang = control.recording = 0

    def fail(self, fault: Fault, first: int = 1, times: int = -1) -> None:
        """Let calls fail, counted from now.

        Args:
            fault: which, and how.
            first: the number of the first that fails.
            times: how many do; -1: all from then on.
        """
        control = self._control
        control.nth = 0
        control.calls = control.failed = 0
        control.kinds, control.error, control.torn = fault.call, fault.error, fault.torn
        control.times, control.nth = times, first

    def heal(self) -> None:
        """Let no call fail or wait any more."""
        self._control.nth = self._control.hang = 0

    def hang(self, calls: Call) -> None:
        """Let calls wait until ``heal``."""
        self._control.hang = calls

    def record(self, trace: Path) -> None:
        """Write down every change of the directory's files from now on."""
        self._control.trace = str(trace).encode()
        self._control.recording = 1

    @property
    def calls(self) -> int:
        """Calls of the kind that is to fail, since ``fail``."""
        return self._control.calls

    @property
    def failed(self) -> int:
        """Calls that were made to fail, since ``fail``."""
        return self._control.failed

    @property
    def waiting(self) -> int:
        """Calls that are waiting now."""
        return self._control.waiting

    @property
    def unseen(self) -> int:
        """Changes in ways that a recording does not have, since ``watch``."""
        return self._control.unseen


def build(directory: Path) -> Path:
    """Compile the shim and return the library."""
    library = directory / "shim.so"
    subprocess.run(  # noqa: S603 - the compiler that Python was built with
        [
            *COMPILER,
            *["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o"],
            str(library),
            str(_SOURCE),
            "-ldl",
        ],
        check=True,
    )
    return library
