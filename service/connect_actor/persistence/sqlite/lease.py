"""The lease of a journal's one writer: who may take the journal over, and when.

Safety does not rest on it: the newest epoch in the database decides who may write, and every
transaction checks it (``persistence.sqlite.journal``). The lease makes that check fail rarely: a
second service is refused at start for as long as the first one is alive and at work. A writer that
was stopped may write the lease late, over its successor's: that fences nobody, and the successor's
next renewal repairs it.

Two signs of life, both in a file beside the journal:

- a lock on the byte that has the number of the writer's epoch (an open file description lock,
  fcntl(2)). The kernel drops it with the process, so after a crash there is no wait;
- the writer's heartbeat, on the machine's monotonic clock. A writer that holds its lock but whose
  heartbeat is older than the lease (stopped, hung) may be replaced.

A replaced writer may have been stopped while it held one of SQLite's locks, which would keep every
other process out for ever. So it is ended, by SIGKILL. Which process that is the kernel says, and
no file: each writer also holds a process-associated lock (F_SETLK), for which F_GETLK names the
holder. Openings exclude each other by such a lock, too, and one that holds it for longer than the
lease is ended in the same way.

The file also holds the *head*: the number of the last row that was acknowledged. A journal that
ends before it has lost what it had promised (an old backup in its place, a lost WAL). It is written
after each commit and never synced: it may lag behind the journal, and never leads.
"""

import fcntl
import logging
import os
import select
import signal
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from connect_actor.persistence.contract import JournalError, JournalLockedError

__all__ = ["LeaseView", "WriterLease", "lease_path", "look_at_lease", "opened_by_another"]

# Boot, epoch, heartbeat in nanoseconds, head; then a check sum.
_CONTENT = struct.Struct(">16sQQQ")
_CHECK = struct.Struct(">I")
_SIZE = _CONTENT.size + _CHECK.size
# struct flock of Linux on 64 bits: type, whence, start, length, process. F_GETLK sets the process
# to that of the holder, and to 0 if it is in another PID namespace.
_FLOCK = struct.Struct("@hhqqi4x")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


# Start and length of what every connection to a database in WAL mode has locked (os.h of SQLite,
# SHARED_FIRST and SHARED_SIZE).
_SQLITE_SHARED = (0x40000002, 510)
# A lock from byte 0 on has this length, if it goes to the end of whatever there will ever be.
_TO_THE_END = 0

# What F_GETLK says instead of a process if an open file description has the lock.
_OF_A_FILE = -1

# Bytes that are locked: who opens the journal; each epoch (they count from 1 and have 32 bits); and
# the process of each epoch, by epoch.
_OPENING = 0
_PROCESS_OF = 1 << 32
# Seconds within which a process that was sent SIGKILL has to be gone; between two looks at a lock.
_DIES_WITHIN = 5.0
_LOOK_EVERY = 0.02

_log = logging.getLogger(__name__)


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


def _holders(file: int, byte: int, length: int = 1) -> Iterator[tuple[int, int]]:
    """Yield which other processes have bytes locked: byte and process, in the bytes' order."""
    end = byte + length
    while byte < end:
        asked = fcntl.fcntl(file, fcntl.F_GETLK, _flock(fcntl.F_WRLCK, byte, end - byte))
        kind, _, start, _, process = _FLOCK.unpack(asked)
        if kind == fcntl.F_UNLCK:
            return
        yield start, process
        byte = start + 1


def _holds(file: int, byte: int, process: int) -> bool:
    return (byte, process) in _holders(file, byte)


def _end_holders(file: int, byte: int, length: int = 1) -> bool:
    """End the processes that have bytes locked, as the kernel tells; return whether any had.

    Raises:
        JournalLockedError: one can't be ended.
    """
    ended = False
    for held, process in _holders(file, byte, length):
        if process <= 0:
            raise JournalLockedError(
                "a process that can't be seen from here has the journal and gives no sign of life:"
                " end it where it runs (another container or machine)"
            )
        try:
            gone = _end(process, partial(_holds, file, held, process))
        except OSError as error:
            raise JournalLockedError(
                f"process {process} has the journal and gives no sign of life, and can't be ended"
                f" ({error.strerror}): end it by hand"
            ) from error
        if not gone:
            raise JournalLockedError(
                f"process {process} has the journal and does not end within {_DIES_WITHIN:g} s of"
                " SIGKILL: does its disk hang?"
            )
        _log.warning("ended process %d: it had the journal and gave no sign of life", process)
        ended = True
    return ended


