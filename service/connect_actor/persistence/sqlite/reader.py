"""Reading the SQLite journal: what its one writer and those who only look at it share.

A channel's records are found by ``LogIndex``, made in memory by one scan of the log. A snapshot
marks what it covers: records at or below a channel's newest snapshot are gone from reads.

A row that is missing, or whose directory does not open, may have held anybody's records. Channels
with a later record, in the place where it was first written, are whole if their numbers join up; of
the others the newest records may be lost, so they are refused. Rows that are cut off are missing: a
sealed number says where the log begins, the lease and the newest epoch how far it came.
"""

import sqlite3
import struct
from collections.abc import Iterator
from typing import Any

from connect_actor.persistence.contract import (
    CorruptRecordError,
    JournalError,
    Record,
    RecordKind,
    Recovery,
    Snapshot,
)
from connect_actor.persistence.log_index import GIVEN_UP, LogIndex, Tail
from connect_actor.persistence.log_rows import (
    SEALED_STATE,
    STATE_SEALED_BEFORE,
    Entry,
    entries_of,
    first_place,
    life_of,
    record_at,
    row_of,
    sequence_of,
    stamp_of,
    stored_number,
)
from connect_actor.persistence.opened_rows import OpenedRows
from connect_actor.persistence.sealing import (
    STATE_KEY_SIZE,
    Sealer,
    StateCipher,
    directory_context,
    snapshot_context,
    state_context,
)
from connect_actor.persistence.sqlite.schema import primary_code

__all__ = ["SqliteReader"]

_SELECT_ROW = "SELECT directory, payloads FROM log WHERE number = ?"

# Snapshots that are looked at for the newest time: the very last ones may be damaged.
_LAST_SAVED = 16

_STATE = RecordKind.STATE
_SEALED_STATES = (SEALED_STATE, STATE_SEALED_BEFORE)
# A recovery makes a record for every message behind the snapshot: these take half of what calling
# the classes does.
_record = Record._make
_KINDS = {int(kind): kind for kind in RecordKind}


