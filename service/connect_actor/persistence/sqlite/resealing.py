"""Sealing a journal anew, after its master key has been rotated: bit by bit, in place.

Rows of the log first, then snapshots, then owners. Once nothing is left that an earlier key has
sealed, the epochs of that key are forgotten with their salts: from then on the old key opens
nothing here.
"""

import logging
import sqlite3
import struct
from typing import Self

from connect_actor.keys.keyring import MasterKey
from connect_actor.persistence.contract import CorruptRecordError
from connect_actor.persistence.log_rows import stored_number
from connect_actor.persistence.sealing import (
    Sealer,
    directory_context,
    epoch_of,
    owner_context,
    snapshot_context,
)

__all__ = ["Resealing"]

_log = logging.getLogger(__name__)

# Looked at in one step: a few milliseconds of work.
_ROWS = 32
_SNAPSHOTS = 200
_OWNERS = 1_000


class Resealing:
    """The way through one journal."""

    def __init__(self, before: int) -> None:
        """Begin with the first row.

        Args:
            before: what epochs before this one have sealed is to be sealed anew.
        """
        self._before = before
        self._row = self._snapshot = 0
        self._owned = -1
        self._damaged = False
        self.done = False
        """Whether all of it has been seen."""

    @classmethod
    def of(cls, connection: sqlite3.Connection, sealing: MasterKey) -> Self | None:
        """Return the way through a journal, or None if ``sealing`` has sealed all of it."""
        (newest,) = connection.execute(
            "SELECT max(epoch) FROM writers WHERE key_id <> ?", (sealing.id,)
        ).fetchone()
        return None if newest is None else cls(newest + 1)

    def step(self, connection: sqlite3.Connection, sealer: Sealer) -> int:
        """Do a bounded part of it, within a transaction; return how many bytes were written."""
        rows = connection.execute(
            "SELECT number, directory, payloads FROM log WHERE number > ? ORDER BY number LIMIT ?",
            (self._row, _ROWS),
        ).fetchall()
        if rows:
            self._row = rows[-1][0]
            return sum(self._reseal_row(connection, sealer, *row) for row in rows)
        snapshots = connection.execute(
            "SELECT rowid, channel, life, sequence_number, taken_at, payload FROM snapshots"
            " WHERE rowid > ? ORDER BY rowid LIMIT ?",
            (self._snapshot, _SNAPSHOTS),
        ).fetchall()
        if snapshots:
            self._snapshot = snapshots[-1][0]
            return sum(self._reseal_snapshot(connection, sealer, *row) for row in snapshots)
        owners = connection.execute(
            "SELECT channel, life, seal FROM owners WHERE channel > ? ORDER BY channel LIMIT ?",
            (self._owned, _OWNERS),
        ).fetchall()
        if owners:
            self._owned = owners[-1][0]
            return sum(self._reseal_owner(connection, sealer, *row) for row in owners)
        self._finish(connection, sealer)
        return 0

    def _reseal_row(
        self,
        connection: sqlite3.Connection,
        sealer: Sealer,
        number: int,
        directory: bytes,
        payloads: bytes,
    ) -> int:
        try:
            if epoch_of(directory) >= self._before:
                return 0
            listed = sealer.open_row(number, directory, directory_context(number))
            content = sealer.open_payloads(number, directory, payloads)
        except CorruptRecordError:
            self._damaged = True
            return 0
        directory, payloads = sealer.seal_row(number, listed, content)
        connection.execute(
            "UPDATE log SET directory = ?, payloads = ? WHERE number = ?",
            (directory, payloads, number),
        )
        return len(directory) + len(payloads)

    def _reseal_snapshot(
        self,
        connection: sqlite3.Connection,
        sealer: Sealer,
        row: int,
        channel: int,
        life: int,
        number: int,
        taken_at: int,
        blob: bytes,
    ) -> int:
        try:
            context = snapshot_context(channel, stored_number(life, number), taken_at)
            if epoch_of(blob) >= self._before:
                return 0
            blob = sealer.seal(sealer.open(blob, context), context)
        except (CorruptRecordError, TypeError, struct.error):
            self._damaged = True
            return 0
        connection.execute("UPDATE snapshots SET payload = ? WHERE rowid = ?", (blob, row))
        return len(blob)

    def _reseal_owner(
        self, connection: sqlite3.Connection, sealer: Sealer, channel: int, life: int, seal: bytes
    ) -> int:
        try:
            context = owner_context(channel, life)
            if epoch_of(seal) >= self._before:
                return 0
            seal = sealer.seal(sealer.open(seal, context), context)
        except (CorruptRecordError, TypeError, struct.error):
            self._damaged = True
            return 0
        connection.execute("UPDATE owners SET seal = ? WHERE channel = ?", (seal, channel))
        return len(seal)

    def _finish(self, connection: sqlite3.Connection, sealer: Sealer) -> None:
        self.done = True
        if self._damaged:
            _log.error("some of the journal is damaged and could not be sealed anew: keep the key")
            return
        connection.execute("DELETE FROM writers WHERE epoch < ?", (self._before,))
        sealer.forget_epochs_before(self._before)
