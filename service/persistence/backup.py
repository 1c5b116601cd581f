"""Backups: a consistent copy of a journal, made while a service goes on writing it.

The copy is taken page by page within one read transaction, as fast as the disk is: the WAL can't
end meanwhile, and no other way is consistent without beginning anew at every commit. All else is
done on the copy: it is marked, so that no service goes on from it by mistake (``restoring`` says
why that would be fatal), checked, and rid of what was deleted but not overwritten yet.

A backup is a directory: the journal, and the files that go with it. It is made under another name
and gets its own when it is complete and durable. The master keys are not in it.
"""

import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from service.persistence.contract import JournalError, JournalVersionError
from service.persistence.lease import lease_path, look_at_lease
from service.persistence.sqlite_file import (
    connect,
    epochs_of,
    is_backup,
    last_row,
    open_for_reading,
    reading,
)
from service.syncing import sync

__all__ = ["BackupMade", "back_up", "copy_database", "require_sound"]

# Copied in one step; between two, the process can be interrupted.
_PAGES = 4_096


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
        raise JournalError(f"{target} can't be written: {error}") from error
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return made


def _fill(source: Path, draft: Path, beside: Sequence[str], made_at: int) -> BackupMade:
    copy = draft / source.name
    acknowledged = look_at_lease(lease_path(source)).head
    copy_database(source, copy)
    # After the journal: a rotation seals the journal under a new key first.
    for name in beside:
        file = source.with_name(name)
        if file.exists():
            shutil.copyfile(file, draft / name)
            (draft / name).chmod(0o600)
            sync(draft / name)
    with reading(copy), closing(connect(copy)) as connection:
        if is_backup(connection):
            raise JournalVersionError(f"{source} is a backup itself: copy its directory")
        head = last_row(connection)
        if head < acknowledged:
            # The copy would no longer show it.
            raise JournalError(
                f"{source} ends with row {head}, but row {acknowledged} was acknowledged: this is"
                " an older copy, or its end is lost (connect-actor verify)"
            )
        connection.execute("INSERT INTO backup VALUES (?, ?)", (head, made_at))
        connection.execute("VACUUM")
        require_sound(connection, copy)
        key_ids = sorted({epoch.key_id.hex() for epoch in epochs_of(connection)})
    sync(copy)
    sync(draft)
    return BackupMade(
        head=head,
        size=copy.stat().st_size,
        key_ids=key_ids,
        files=sorted(file.name for file in draft.iterdir()),
    )


def copy_database(source: Path, copy: Path) -> None:
    """Copy a journal as it is at one moment into a single file that is made.

    Raises:
        JournalError: it can't be read, or the copy can't be written.
        JournalVersionError: it isn't a journal.
    """
    with closing(open_for_reading(source)) as origin:
        os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        with reading(source), closing(connect(copy)) as connection:
            origin.backup(connection, pages=_PAGES)
    with reading(copy), closing(connect(copy)) as connection:
        # One file, without a WAL beside it.
        connection.execute("PRAGMA journal_mode = DELETE")


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
