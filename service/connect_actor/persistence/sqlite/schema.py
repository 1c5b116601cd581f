"""The file of the SQLite journal: its tables, its format, and the epochs that have written it.

- ``log`` has a row for each commit (``persistence.log_rows``), in the order of arrival.
  Rows are numbered without gaps.
- ``beginning`` says, sealed, with which row the log begins, and what the file is: a journal, or a
  backup of one, which nobody writes to (``connect-actor restore`` makes a journal of it). A journal
  has both rows, so that a backup can be made without a key: by leaving the journal's behind.
- ``snapshots`` has a row per snapshot.
- ``owners`` has a row for each channel that a principal owns (``persistence.sqlite.owners``).
- ``writers`` has a row per epoch: which strategy wrote, under which master key, with which salt,
  and from which row of the log on. Its canary tells whether a key is the right one, and which file
  was opened (``file_id``).
- ``backup`` has a row in a backup: when it was made, for whoever looks.

Nothing here is believed that is not sealed, or compared with something that is
(``docs/explanation/threat-model.md`` has the table).
"""

import fcntl
import os
import shutil
import sqlite3
import struct
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

from connect_actor.keys.keyring import KeyRing, MasterKey
from connect_actor.persistence.contract import (
    CorruptRecordError,
    JournalError,
    JournalLockedError,
    JournalVersionError,
)
from connect_actor.persistence.sealing import SALT_SIZE, Sealer, beginning_context, canary_context

__all__ = [
    "FORMAT_VERSION",
    "PAGE_SIZE",
    "Epoch",
    "FileKind",
    "add_epoch",
    "add_row",
    "add_row_of_newest",
    "connect",
    "described",
    "epochs_of",
    "file_id",
    "first_row",
    "is_busy",
    "kinds_of",
    "know_epochs",
    "last_row",
    "make_tables",
    "newest_epoch",
    "noted_file_id",
    "open_for_reading",
    "primary_code",
    "reading",
    "require_format",
    "seal_beginning",
    "translated",
]

_APPLICATION_ID = 0x434F4E41  # "CONA", shown by file(1)
FORMAT_VERSION = 3
# A whole session fills a third of such a page; smaller ones waste the rest of a page on each.
PAGE_SIZE = 8_192
_CANARY = b"connect-actor canary"
# linux/fs.h: the inode's generation, which differs where an inode's number is used again.
_FS_IOC_GETVERSION = 0x80087601
_FILE_ID = struct.Struct(">QQ")

_SCHEMA = """
CREATE TABLE writers (
    epoch INTEGER PRIMARY KEY, strategy TEXT NOT NULL, opened_at INTEGER NOT NULL,
    key_id BLOB NOT NULL, salt BLOB NOT NULL, previous BLOB NOT NULL, first_row INTEGER NOT NULL,
    canary BLOB NOT NULL
);
CREATE TABLE beginning (kind INTEGER PRIMARY KEY, seal BLOB NOT NULL);
CREATE TABLE log (number INTEGER PRIMARY KEY, directory BLOB NOT NULL, payloads BLOB NOT NULL);
CREATE TABLE snapshots (
    channel INTEGER NOT NULL, sequence_number INTEGER NOT NULL, life INTEGER NOT NULL,
    taken_at INTEGER NOT NULL, payload BLOB NOT NULL, UNIQUE (channel, sequence_number)
);
CREATE TABLE owners (
    channel INTEGER PRIMARY KEY, life INTEGER NOT NULL, owner BLOB NOT NULL, seal BLOB NOT NULL
);
CREATE TABLE backup (made_at INTEGER NOT NULL)
"""


class FileKind(IntEnum):
    """What a file is. The numbers are stored."""

    JOURNAL = 1
    BACKUP = 2


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
    first_row: int
    """Number of the row of the log that it began with: rows before it had been written."""


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
        raise JournalError(f"{path} can't be opened: {described(error, path)}") from error


def described(error: sqlite3.Error, path: Path) -> str:
    """Return what to say of an error at work on a file; if a disk is full, which."""
    code = primary_code(error)
    # The index of a write-ahead log is no file that it writes, and so no full disk to SQLite.
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _is_full(path.parent)):
        return f"the disk that holds {path.parent.absolute()} is full"
    return str(error)


def _is_full(directory: Path) -> bool:
    try:
        return shutil.disk_usage(directory).free < PAGE_SIZE
    except OSError:
        return False


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


def require_format(connection: sqlite3.Connection, path: Path, *, may_make: bool = True) -> int:
    """Check that this is a journal that can be read, and return its format.

    Args:
        connection: to the file, within a transaction.
        path: of the file, for messages.
        may_make: whether the tables of one that is empty are made, and one of the format before
            may be brought up.

    Raises:
        JournalVersionError: it is something else.
    """
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = _tables(connection)
    if not tables and may_make:
        make_tables(connection)
        return FORMAT_VERSION
    if application != _APPLICATION_ID:
        raise JournalVersionError(f"{path} is a database, but not a journal")
    if version == FORMAT_VERSION - 1:
        if may_make:
            return FORMAT_VERSION - 1
        raise JournalVersionError(
            f"{path} has format {version}, this release reads {FORMAT_VERSION}: start its service"
            " once, which brings it up (a backup: restore it with the release that made it)"
        )
    if version != FORMAT_VERSION:
        raise JournalVersionError(
            f"{path} has format {version}, this service reads {FORMAT_VERSION}:"
            " use the release that wrote it"
        )
    if tables != _expected_tables():
        # A trigger or a view would do as it likes with whatever is written.
        raise JournalVersionError(f"{path} is damaged or changed where it says which tables it has")
    return FORMAT_VERSION


