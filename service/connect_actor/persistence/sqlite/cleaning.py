"""Cleaning the log: its oldest rows go, after what is live in them has been appended anew.

What is appended anew is marked as moved (``persistence.log_rows``). Cleaning ends for good
at a row that is missing or can't be read: it is all that tells that something is missing.
"""

import sqlite3

from connect_actor.persistence.contract import CorruptRecordError
from connect_actor.persistence.log_rows import (
    MOVED,
    SNAPSHOT_NOTE,
    Entry,
    RowWriter,
    entries_of,
    is_note,
    life_of,
    record_at,
    sequence_of,
)
from connect_actor.persistence.sealing import directory_context
from connect_actor.persistence.sqlite.reader import SqliteReader
from connect_actor.persistence.sqlite.schema import add_row, seal_beginning

__all__ = ["CleaningStep"]


class CleaningStep:
    """One step of it."""

    def __init__(self, reader: SqliteReader, begins: int) -> None:
        """Begin with the row with which the log begins."""
        self._reader = reader
        self.begins = begins
        """Number of the row with which the log begins after this step."""
        self.removed = 0
        """Entries in the rows that go."""
        self.damaged = False
        """Whether it has come to a row that stays for good."""
        self.written = RowWriter(reader.index.next_row)
        """What is appended anew."""

    def do(self, connection: sqlite3.Connection, rows: int, entries: int) -> None:
        """Do it, within a transaction; the index is not changed.

        Args:
            connection: to the journal.
            rows: how many at most go.
            entries: after how many it ends.
        """
        begins = self.begins
        for number, directory, payloads in connection.execute(
            # The last row stays: its number says how far the log has come.
            "SELECT number, directory, payloads FROM log WHERE number >= ? AND number < ?"
            " ORDER BY number LIMIT ?",
            (begins, self._reader.index.next_row - 1, rows),
        ).fetchall():
            try:
                if number != self.begins:
                    raise CorruptRecordError("a row is missing")  # noqa: TRY301 - as one damaged
                self._keep(number, directory, payloads)
            except CorruptRecordError:
                self.damaged = True
                break
            self.begins = number + 1
            if self.removed >= entries:
                break
        if self.begins > begins:
            connection.execute("DELETE FROM log WHERE number < ?", (self.begins,))
            self.written.finish()
            for row in self.written.rows:
                add_row(connection, self._reader.sealer, *row)
            seal_beginning(connection, self._reader.sealer, self.begins)

    def enter(self) -> int:
        """Take note in the index of what is durable now; return how many entries are gone."""
        index = self._reader.index
        for place, channel, number, kind, _ in self.written.entries:
            if channel not in index.damaged and not is_note(kind):
                index.tails[channel].move(sequence_of(number), place)
        index.next_row = self.written.next_row
        gone = self.removed - len(self.written.entries)
        index.stored -= gone
        self._reader.opened_rows.clear()
        return gone

    def _keep(self, row: int, directory: bytes, payloads: bytes) -> None:
        """Append anew what of a row is live, or of a damaged channel; all of it or nothing."""
        reader, writer = self._reader, self.written
        listed = reader.sealer.open_row(row, directory, directory_context(row))
        entries = list(entries_of(row, listed))
        kept = [entry for entry in entries if self._is_live(entry)]
        if kept:
            opened = reader.open_payloads(row, directory, payloads)
            records = {
                place: record_at(place, opened)[1]
                for place, _, _, kind, _ in kept
                if not is_note(kind)
            }
            for place, channel, number, kind, length in kept:
                if is_note(kind):
                    writer.note(channel, number, kind | MOVED, length)
                else:
                    writer.add(channel, number, kind & ~MOVED, records[place], MOVED)
        self.removed += len(entries)

    def _is_live(self, entry: Entry) -> bool:
        """Tell whether an entry of the log is of use, or of a damaged channel."""
        place, channel, number, kind, stamp = entry
        reader, index = self._reader, self._reader.index
        if channel in index.damaged:
            return True
        if kind & ~MOVED == SNAPSHOT_NOTE:
            return reader.newest_stamp(channel) == (number, stamp)
        tail = index.tails.get(channel)
        return (
            tail is not None
            and tail.life == life_of(number)
            and tail.place_of(sequence_of(number)) == place
        )