def _end(process: int, is_it: Callable[[], bool]) -> bool:
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        # The handle stays with its process, so the check holds even if the number is used again.
        if is_it():
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            return bool(select.select([handle], [], [], _DIES_WITHIN)[0])
    except ProcessLookupError:
        return True
    finally:
        os.close(handle)
    return True


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
        """Tell whether the writer of the newest epoch lives and is at work, unless it is this one.

        Raises:
            JournalError: the file can't be written.
        """
        return _locked(self._file, epoch) and not self._silent(epoch)

    def _silent(self, epoch: int) -> bool:
        """Tell whether a writer that has its lock gave its last sign of life too long ago."""
        boot, beating, heartbeat, head = _read(self._file)
        if (boot, beating) != (self._boot, epoch):
            # Written late by a writer before it, or damaged: its time begins now.
            self._write(epoch, head)
            return False
        return self._monotonic() - heartbeat > self._seconds * 1e9

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Keep other processes from opening the journal until the block ends.

        Waits for one that is opening it, for as long as a lease lasts, and then ends it.

        Raises:
            JournalLockedError: another process is restoring it, or opening it and can't be ended.
            JournalError: the file system has no such locks.
        """
        until = time.monotonic() + self._seconds
        while not self._lock_process(_OPENING):
            if (_OPENING, _OF_A_FILE) in _holders(self._file, _OPENING):
                raise JournalLockedError("the journal is being restored: try again after that")
            if time.monotonic() > until:
                _end_holders(self._file, _OPENING)
            time.sleep(_LOOK_EVERY)
        try:
            yield
        finally:
            fcntl.fcntl(self._file, fcntl.F_SETLK, _flock(fcntl.F_UNLCK, _OPENING))

    def end_silent(self) -> None:
        """End every other writer's process, if the newest has been silent longer than its lease.

        Raises:
            JournalLockedError: one can't be ended.
        """
        writers = [byte for byte, _ in _holders(self._file, _PROCESS_OF, _PROCESS_OF)]
        if writers and self._silent(writers[-1] - _PROCESS_OF):
            _end_holders(self._file, _PROCESS_OF, _PROCESS_OF)

    def end_predecessors(self) -> bool:
        """End the processes of earlier epochs, which write no more; return whether there was any.

        Raises:
            JournalLockedError: one can't be ended.
        """
        return _end_holders(self._file, _PROCESS_OF, self._epoch)

    def take(self, epoch: int) -> None:
        """Hold the lease for an epoch of one's own; ``renew`` it once the epoch is durable.

        Raises:
            JournalLockedError: another process has taken this epoch.
            JournalError: the file system has no such locks.
        """
        self._lock(_flock(fcntl.F_WRLCK, epoch), "another service is taking the journal over")
        self._lock_process(_PROCESS_OF + epoch)
        self._epoch = epoch

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

    def _lock_process(self, byte: int) -> bool:
        try:
            fcntl.fcntl(self._file, fcntl.F_SETLK, _flock(fcntl.F_WRLCK, byte))
        except (BlockingIOError, PermissionError):
            return False
        except OSError as error:
            raise JournalError(f"the journal's lease can't be locked: {error.strerror}") from error
        return True

    def renew(self, head: int) -> None:
        """Give a sign of life, and note the last row that is durable.

        Raises:
            JournalError: the file can't be written.
        """
        self._write(self._epoch, head)

    def _write(self, epoch: int, head: int) -> None:
        content = _CONTENT.pack(self._boot, epoch, self._monotonic(), head)
        checked = content + _CHECK.pack(zlib.crc32(content))
        written = 0
        try:
            while written < _SIZE:
                written += os.pwrite(self._file, checked[written:], written)
        except OSError as error:
            raise JournalError(f"{self._path} can't be written: {error.strerror}") from error

    def release(self) -> None:
        """Let go of it."""
        os.close(self._file)
