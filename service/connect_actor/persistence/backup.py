"""Backups: a consistent copy of a journal, made while a service goes on writing it.

The tables are copied within one read transaction, as fast as the disk is: the WAL can't end
meanwhile, and no other way is consistent without beginning anew at every commit. The row that makes
a journal of the file is left behind, so the copy is nothing that a service opens, at no moment: all
of it, with what says that it is a backup, becomes durable at once (``restoring`` says why a service
that went on from it would be fatal). What was deleted but not overwritten is not in it.

A backup is a directory: the journal, and the files that go with it. It is made under another name
and gets its own when it is complete and durable. The master keys are not in it.
"""

import errno
import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from connect_actor.files import sync
from connect_actor.persistence.contract import JournalError, JournalVersionError
from connect_actor.persistence.sqlite.lease import lease_path, look_at_lease
from connect_actor.persistence.sqlite.schema import (
    PAGE_SIZE,
    FileKind,
    connect,
    described,
    epochs_of,
    kinds_of,
    last_row,
    make_tables,
    open_for_reading,
    reading,
)

__all__ = ["BackupMade", "back_up", "copy_tables", "require_sound", "told"]

TABLES = ("writers", "log", "snapshots", "owners")
"""Those of which a backup has every row."""

# Steps of SQLite's machine after which the process can be interrupted.
_STEPS = 100_000


@dataclass(frozen=True, slots=True)
class BackupMade:
    """What a backup holds."""

    head: int
    """Number of the log's last row in it."""
    size: int
    """Bytes of the journal's copy."""
    key_ids: list[str]
    """Of the master keys that open it."""
    files: list[str]
    """What lies in its directory."""


def back_up(source: Path, target: Path, *, beside: Sequence[str], made_at: int) -> BackupMade:
    """Copy a journal, and files that lie beside it, into a directory that is made.

    Args:
        source: the database file.
        target: the directory.
        beside: names of the files that go with the journal; those that are there are copied.
        made_at: nanoseconds since 1970, for the mark.

    Raises:
        JournalError: the journal can't be read or has lost its end, or the backup can't be
            written; what was written of it is removed.
        JournalVersionError: it isn't a journal, or is a backup itself.
    """
    if target.exists():
        raise JournalError(f"{target} exists already: a backup overwrites nothing")
    draft = target.with_name(target.name + ".incomplete")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir(mode=0o700)
    except OSError as error:
        raise JournalError(f"{draft} can't be made: {error.strerror}") from error
    try:
        made = _fill(source, draft, beside, made_at)
        draft.rename(target)
        sync(target.parent)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise JournalError(f"{target} can't be written: {told(error, target)}") from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return made


def told(error: OSError, path: Path) -> str:
    """Return what to say of an error at work on a file; if a disk is full, which."""
    if error.errno == errno.ENOSPC:
        return f"the disk that holds {path.parent.absolute()} is full"
    return str(error)


def _fill(source: Path, draft: Path, beside: Sequence[str], made_at: int) -> BackupMade:
    # Under another name until it is whole, too.
    copy = draft / f"{source.name}.incomplete"
    acknowledged = look_at_lease(lease_path(source)).head
    with closing(open_for_reading(source)) as origin, reading(source):
        if FileKind.JOURNAL not in kinds_of(origin):
            raise JournalVersionError(f"{source} is a backup itself: copy its directory")
    copy_tables(source, copy, made_at=made_at)
    # After the journal: a rotation seals the journal under a new key first.
    for name in beside:
        file = source.with_name(name)
        if file.exists():
            shutil.copyfile(file, draft / name)
            (draft / name).chmod(0o600)
            sync(draft / name)
    with reading(copy), closing(connect(copy)) as connection:
        head = last_row(connection)
        if head < acknowledged:
            # The copy would no longer show it.
            raise JournalError(
                f"{source} ends with row {head}, but row {acknowledged} was acknowledged: this is"
                " an older copy, or its end is lost (connect-actor verify)"
            )
        require_sound(connection, copy)
        key_ids = sorted({epoch.key_id.hex() for epoch in epochs_of(connection)})
    copy.rename(draft / source.name)
    sync(draft)
    return BackupMade(
        head=head,
        size=(draft / source.name).stat().st_size,
        key_ids=key_ids,
        files=sorted(file.name for file in draft.iterdir()),
    )


def copy_tables(
    source: Path, copy: Path, tables: Sequence[str] = TABLES, *, made_at: int = 0
) -> None:
    """Copy a journal, or a backup, as it is at one moment into a backup that is made.

    It is a single file, and its content appears in it as a whole.

    Args:
        source: the database file.
        copy: the file that is made.
        tables: those whose rows are copied.
        made_at: nanoseconds since 1970, for whoever looks.

    Raises:
        JournalError: it can't be read, or the copy can't be written.
        OSError: the copy can't be made.
    """
    os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(connect(copy)) as connection:
            # Its steps are Python's, in which a signal is heard.
            connection.set_progress_handler(lambda: 0, _STEPS)
            connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("ATTACH ? AS source", (f"{source.absolute().as_uri()}?mode=ro",))
            connection.execute("BEGIN")
            make_tables(connection)
            for table in tables:
                connection.execute(f"INSERT INTO main.{table} SELECT * FROM source.{table}")  # noqa: S608 - our own names
            connection.execute(
                "INSERT INTO main.beginning SELECT * FROM source.beginning WHERE kind = ?",
                (FileKind.BACKUP,),
            )
            connection.execute("INSERT INTO main.backup VALUES (?)", (made_at,))
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        # Only the copy is written, so it is its disk that may be full.
        raise JournalError(
            f"{source} can't be copied to {copy}: {described(error, copy)}"
        ) from error
    sync(copy)


def require_sound(connection: sqlite3.Connection, path: Path) -> None:
    """Check that SQLite finds no fault in a file.

    Raises:
        JournalError: it does.
    """
    (problem,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if problem != "ok":
        raise JournalError(
            f"{path} is damaged ({problem}): connect-actor verify tells what is still whole"
        )
