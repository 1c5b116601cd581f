"""Lines written to a descriptor by a thread of its own, so that who prints never waits.

A pipe that nobody reads, or a terminal that is stopped, would otherwise hold up the event loop with
every call in it. What doesn't fit is dropped and counted, and told once lines are written again.
"""

import io
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TextIO

__all__ = ["LineWriter"]

_ROOM = 1 << 20
"""Bytes that may wait: some thousands of lines."""
_AT_ONCE = 1 << 16


class LineWriter(io.TextIOBase):
    """A text stream that takes whole lines at once, and never raises for what becomes of them.

    Attributes:
        dropped: lines that were not written, for want of room or because they can't be.
        tell_dropped: makes the line that tells how many.
    """

    def __init__(self, stream: TextIO) -> None:
        """Write what follows to a stream's descriptor, in its encoding."""
        stream.flush()
        self._descriptor = stream.fileno()
        self._encoding = stream.encoding
        self._changed = threading.Condition()
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        """In lines that are not written yet."""
        self._begun = ""
        self.dropped = 0
        self.tell_dropped: Callable[[int], str] | None = None
        self._told = 0
        # Stalled, it must not keep the process from ending.
        threading.Thread(target=self._write_all, name="output", daemon=True).start()

    @property
    def encoding(self) -> str:  # type: ignore[override] # read-only
        """What text is encoded in."""
        return self._encoding

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def writable(self) -> bool:
        """Say that it is written to."""
        return True

    def write(self, text: str, /) -> int:
        """Take text, of which whole lines are written; on any thread."""
        with self._changed:
            *lines, self._begun = (self._begun + text).split("\n")
            for line in lines:
                self._add(f"{line}\n".encode(self._encoding, "backslashreplace"))
            self._changed.notify()
        return len(text)

    def finish(self, seconds: float) -> None:
        """Wait until all is written, but not for longer."""
        until = time.monotonic() + seconds
        if self._begun:
            self.write("\n")
        with self._changed:
            self._changed.wait_for(lambda: not self._bytes, until - time.monotonic())

    def _add(self, line: bytes) -> None:
        if self._bytes + len(line) > _ROOM:
            self.dropped += 1
            return
        self._waiting.append(line)
        self._bytes += len(line)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                lines = []
                size = 0
                while self._waiting and size < _AT_ONCE:
                    lines.append(self._waiting.popleft())
                    size += len(lines[-1])
            written = self._write(b"".join(lines))
            with self._changed:
                self._bytes -= size
                if not written:
                    self.dropped += len(lines)
                elif self.dropped > self._told and self.tell_dropped is not None:
                    line = self.tell_dropped(self.dropped - self._told)
                    self._told = self.dropped
                    self._add(f"{line}\n".encode(self._encoding, "backslashreplace"))
                self._changed.notify_all()

    def _write(self, data: bytes) -> bool:
        """Write all of it, for as long as that takes; say whether it could be."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError:
                return False
        return True
