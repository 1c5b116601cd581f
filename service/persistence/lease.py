"""The lease of a journal's one writer: who may take the journal over, and when.

Safety does not rest on it: every transaction checks that its writer is still the newest
(``service.persistence.sqlite``). The lease makes that check fail rarely: a second service is
refused at start for as long as the first one is alive and at work.

Two signs of life, both in a file beside the journal:

- a lock on the byte that has the number of the writer's epoch (an open file description lock,
  fcntl(2)). The kernel drops it with the process, so after a crash nobody waits;
- the writer's heartbeat, on the machine's monotonic clock. A writer that holds its lock but whose
  heartbeat is older than the lease (stopped, hung) may be replaced.

The file also holds the *head*: the number of the last row that was acknowledged. A journal that
ends before it has lost what it had promised (an old backup in its place, a lost WAL). It is written
after each commit and never synced: it may lag behind the journal, and never leads.
"""

import fcntl
import os
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from service.persistence.contract import JournalError, JournalLockedError

__all__ = ["LeaseView", "WriterLease", "lease_path", "look_at_lease", "opened_by_another"]

# Boot, epoch, heartbeat in nanoseconds, head; then a check sum.
_CONTENT = struct.Struct(">16sQQQ")
_CHECK = struct.Struct(">I")
_SIZE = _CONTENT.size + _CHECK.size
# struct flock of Linux on 64 bits: type, whence, start, length, process.
_FLOCK = struct.Struct("@hhqqi4x")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


# Start and length of what every connection to a database in WAL mode has locked (os.h of SQLite,
# SHARED_FIRST and SHARED_SIZE).
_SQLITE_SHARED = (0x40000002, 510)
# A lock from byte 0 on has this length, if it goes to the end of whatever there will ever be.
_TO_THE_END = 0


@dataclass(frozen=True, slots=True)
class LeaseView:
    """What somebody who only looks can tell of a journal's lease."""

    epoch: int
    """Of the writer that renewed it last; 0 if that is not known."""
    held: bool
    """Whether that writer's process is there."""
    silent: float | None
    """Seconds since its last sign of life; None if it gave none since the machine was started."""
    head: int
    """Number of the last row that any writer has acknowledged; 0 if that is not known."""


def lease_path(journal: Path) -> Path:
    """Return where a journal's lease lies: beside it."""
    return journal.with_name(journal.name + "-lease")


def look_at_lease(path: Path, monotonic: Callable[[], int] = time.monotonic_ns) -> LeaseView:
    """Return what a lease's file says, without holding or changing anything.

    Raises:
        JournalError: the file can't be read.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return LeaseView(epoch=0, held=False, silent=None, head=0)
    except OSError as error:
        raise JournalError(f"{path} can't be read: {error.strerror}") from error
    try:
        boot, epoch, heartbeat, head = _read(file)
        here = bool(epoch) and boot == _this_boot()
        silent = (monotonic() - heartbeat) / 1e9 if here else None
        return LeaseView(epoch, held=bool(epoch) and _locked(file, epoch), silent=silent, head=head)
    finally:
        os.close(file)


def _flock(kind: int, start: int, length: int = 1) -> bytes:
    return _FLOCK.pack(kind, os.SEEK_SET, start, length, 0)


def opened_by_another(path: Path) -> bool:
    """Tell whether any process has a database open, by SQLite's own locks: for want of a lease.

    Raises:
        OSError: the file can't be opened.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _locked(file, *_SQLITE_SHARED)
    finally:
        os.close(file)


def _locked(file: int, start: int, length: int = 1) -> bool:
    asked = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, start, length))
    return bool(_FLOCK.unpack(asked)[0] != fcntl.F_UNLCK)


def _read(file: int) -> tuple[bytes, int, int, int]:
    content = b""
    try:
        while part := os.pread(file, _SIZE - len(content), len(content)):
            content += part
    except OSError as error:
        raise JournalError(f"the journal's lease can't be read: {error.strerror}") from error
    if len(content) == _SIZE:
        (check,) = _CHECK.unpack_from(content, _CONTENT.size)
        if check == zlib.crc32(content[: _CONTENT.size]):
            return _CONTENT.unpack_from(content)
    return b"", 0, 0, 0


