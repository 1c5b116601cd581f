"""Reading files that hold secrets or grant access, following them, and making files durable.

Certificates, keys and tokens may change while the service runs. They are checked every few seconds,
and at once on SIGHUP. A file that can't be used is tried again until it can. Meanwhile what was
read before stays in force, the log says why, and a metric shows it.
"""

import asyncio
import logging
import os
import stat
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "AccessFileError",
    "Reloader",
    "forbid_reading_by_others",
    "read_file",
    "require_rereadable",
    "sync",
]

_log = logging.getLogger(__name__)

# A few calls of stat(2) each time; a revoked token is refused this much later, at the latest.
_SECONDS_BETWEEN_LOOKS = 2.0
# Seconds between two lines of the log about the same failure.
_SECONDS_BETWEEN_REMINDERS = 60.0
# Of a file's time stamps: two changes within one may look like one.
_COARSENESS = 1_000_000_000
# A hundred thousand tokens take 10 MB. A file without an end (/dev/zero) must not take all memory.
_MAX_BYTES = 64 * 1_048_576


class AccessFileError(Exception):
    """A certificate, key or token file can't be used; the message says which and why."""


def read_file(path: Path, *, secret: bool = False, max_bytes: int = _MAX_BYTES) -> bytes:
    """Return a file's content.

    Args:
        path: of the file.
        secret: whether nobody else may read it.
        max_bytes: that it may have.

    Raises:
        AccessFileError: it can't be read, is too large, or others may change it or read a secret.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if secret:
                forbid_reading_by_others(path, status)
            elif stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_IWOTH:
                raise AccessFileError(
                    f"{path} can be changed by every user of this machine: chmod o-w {path}"
                )
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise AccessFileError(f"{path} can't be read: {error.strerror}") from error
    if len(content) > max_bytes:
        raise AccessFileError(f"{path} has more than {max_bytes:,} bytes")
    return content


def forbid_reading_by_others(path: Path, status: os.stat_result) -> None:
    """Check that a file's mode keeps a secret, by the rule that PostgreSQL has for its keys.

    The group may read a file that root or another user owns, since that is how secrets are handed
    to a service that runs as a user of its own; a file of the service's own user is for that alone.

    Raises:
        AccessFileError: it doesn't; the message says what to do.
    """
    is_own = status.st_uid == os.geteuid()
    forbidden = 0o077 if is_own and status.st_uid != 0 else 0o037
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden and not stat.S_ISCHR(status.st_mode):
        raise AccessFileError(
            f"{path} holds a secret and others may use it (mode {mode:04o}):"
            f" chmod {'600' if is_own else '640'} {path}, or mount it with that mode"
        )


def require_rereadable(path: Path) -> None:
    """Check that a file can be read more than once: a pipe, of a shell's, would block for ever.

    Raises:
        AccessFileError: it can't.
    """
    if path.exists() and not path.is_file():
        raise AccessFileError(f"{path} is no regular file: it was read once, and can't be again")


def sync(path: Path) -> None:
    """Make a file, or what a directory lists, durable.

    Raises:
        OSError: it can't be.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(slots=True)
class _Followed:
    what: str
    paths: Sequence[Path]
    reload: Callable[[], Awaitable[bool]]
    retry: float
    """Seconds until what has failed is tried again."""
    seen: tuple[object, ...]
    settled: bool
    """Whether a change since the last reading shows in what was seen."""
    failure: str | None = None
    told_at: float = 0.0
    asked: asyncio.Event = field(default_factory=asyncio.Event)


class Reloader:
    """Has files read anew when they change. On the event loop's thread."""

    def __init__(self) -> None:
        """Begin with nothing to look at."""
        self._followed: list[_Followed] = []
        self._tasks: list[asyncio.Task[None]] = []

    def follow(
        self,
        what: str,
        paths: Sequence[Path],
        reload: Callable[[], Awaitable[bool]],
        retry: float = _SECONDS_BETWEEN_LOOKS,
    ) -> None:
        """Call ``reload`` whenever one of the files has changed, or it is asked for.

        Args:
            what: is read, for the log and the metric.
            paths: of the files; those that are no regular files can't be read twice.
            reload: says whether there was anything new. It may raise ``AccessFileError``, and is
                called again until it doesn't. Never called while a call of it is under way.
            retry: seconds until then.
        """
        followed = _Followed(what, paths, reload, retry, *_look_at(paths))
        self._followed.append(followed)
        self._tasks.append(asyncio.get_running_loop().create_task(_follow(followed)))

    def reload_all(self) -> None:
        """Have everything read anew, changed or not; what is being read is read once more."""
        for followed in self._followed:
            followed.asked.set()

    def failing(self) -> Mapping[str, bool]:
        """Say of everything whether its last reading has failed. From any thread."""
        return {followed.what: followed.failure is not None for followed in list(self._followed)}

    async def stop(self) -> None:
        """Look no more, and end what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _follow(followed: _Followed) -> None:
    while True:
        pause = _SECONDS_BETWEEN_LOOKS if followed.failure is None else followed.retry
        try:
            async with asyncio.timeout(pause):
                await followed.asked.wait()
        except TimeoutError:
            seen, _ = _look_at(followed.paths)
            if seen == followed.seen and followed.settled and followed.failure is None:
                continue
        await _reload(followed)


async def _reload(followed: _Followed) -> None:
    # Noted before reading: what changes meanwhile is seen the next time. A certificate and its
    # key are two files; between the two replacements they don't fit, and that is tried again.
    asked = followed.asked.is_set()
    followed.asked.clear()
    followed.seen, followed.settled = _look_at(followed.paths)
    names = ", ".join(map(str, followed.paths)) or followed.what
    try:
        for path in followed.paths:
            require_rereadable(path)
        is_new = await followed.reload()
    except AccessFileError as error:
        _fail(followed, str(error))
    except Exception as error:  # noqa: BLE001 - told, and tried again
        # Whatever it is, it must not end the looking: a revocation would be lost.
        _log.exception("%s can't be read anew", followed.what)
        _fail(followed, f"{followed.what} can't be read anew: {type(error).__name__}")
    else:
        if is_new or asked or followed.failure is not None:
            _log.info("read anew: %s", names)
        followed.failure = None


def _fail(followed: _Followed, failure: str) -> None:
    now = time.monotonic()
    if failure != followed.failure or now - followed.told_at >= _SECONDS_BETWEEN_REMINDERS:
        followed.failure, followed.told_at = failure, now
        _log.error("what was read before stays in force: %s", failure)


def _look_at(paths: Sequence[Path]) -> tuple[tuple[object, ...], bool]:
    """Return what changes with the files, and whether any further change will show in it."""
    states: list[object] = []
    newest = 0
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            states.append(None)
            continue
        # The change time, too: the other one can be set to anything.
        states.append((status.st_ctime_ns, status.st_mtime_ns, status.st_size, status.st_ino))
        newest = max(newest, status.st_ctime_ns)
    return tuple(states), newest < time.time_ns() - _COARSENESS
