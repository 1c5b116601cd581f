"""The file of the SQLite journal: its tables, its format, and the epochs that have written it.

- ``log`` has a row for each commit (``service.persistence.log_rows``), in the order of arrival.
  Rows are numbered without gaps.
- ``snapshots`` has a row per snapshot.
- ``marks`` holds what no snapshot implies: records deleted without one, and the highest number
  of a channel whose newest snapshot was deleted, or that it is given up
  (``service.persistence.restoring``).
- ``owners`` has a row for each channel that a principal owns (``service.persistence.owners``).
- ``writers`` has a row per epoch: which strategy wrote, under which master key, with which salt.
  Its canary tells whether a key is the right one, and which file was opened (``file_id``).
- ``backup`` has a row in a copy that ``connect-actor backup`` has made: whoever wants to write to
  it has to say first how far it can be trusted (``connect-actor restore``).
"""

import fcntl
import os
import sqlite3
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from service.persistence.contract import (
    CorruptRecordError,
    JournalError,
    JournalLockedError,
    JournalVersionError,
)
from service.persistence.keyring import KeyRing, MasterKey
from service.persistence.sealing import (
    Sealer,
    canary_context,
)

__all__ = [
    "FORMAT_VERSION",
    "PAGE_SIZE",
    "Epoch",
    "add_epoch",
    "add_row",
    "add_row_of_newest",
    "connect",
    "epochs_of",
    "file_id",
    "is_backup",
    "is_busy",
    "know_epochs",
    "last_row",
    "newest_epoch",
    "noted_file_id",
    "open_for_reading",
    "primary_code",
    "reading",
    "require_format",
    "translated",
]

_APPLICATION_ID = 0x434F4E41  # "CONA", shown by file(1)
FORMAT_VERSION = 2
# A whole session fills a third of such a page; smaller ones waste the rest of a page on each.
PAGE_SIZE = 8_192
_CANARY = b"connect-actor canary"
# linux/fs.h: the inode's generation, which differs where an inode's number is used again.
_FS_IOC_GETVERSION = 0x80087601
_FILE_ID = struct.Struct(">QQ")

_SCHEMA = """
CREATE TABLE writers (
    epoch INTEGER PRIMARY KEY, strategy TEXT NOT NULL, opened_at INTEGER NOT NULL,
    key_id BLOB NOT NULL, salt BLOB NOT NULL, canary BLOB NOT NULL
);
CREATE TABLE log (number INTEGER PRIMARY KEY, directory BLOB NOT NULL, payloads BLOB NOT NULL);
CREATE TABLE snapshots (
    channel INTEGER NOT NULL, sequence_number INTEGER NOT NULL, taken_at INTEGER NOT NULL,
    payload BLOB NOT NULL, UNIQUE (channel, sequence_number)
);
CREATE TABLE marks (
    channel INTEGER PRIMARY KEY, deleted_to INTEGER NOT NULL, highest INTEGER NOT NULL
);
CREATE TABLE owners (channel INTEGER PRIMARY KEY, owner BLOB NOT NULL, seal BLOB NOT NULL);
CREATE TABLE backup (head INTEGER NOT NULL, made_at INTEGER NOT NULL);
"""


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's result code without what extends it; 0 if the error has none."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_busy(error: sqlite3.Error) -> bool:
    """Tell whether another process's lock is in the way."""
    # The last one is what a lock becomes that another process never releases, while the index of
    # the WAL is to be rebuilt.
    return primary_code(error) in (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PROTOCOL,
    )


class Epoch(NamedTuple):
    """One opening of a journal for writing."""

    number: int
    strategy: str
    opened_at: int
    """Nanoseconds since 1970."""
    key_id: bytes
    """Of the master key it sealed under."""


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn what SQLite raises at opening into what a journal raises."""
    try:
        yield
    except sqlite3.Error as error:
        if is_busy(error):
            raise JournalLockedError(
                f"{path} is in use by another service: a journal has one writer"
            ) from error
        if primary_code(error) == sqlite3.SQLITE_NOTADB:
            raise JournalVersionError(f"{path} is not a journal: {error}") from error
        raise JournalError(f"{path} can't be opened: {error}") from error


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Return a connection to a file that exists; nothing has been read yet."""
    mode = "ro" if read_only else "rw"
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,
    )


def open_for_reading(path: Path) -> sqlite3.Connection:
    """Return a connection within a transaction that sees the journal as it is now, to the end.

    A service may be writing it meanwhile.

    Raises:
        JournalError: there is no such file, or it can't be read.
        JournalVersionError: it isn't a journal, or is of another format.
    """
    with translated(path):
        connection = connect(path, read_only=True)
        try:
            connection.execute("BEGIN")
            require_format(connection, path, may_make=False)
        except BaseException:
            connection.close()
            raise
    return connection