def _this_boot() -> bytes:
    return bytes.fromhex(_BOOT_ID.read_text().strip().replace("-", ""))


class WriterLease:
    """One process's hold on a journal, or its wish for one."""

    def __init__(
        self,
        path: Path,
        seconds: float,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Open the lease's file, making it if there is none; nothing is held yet.

        Args:
            path: of the lease's file.
            seconds: how old another writer's heartbeat has to be for it to be replaced.
            monotonic: nanoseconds, on a clock that all processes of this machine share.

        Raises:
            JournalError: the file can't be used.
        """
        self._seconds = seconds
        self._monotonic = monotonic
        self._path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._boot = _this_boot()
        except OSError as error:
            raise JournalError(f"{path} can't be used: {error.strerror}") from error
        self._epoch = 0

    @property
    def head(self) -> int:
        """Number of the last row that any writer has acknowledged; 0 if that is not known."""
        return _read(self._file)[3]

    def held_by_another(self, epoch: int) -> bool:
        """Tell whether the writer of an epoch lives and is at work, unless it is this one."""
        if not _locked(self._file, epoch):
            return False
        boot, beating, heartbeat, _ = _read(self._file)
        silent = self._monotonic() - heartbeat
        expired = boot == self._boot and beating == epoch and silent > self._seconds * 1e9
        return not expired

    def enter(self) -> None:
        """Keep away whoever would exchange the journal's file, until this lease is released.

        Before the file is opened: SQLite removes a write-ahead log by its name, and so that of
        another file if this one has been exchanged meanwhile.

        Raises:
            JournalLockedError: it is being exchanged.
            JournalError: the file system has no such locks.
        """
        self._lock(_flock(fcntl.F_RDLCK, 0), "the journal is being restored: start again later")

    def take(self, epoch: int, head: int) -> None:
        """Hold the lease for an epoch of one's own.

        Raises:
            JournalLockedError: another process has taken this epoch.
            JournalError: the file system has no such locks.
        """
        self._lock(_flock(fcntl.F_WRLCK, epoch), "another service is taking the journal over")
        self._epoch = epoch
        self.renew(head)

    def exclude_writers(self) -> None:
        """Keep every writer away, whatever its epoch, until this lease is released.

        Unlike a successor this does not wait for a lease to expire: whoever exchanges the
        journal's file can't fence a writer that stands still, since that one would go on with the
        file it has open.

        Raises:
            JournalLockedError: a writer's process is there, be it stopped or hung.
            JournalError: the file system has no such locks.
        """
        self._lock(
            _flock(fcntl.F_WRLCK, 0, _TO_THE_END),
            "a service has the journal open: end its process first, even if it hangs",
        )

    def _lock(self, flock: bytes, refusal: str) -> None:
        try:
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, flock)
        except BlockingIOError as error:
            raise JournalLockedError(refusal) from error
        except OSError as error:
            raise JournalError(f"the journal's lease can't be locked: {error.strerror}") from error

    def renew(self, head: int) -> None:
        """Give a sign of life, and note the last row that is durable.

        Raises:
            JournalError: the file can't be written.
        """
        content = _CONTENT.pack(self._boot, self._epoch, self._monotonic(), head)
        checked = content + _CHECK.pack(zlib.crc32(content))
        written = 0
        try:
            while written < _SIZE:
                written += os.pwrite(self._file, checked[written:], written)
        except OSError as error:
            raise JournalError(f"{self._path} can't be written: {error.strerror}") from error

    @property
    def lost(self) -> bool:
        """Whether another writer has taken over, as far as the lease shows it."""
        # Nothing readable is no news of anybody.
        return _read(self._file)[1] not in (0, self._epoch)

    def release(self) -> None:
        """Let go of it."""
        os.close(self._file)