class SqliteReader:
    """An open file, its index and its keys."""

    def __init__(
        self, connection: sqlite3.Connection, sealer: Sealer, first_row: int, head: int
    ) -> None:
        """Scan the log.

        Args:
            connection: to a file of the right format.
            sealer: knows all epochs.
            first_row: number of the row with which the log begins.
            head: number of the last row known to have been written; 0 if none is.
        """
        self.connection = connection
        self.sealer = sealer
        self.opened_rows = OpenedRows()
        self.index = LogIndex()
        self.index.build(
            self._scan(first_row, head),
            self._newest_snapshots(),
        )

    def _newest_snapshots(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield those of all channels; in place of what is no number, from a damaged page, -1."""
        for row in self.connection.execute(
            "SELECT channel, max(sequence_number), life, taken_at FROM snapshots GROUP BY channel"
        ):
            channel, number, life, taken_at = (v if isinstance(v, int) else -1 for v in row)
            yield channel, number, life, taken_at

    def _scan(self, first_row: int, head: int) -> Iterator[Entry]:
        """Yield what the log lists, and have the index distrust what can't be read."""
        index = self.index
        index.next_row = first_row
        for number, directory in self.connection.execute(
            # Nothing before the first row counts, wherever it may come from.
            "SELECT number, directory FROM log WHERE number >= ? ORDER BY number",
            (first_row,),
        ):
            if number != index.next_row:
                index.distrust_before(first_place(number))
            index.next_row = number + 1
            try:
                opened = self.sealer.open_row(number, directory, directory_context(number))
            except CorruptRecordError:
                index.distrust_before(first_place(number + 1))
                continue
            yield from entries_of(number, opened)
        if index.next_row <= head:
            # The gap that this leaves tells it to whoever reads the log later.
            index.next_row = head + 1
            index.distrust_before(first_place(head + 1))

    # --- Channels ---------------------------------------------------------------------------------

    def channels(self) -> list[int]:
        """Return all channels of which anything is stored, whole or not."""
        known = {*self.index.tails, *self.index.damaged}
        known.update(
            channel
            for (channel,) in self.connection.execute("SELECT DISTINCT channel FROM snapshots")
        )
        return sorted(known)

    def saved_channels(self, after: int, limit: int) -> list[int]:
        """See ``Journal.channels``. The index of the snapshots is all that this reads."""
        rows = self._select_all(
            "SELECT DISTINCT channel FROM snapshots WHERE channel > ? ORDER BY channel LIMIT ?",
            (after, limit),
        )
        return [channel for (channel,) in rows]

    def saved_at(self, channel: int) -> int:
        """See ``Journal``. Nothing is put into the index: whoever asks may ask about all."""
        if reason := self.index.damaged.get(channel):
            raise CorruptRecordError(f"channel {channel}: {reason}")
        row = self._select(
            "SELECT taken_at FROM snapshots WHERE channel = ?"
            " ORDER BY sequence_number DESC LIMIT 1",
            (channel,),
        )
        taken_at = row[0] if row else 0
        if not isinstance(taken_at, int):
            raise CorruptRecordError(f"channel {channel}: the time of its snapshot is damaged")
        return taken_at

    def newest_save(self) -> int:
        """See ``Journal``. Only what is sealed is believed."""
        newest = 0
        # Rows are numbered in the order in which they were written.
        for (channel,) in self._select_all(
            "SELECT channel FROM snapshots ORDER BY rowid DESC LIMIT ?", (_LAST_SAVED,)
        ):
            try:
                snapshot = self.load_snapshot(channel)
            except CorruptRecordError:
                continue
            if snapshot is not None:
                newest = max(newest, snapshot.taken_at)
        return newest

    def given_up(self) -> set[int]:
        """Return the channels that are refused for good, and of which nothing else is left."""
        return {channel for channel, reason in self.index.damaged.items() if reason is GIVEN_UP}

    def tail(self, channel: int) -> Tail:
        """Return a channel's tail, looking up what a channel without live records has left.

        Raises:
            CorruptRecordError: its newest records may be lost.
        """
        tail = self.index.tails.get(channel)
        if tail is None:
            tail = self._tail_without_records(channel)
            if tail.highest:
                self.index.tails[channel] = tail
        return tail

    def _tail_without_records(self, channel: int) -> Tail:
        if reason := self.index.damaged.get(channel):
            raise CorruptRecordError(f"channel {channel}: {reason}")
        number = stamped[0] if (stamped := self.newest_stamp(channel)) else 0
        snapshot = sequence_of(number)
        return Tail(snapshot, snapshot, life_of(number))

    def life(self, channel: int) -> int | None:
        """Return a channel's life; None if it is damaged, so that nothing is known of it.

        Nothing is put into the index.
        """
        tail = self.index.tails.get(channel)
        try:
            return (tail or self._tail_without_records(channel)).life
        except CorruptRecordError:
            return None

    def height(self, channel: int) -> int | None:
        """Return a channel's highest number, as it is stored: 0 if it has none.

        None if it is damaged, and gets no more.
        """
        try:
            tail = self.tail(channel)
        except CorruptRecordError:
            return None
        return stored_number(tail.life, tail.highest) if tail.highest else 0

    def newest_stamp(self, channel: int) -> tuple[int, int] | None:
        """Return what the note about a channel's newest snapshot has to say.

        Raises:
            CorruptRecordError: the snapshot's row is damaged.
        """
        row = self._select(
            "SELECT life, sequence_number, taken_at FROM snapshots WHERE channel = ?"
            " ORDER BY sequence_number DESC LIMIT 1",
            (channel,),
        )
        if row is None:
            return None
        if not all(isinstance(value, int) for value in row):
            raise CorruptRecordError(f"channel {channel}: the row of its snapshot is damaged")
        return stored_number(row[0], row[1]), stamp_of(row[2])

    # --- Records and snapshots --------------------------------------------------------------------

    def _record_at(self, channel: int, tail: Tail, number: int, place: int) -> Record:
        try:
            row = row_of(place)
            kind, payload = record_at(place, self.opened_rows.get(row) or self._open_row(row))
            if kind in _SEALED_STATES:
                payload = self._open_state(channel, tail, number, kind, payload)
                kind = _STATE
            return _record((channel, number, _KINDS.get(kind) or RecordKind(kind), payload))
        except (CorruptRecordError, ValueError) as error:
            raise CorruptRecordError(f"channel {channel}: record {number}: {error}") from error

    def _open_row(self, number: int) -> bytes:
        row = self._select(_SELECT_ROW, (number,))
        if row is None:
            raise CorruptRecordError("its row is missing")
        payloads = self.open_payloads(number, *row)
        self.opened_rows.keep(number, payloads)
        return payloads

    def _open_state(self, channel: int, tail: Tail, number: int, kind: int, sealed: bytes) -> bytes:
        cipher = self.state_cipher(channel, tail)
        if cipher is None:
            raise CorruptRecordError("the snapshot with its key is missing")
        opening = cipher.open if kind == SEALED_STATE else cipher.open_before
        return opening(sealed, state_context(channel, number))

    def open_payloads(self, number: int, directory: bytes, payloads: bytes) -> bytes:
        """Return the payloads of a row.

        Raises:
            CorruptRecordError: they are damaged.
        """
        return self.sealer.open_payloads(number, directory, payloads)

    def state_cipher(self, channel: int, tail: Tail) -> StateCipher | None:
        """Return what seals whole states behind the channel's newest snapshot, if it has one.

        Raises:
            CorruptRecordError: the snapshot is damaged.
        """
        if tail.state_cipher is None and tail.snapshot:
            found = self._load_snapshot(channel)
            if found is not None:
                tail.state_cipher = StateCipher(found[1])
        return tail.state_cipher

    def load_snapshot(self, channel: int) -> Snapshot | None:
        """Return a channel's newest snapshot.

        Raises:
            CorruptRecordError: it is damaged.
        """
        found = self._load_snapshot(channel)
        return None if found is None else found[0]

    def _load_snapshot(self, channel: int) -> tuple[Snapshot, bytes] | None:
        """Return a snapshot, and the key of the states behind it."""
        row = self._select(
            "SELECT life, sequence_number, taken_at, payload FROM snapshots WHERE channel = ?"
            " ORDER BY sequence_number DESC LIMIT 1",
            (channel,),
        )
        if row is None:
            return None
        life, number, taken_at, blob = row
        opened = self.open_snapshot(channel, life, number, taken_at, blob)
        tail = self.index.tails.get(channel)
        if tail is not None and tail.life != life:
            raise CorruptRecordError(f"channel {channel}: its snapshot is of an earlier life")
        return (
            Snapshot(channel, number, taken_at, opened[STATE_KEY_SIZE:]),
            opened[:STATE_KEY_SIZE],
        )

    def open_snapshot(
        self, channel: int, life: int, number: int, taken_at: int, blob: bytes
    ) -> bytes:
        """Return the key of the states behind a snapshot, and its payload behind that.

        Raises:
            CorruptRecordError: it is damaged, or something else than its row says.
        """
        try:
            context = snapshot_context(channel, stored_number(life, number), taken_at)
            return self.sealer.open(blob, context)
        # What a damaged page yields may be no number, or one that nothing ever has.
        except (CorruptRecordError, TypeError, struct.error) as error:
            raise CorruptRecordError(f"channel {channel}: snapshot {number}: {error}") from error

    def recover(self, channel: int) -> Recovery:
        """See ``Journal``."""
        tail = self.tail(channel)
        snapshot = self.load_snapshot(channel) if tail.snapshot else None
        covered = 0 if snapshot is None else snapshot.sequence_number
        if covered != tail.snapshot or (tail.places and tail.first > covered + 1):
            raise CorruptRecordError(
                f"channel {channel}: nothing covers the records before {tail.first}"
            )
        if not tail.places and covered < tail.highest:
            raise CorruptRecordError(
                f"channel {channel}: nothing covers the records up to {tail.highest}"
            )
        self.opened_rows.used()
        records: list[Record] = []
        numbers = range(tail.highest, covered, -1)
        for number, place in zip(numbers, reversed(tail.places), strict=False):
            record = self._record_at(channel, tail, number, place)
            records.append(record)
            # A whole state: nothing before it is of any use.
            if record.kind is _STATE:
                break
        records.reverse()
        return Recovery(snapshot, records, tail.highest)

    def _select(self, query: str, values: tuple[object, ...]) -> tuple[Any, ...] | None:
        try:
            row: tuple[Any, ...] | None = self.connection.execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise _unreadable(error) from error
        return row

    def _select_all(self, query: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        try:
            return self.connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise _unreadable(error) from error


def _unreadable(error: sqlite3.Error) -> JournalError:
    if primary_code(error) == sqlite3.SQLITE_CORRUPT:
        return CorruptRecordError(f"a page of the journal is damaged: {error}")
    return JournalError(f"the journal can't be read: {error}")