def require_format(connection: sqlite3.Connection, path: Path, *, may_make: bool = True) -> None:
    """Check that this is a journal that can be read.

    Args:
        connection: to the file, within a transaction.
        path: of the file, for messages.
        may_make: whether the tables of one that is empty are made.

    Raises:
        JournalVersionError: it is something else.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables == 0 and may_make:
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
    elif application != _APPLICATION_ID:
        raise JournalVersionError(f"{path} is a database, but not a journal")
    elif version != FORMAT_VERSION:
        raise JournalVersionError(
            f"{path} has format {version}, this service reads {FORMAT_VERSION}:"
            " use the release that wrote it"
        )


def is_backup(connection: sqlite3.Connection) -> bool:
    """Tell whether the file is a copy that no writer may use as it is."""
    return connection.execute("SELECT 1 FROM backup").fetchone() is not None


def last_row(connection: sqlite3.Connection) -> int:
    """Return the number of the log's last row; 0 if it has none."""
    number: int = connection.execute("SELECT max(number) FROM log").fetchone()[0] or 0
    return number


def newest_epoch(connection: sqlite3.Connection) -> int:
    """Return the number of the newest epoch; 0 if there has been none."""
    number: int = connection.execute("SELECT max(epoch) FROM writers").fetchone()[0] or 0
    return number


def epochs_of(connection: sqlite3.Connection) -> list[Epoch]:
    """Return the epochs that have sealed what is stored, in order."""
    return [
        Epoch(*row)
        for row in connection.execute(
            "SELECT epoch, strategy, opened_at, key_id FROM writers ORDER BY epoch"
        )
    ]


def know_epochs(
    connection: sqlite3.Connection, path: Path, keys: KeyRing, sealer: Sealer
) -> str | None:
    """Let a sealer open what all epochs have sealed; return the newest one's strategy.

    Raises:
        JournalVersionError: a master key is missing.
    """
    strategy: str | None = None
    for epoch, strategy, key_id, salt, canary in connection.execute(
        "SELECT epoch, strategy, key_id, salt, canary FROM writers ORDER BY epoch"
    ):
        # What a damaged page yields may be of any type.
        types = (type(strategy), type(key_id), type(salt))
        if types != (str, bytes, bytes):
            raise JournalVersionError(f"{path} is damaged where it says who wrote it")
        key = keys.find(key_id)
        if key is None:
            raise JournalVersionError(
                f"{path} was sealed under the master key {key_id.hex()}, which is not given:"
                " give the one it was made with (sealing_key_file)"
            )
        try:
            sealer.know_epoch(epoch, key, salt, strategy, canary)
        except CorruptRecordError:
            raise JournalVersionError(
                f"{path} is damaged where it says who wrote it (epoch {epoch})"
            ) from None
    return strategy


def file_id(path: Path) -> bytes:
    """Return what tells a file from its copies: number and generation of its inode.

    Both stay with a file that is renamed, and across boots. The number of its device does not. A
    file system without generations (tmpfs, overlayfs) leaves the inode's number.

    No connection of this process may have the file open: closing any descriptor of a file drops
    the locks that SQLite holds on it.

    Raises:
        OSError: the file can't be opened.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        generation = bytes(8)
        with suppress(OSError):
            generation = fcntl.ioctl(file, _FS_IOC_GETVERSION, generation)
        return _FILE_ID.pack(os.fstat(file).st_ino, int.from_bytes(generation, sys.byteorder))
    finally:
        os.close(file)


def noted_file_id(connection: sqlite3.Connection, sealer: Sealer) -> bytes:
    """Return the id of the file that was opened last for writing; empty if it was not noted."""
    newest = connection.execute(
        "SELECT epoch, canary FROM writers ORDER BY epoch DESC LIMIT 1"
    ).fetchone()
    if newest is None:
        return b""
    epoch, canary = newest
    return sealer.open(canary, canary_context(epoch))[len(_CANARY) :]


def add_epoch(
    connection: sqlite3.Connection,
    sealer: Sealer,
    epoch: int,
    key: MasterKey,
    strategy: str,
    opened_at: int,
    salt: bytes,
    file: bytes,
) -> None:
    """Write an epoch down, and let the sealer seal under its key from now on."""
    canary = _CANARY + file
    sealer.begin_epoch(epoch, key, salt, strategy)
    connection.execute(
        "INSERT INTO writers VALUES (?, ?, ?, ?, ?, ?)",
        (epoch, strategy, opened_at, key.id, salt, sealer.seal(canary, canary_context(epoch))),
    )


def add_row(
    connection: sqlite3.Connection,
    sealer: Sealer,
    number: int,
    directory: bytes = b"",
    payloads: bytes = b"",
) -> None:
    """Append a row to the log, sealed; without records it only says how far the log has come."""
    connection.execute(
        "INSERT INTO log VALUES (?, ?, ?)", (number, *sealer.seal_row(number, directory, payloads))
    )


def add_row_of_newest(
    connection: sqlite3.Connection,
    sealer: Sealer,
    epoch: int,
    number: int,
    directory: bytes,
    payloads: bytes,
) -> bool:
    """Append a row if no epoch is newer than this one; return whether it was.

    One statement, and so outside a transaction a commit of its own.
    """
    cursor = connection.execute(
        "INSERT INTO log SELECT ?, ?, ? WHERE ? = (SELECT max(epoch) FROM writers)",
        (number, *sealer.seal_row(number, directory, payloads), epoch),
    )
    return cursor.rowcount == 1


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what SQLite raises later on into what a journal raises."""
    try:
        yield
    except sqlite3.Error as error:
        raise JournalError(f"{path} can't be read: {error}") from error
