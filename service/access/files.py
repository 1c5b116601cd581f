"""Files that an operator changes while the service runs: certificates, keys, tokens.

They are looked at every few seconds, and at once on SIGHUP. What can't be used is logged, and what
was read before stays in force.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["AccessFileError", "Reloader", "read_file"]

_log = logging.getLogger(__name__)

# A few calls of stat(2) each time; a revoked token is refused this much later, at the latest.
_SECONDS_BETWEEN_LOOKS = 2.0


class AccessFileError(Exception):
    """A certificate, key or token file can't be used; the message says which and why."""


def read_file(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        AccessFileError: it can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise AccessFileError(f"{path} can't be read: {error.strerror}") from error


@dataclass(slots=True)
class _Watched:
    paths: Sequence[Path]
    reload: Callable[[], None]
    seen: tuple[object, ...]


class Reloader:
    """Has files read anew when they change. On the event loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin with nothing to look at."""
        self._loop = loop
        self._watched: list[_Watched] = []
        self._timer: asyncio.TimerHandle | None = None
        self._on_request: list[Callable[[], None]] = []

    def on_request(self, reload: Callable[[], None]) -> None:
        """Call ``reload`` whenever everything is to be read anew, and only then."""
        self._on_request.append(reload)

    def watch(self, paths: Sequence[Path], reload: Callable[[], None]) -> None:
        """Call ``reload`` when one of the files has changed; it may raise ``AccessFileError``."""
        self._watched.append(_Watched(paths, reload, _state(paths)))
        if self._timer is None:
            self._timer = self._loop.call_later(_SECONDS_BETWEEN_LOOKS, self._look)

    def _look(self) -> None:
        self._timer = self._loop.call_later(_SECONDS_BETWEEN_LOOKS, self._look)
        for watched in self._watched:
            if _state(watched.paths) != watched.seen:
                _reload(watched)

    def reload_all(self) -> None:
        """Have everything read anew, changed or not."""
        for watched in self._watched:
            _reload(watched)
        for reload in self._on_request:
            reload()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()


def _reload(watched: _Watched) -> None:
    # Noted before reading: what changes meanwhile is seen the next time. A certificate and its
    # key are two files; between the two replacements they don't fit, and that is tried again.
    watched.seen = _state(watched.paths)
    names = ", ".join(map(str, watched.paths))
    try:
        watched.reload()
    except AccessFileError as error:
        _log.error("what was read before stays in force: %s", error)
    else:
        _log.info("read anew: %s", names)


def _state(paths: Sequence[Path]) -> tuple[object, ...]:
    states: list[object] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            states.append(None)
        else:
            states.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(states)
