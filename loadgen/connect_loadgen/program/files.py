"""Result files: whole or not at all, and known to be writable before minutes are spent on them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["ReportError", "require_writable", "write_whole"]


class ReportError(Exception):
    """A result can't be written; the message is one line that says where and why."""


def require_writable(path: Path) -> None:
    """Make the directory of a file that is to be written, and see that the file can be.

    Raises:
        ReportError: it can't.
    """
    with _named(path):
        if path.is_dir():
            raise ReportError(f"{path}: is a directory, name a file in it")
        if _is_special(path):
            with path.open("ab"):
                return
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(path)
        try:
            partial.touch()
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Put the content into the file: a reader sees the old one or the new, never a part.

    A text gets one newline at its end. A device or a pipe is written to as it is.

    Raises:
        ReportError: it can't be written; what was there before still is.
    """
    data = f"{content.rstrip()}\n".encode() if isinstance(content, str) else content
    with _named(path):
        if _is_special(path):
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        # What a link names is replaced, and not the link.
        path = path.resolve()
        partial = _partial(path)
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file()


def _partial(path: Path) -> Path:
    # Short, whatever the file's name.
    return path.with_name(f".loadgen-{os.getpid()}.partial")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ReportError(f"{path} can't be written: {error.strerror}") from None