def make_tables(connection: sqlite3.Connection) -> None:
    """Make the tables of a journal in a file that has none."""
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")


def _tables(connection: sqlite3.Connection) -> set[tuple[str, str, str]]:
    return set(connection.execute("SELECT type, name, sql FROM sqlite_schema"))


@cache
def _expected_tables() -> frozenset[tuple[str, str, str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        make_tables(connection)
        return frozenset(_tables(connection))


def kinds_of(connection: sqlite3.Connection) -> set[int]:
    """Return what the file says it can be used as, not yet opened: see ``first_row``."""
    return {kind for (kind,) in connection.execute("SELECT kind FROM beginning")}


def seal_beginning(connection: sqlite3.Connection, sealer: Sealer, number: int) -> None:
    """Say with which row the log of this journal begins, within a transaction."""
    for kind in FileKind:
        seal = sealer.seal(number.to_bytes(8, "big"), beginning_context(kind))
        connection.execute("INSERT OR REPLACE INTO beginning VALUES (?, ?)", (kind, seal))


def first_row(connection: sqlite3.Connection, path: Path, sealer: Sealer, kind: FileKind) -> int:
    """Return the number of the row with which the log of a file of this kind begins.

    Raises:
        JournalVersionError: it is damaged, or no file of this kind.
    """
    row = connection.execute("SELECT seal FROM beginning WHERE kind = ?", (kind,)).fetchone()
    if row is None:
        if kind is FileKind.JOURNAL and FileKind.BACKUP in kinds_of(connection):
            raise JournalVersionError(
                f"{path} is a backup: put it in place with connect-actor restore"
            )
        raise JournalVersionError(f"{path} is damaged where it says where its log begins")
    try:
        return int.from_bytes(sealer.open(row[0], beginning_context(kind)), "big")
    except CorruptRecordError:
        raise JournalVersionError(f"{path} is damaged where it says where its log begins") from None


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
            "SELECT epoch, strategy, opened_at, key_id, first_row FROM writers ORDER BY epoch"
        )
    ]


def know_epochs(
    connection: sqlite3.Connection, path: Path, keys: KeyRing, sealer: Sealer
) -> Epoch | None:
    """Let a sealer open what all epochs have sealed; return the newest one.

    Raises:
        JournalVersionError: a master key is missing, or an epoch is damaged or does not follow
            the one before it.
    """
    newest: Epoch | None = None
    last = b""
    for row in connection.execute(
        "SELECT epoch, strategy, opened_at, key_id, first_row, salt, previous, canary FROM writers"
        " ORDER BY epoch"
    ):
        # What a damaged page yields may be of any type.
        if tuple(map(type, row)) != (int, str, int, bytes, int, bytes, bytes, bytes):
            raise JournalVersionError(f"{path} is damaged where it says who wrote it")
        *columns, salt, previous, canary = row
        epoch = Epoch(*columns)
        key = keys.find(epoch.key_id)
        if key is None:
            raise JournalVersionError(
                f"{path} was sealed under the master key {epoch.key_id.hex()}, which is not given:"
                " give the one it was made with (sealing_key_file)"
            )
        sealer.know_epoch(epoch.number, key, salt, epoch.strategy, epoch.first_row)
        follows = newest is None or (newest.number + 1, last) == (epoch.number, previous)
        try:
            sealer.open(canary, _canary_context(epoch, previous))
        except (CorruptRecordError, struct.error):
            follows = False
        if not follows:
            raise JournalVersionError(
                f"{path} is damaged where it says who wrote it (epoch {epoch.number})"
            )
        newest, last = epoch, salt
    return newest


def _canary_context(epoch: Epoch, previous: bytes) -> bytes:
    return canary_context(epoch.number, epoch.opened_at, epoch.first_row, previous)


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
        "SELECT epoch, strategy, opened_at, key_id, first_row, previous, canary FROM writers"
        " ORDER BY epoch DESC LIMIT 1"
    ).fetchone()
    if newest is None:
        return b""
    *columns, previous, canary = newest
    return sealer.open(canary, _canary_context(Epoch(*columns), previous))[len(_CANARY) :]


def add_epoch(
    connection: sqlite3.Connection,
    sealer: Sealer,
    epoch: Epoch,
    key: MasterKey,
    salt: bytes,
    file: bytes,
) -> None:
    """Write an epoch down, and let the sealer seal under its key from now on."""
    sealer.begin_epoch(epoch.number, key, salt, epoch.strategy, epoch.first_row)
    (previous,) = connection.execute(
        "SELECT salt FROM writers ORDER BY epoch DESC LIMIT 1"
    ).fetchone() or (bytes(SALT_SIZE),)
    canary = sealer.seal(_CANARY + file, _canary_context(epoch, previous))
    connection.execute(
        "INSERT INTO writers"
        " (epoch, strategy, opened_at, key_id, first_row, salt, previous, canary)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (*epoch, salt, previous, canary),
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
        verb = "written" if primary_code(error) == sqlite3.SQLITE_FULL else "read"
        raise JournalError(f"{path} can't be {verb}: {described(error, path)}") from error
