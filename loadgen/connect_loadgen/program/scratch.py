"""Temporary directories with keys in them: removed on every way out that a process can take."""

import atexit
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

__all__ = ["helpers_directory", "remove_scratch", "scratch_directory"]

# A process that was just killed may still finish the system call that creates a file.
_ATTEMPTS = 50
_PAUSE = 0.01

_directories: set[Path] = set()


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Yield a directory that is removed afterwards, or by ``remove_scratch``."""
    directory = _make()
    try:
        yield directory
    finally:
        _remove(directory)


@cache
def helpers_directory() -> Path:
    """Return the directory that holds temporary files of helper processes, killed ones included."""
    return _make()


@atexit.register
def remove_scratch() -> None:
    """Remove every directory that is left; the processes that used them must have ended."""
    for directory in list(_directories):
        _remove(directory)


def _make() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="loadgen-"))
    _directories.add(directory)
    return directory


def _remove(directory: Path) -> None:
    for _ in range(_ATTEMPTS):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            break
        time.sleep(_PAUSE)
    _directories.discard(directory)
