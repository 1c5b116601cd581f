"""Result files: whole or not at all, and known to be writable before minutes are spent on them."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from rich.console import Console

__all__ = ["ReportError", "require_writable", "write_and_tell", "write_whole"]


class ReportError(Exception):
    """A result can't be written; the message is one line that says where and why."""


def require_writable(path: Path) -> None:
    """Make the directory of a file that is to be written, and see that it can be.

    Raises:
        ReportError: it can't.
    """
    if path.is_dir():
        raise ReportError(f"{path}: is a directory, name a file in it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ReportError(f"{path} can't be written: {error.strerror}") from None


def write_and_tell(console: Console, path: Path, content: str | bytes) -> None:
    """Write a result, text with one newline at its end, and say where it is.

    Raises:
        ReportError: it can't be written; what was there before still is.
    """
    write_whole(path, f"{content.rstrip()}\n" if isinstance(content, str) else content)
    console.print(f"written: {path}", markup=False, highlight=False, soft_wrap=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Put the content into the file: a reader sees the old one or the new, never a part.

    Raises:
        ReportError: it can't be written; what was there before still is.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content.encode() if isinstance(content, str) else content)
        partial.replace(path)
    except OSError as error:
        raise ReportError(f"{path} can't be written: {error.strerror}") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
