"""Standard output and error as they may be: closed, full, a pipe that nobody reads any more.

A failure to write is remembered and never raised: what a command shows must not decide what becomes
of its result.
"""

import errno
import os
import sys
from contextlib import suppress
from typing import IO

from rich.console import Console

__all__ = ["Stream", "complain", "console_on", "open_missing_descriptors"]

_STANDARD = (0, 1, 2)


def open_missing_descriptors() -> None:
    """Open the null device in place of each closed descriptor of 0 to 2.

    Otherwise the next file or socket would take its number: libuv aborts, and what is printed goes
    into that file.
    """
    for descriptor in _STANDARD:
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free one: this one, since those below it are open.
            os.open(os.devnull, os.O_RDWR)


class Stream:
    """A text stream that remembers its first failure and then takes everything in silence.

    Attributes:
        failure: why it could not be written to; nothing if all went well.
    """

    def __init__(self, file: IO[str] | None) -> None:
        """Wrap ``sys.stdout`` or ``sys.stderr``, which are nothing where they were closed."""
        self._file = file
        self.failure: OSError | None = None
        if file is None:
            self.failure = OSError(errno.EBADF, os.strerror(errno.EBADF))

    @property
    def encoding(self) -> str:
        """Of the stream behind it."""
        return getattr(self._file, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        """Say whether it is a terminal."""
        return self._file is not None and self._file.isatty()

    def fileno(self) -> int:
        """Return the descriptor behind it.

        Raises:
            OSError: there is none.
        """
        if self._file is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._file.fileno()

    def write(self, text: str) -> int:
        """Write text; characters that the encoding lacks are escaped."""
        if self._file is not None and self.failure is None:
            sendable = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
            try:
                self._file.write(sendable)
            except OSError as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Send what is buffered."""
        if self._file is not None and self.failure is None:
            try:
                self._file.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.failure = error
        # What is still buffered would fail once more when the interpreter exits.
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())
            os.close(null)


def console_on(stream: Stream) -> Console:
    """Return a console that writes to the stream."""
    return Console(file=stream)  # type: ignore[arg-type]  # all of IO that rich uses


def complain(text: str) -> None:
    """Write a line to standard error, if that can be done."""
    stream = Stream(sys.stderr)
    stream.write(f"{text}\n")
    stream.flush()
