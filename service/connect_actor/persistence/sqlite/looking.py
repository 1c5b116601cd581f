"""Looking at a journal without writing to it, while a service may be at work on it."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.sealing import Sealer
from connect_actor.persistence.sqlite.lease import LeaseView, lease_path, look_at_lease
from connect_actor.persistence.sqlite.reader import SqliteReader
from connect_actor.persistence.sqlite.schema import (
    FileKind,
    first_row,
    kinds_of,
    know_epochs,
    open_for_reading,
    reading,
)

__all__ = ["View", "look"]


@dataclass(frozen=True, slots=True)
class View:
    """A journal as it was at one moment."""

    path: Path
    connection: sqlite3.Connection
    sealer: Sealer
    """Opens what any epoch has sealed."""
    lease: LeaseView
    """From before that moment, so that its head is not ahead of what is seen."""
    is_backup: bool
    first_row: int
    """Number of the row with which the log begins."""
    head: int
    """Number of the last row that is known to have been written; 0 if none is."""

    def read(self) -> SqliteReader:
        """Scan the log.

        Raises:
            JournalError: the file is so damaged that it can't be walked.
        """
        with reading(self.path):
            return SqliteReader(self.connection, self.sealer, self.first_row, self.head)


@contextmanager
def look(path: Path, keys: KeyRing) -> Iterator[View]:
    """Look at a journal within one read transaction: keep it short, the WAL can't end meanwhile.

    Raises:
        JournalError: there is no such file, or it can't be read.
        JournalVersionError: it isn't a journal, is damaged where a service would not open it
            either, or a master key is missing.
    """
    lease = look_at_lease(lease_path(path))
    connection = open_for_reading(path)
    try:
        sealer = Sealer()
        with reading(path):
            newest = know_epochs(connection, path, keys, sealer)
            is_backup = FileKind.JOURNAL not in kinds_of(connection)
            kind = FileKind.BACKUP if is_backup else FileKind.JOURNAL
            first = first_row(connection, path, sealer, kind)
            head = max(lease.head, newest.first_row - 1 if newest else 0)
        yield View(path, connection, sealer, lease, is_backup, first, head)
    finally:
        connection.close()
