"""The SQLite journal: one file, one writer, records appended in arrival order.

Layout and why:

- ``log`` has a row for each commit (``service.persistence.log_rows``), in the order of arrival, so
  that a commit touches the last pages only, however many channels it holds. A channel's records
  are found by ``LogIndex``, in memory. Rows are numbered without gaps.
- ``snapshots`` has a row per snapshot, written in the transaction of the records it goes with.
  A snapshot marks what it covers: after the journal has been reopened, records at or below a
  channel's newest snapshot are gone from reads, deleted or not. So the deletion that follows a
  snapshot needs no write of its own.
- ``marks`` holds what no snapshot implies: records deleted without one, and the highest number
  of a channel whose newest snapshot was deleted.
- ``owners`` has a row for each channel that a principal owns (``service.persistence.owners``).
- ``writers`` has a row per opening: its epoch, the salt of its sealing key, the strategy.

Deleted records leave the file in ``upkeep``, as in a log-structured store: the oldest rows of the
log are removed whole, after what is live in them has been appended anew at the log's end.

A row that is missing, or whose directory does not open, may have held anybody's records. Channels
with a later record are whole, if their numbers join up; of the others the newest records may be
lost, so they are refused, and the log is not cleaned any more.

Durability: WAL with ``synchronous=FULL``; a commit has returned from fdatasync. The file is locked
(``locking_mode=EXCLUSIVE``) from opening to closing, so a second writer is refused by SQLite.
After a failed transaction the file is closed and read anew: an error of fsync may mean that pages
are lost (Rebello et al., ATC 2020), so nothing in memory is believed.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.persistence.contract import (
    LATEST,
    MAX_SEQUENCE_NUMBER,
    Batch,
    CommitFailedError,
    CorruptRecordError,
    JournalError,
    JournalLockedError,
    JournalStatistics,
    JournalVersionError,
    Record,
    RecordKind,
    Recovery,
    Rejection,
    Snapshot,
    SnapshotCriteria,
)
from service.persistence.log_index import NEWEST_UNKNOWN, LogIndex, Tail
from service.persistence.log_rows import (
    Entry,
    RowWriter,
    entries_of,
    first_place,
    record_at,
    row_of,
)
from service.persistence.owners import OwnerTable
from service.persistence.sealing import (
    SALT_SIZE,
    Sealer,
    directory_context,
    payloads_context,
    snapshot_context,
)

__all__ = ["SqliteJournal"]

_APPLICATION_ID = 0x434F4E41  # "CONA", shown by file(1)
_FORMAT_VERSION = 1
# A whole session fills a third of such a page; smaller ones waste the rest of a page on each.
_PAGE_SIZE = 8_192
# The log is cleaned when more of it is dead than live, and at least this many records are.
_MIN_DEAD = 2_000
# Rows cleaned in one step at most, and records after which it ends: a few milliseconds of work.
_CLEAN_ROWS = 200
_CLEAN_RECORDS = 1_000
# Bytes written after which upkeep moves the WAL into the database, and after which a commit does.
_CHECKPOINT_AFTER = 4 * 1024 * 1024
_CHECKPOINT_AT_LATEST = 64 * 1024 * 1024
_CANARY = b"connect-actor canary"
_SELECT_ROW = "SELECT directory, payloads FROM log WHERE number = ?"

_CLOSED = int(RecordKind.CLOSED)

_SCHEMA = """
CREATE TABLE writers (
    epoch INTEGER PRIMARY KEY, strategy TEXT NOT NULL, opened_at INTEGER NOT NULL,
    salt BLOB NOT NULL, canary BLOB NOT NULL
);
CREATE TABLE log (number INTEGER PRIMARY KEY, directory BLOB NOT NULL, payloads BLOB NOT NULL);
CREATE TABLE snapshots (
    channel INTEGER NOT NULL, sequence_number INTEGER NOT NULL, taken_at INTEGER NOT NULL,
    payload BLOB NOT NULL, UNIQUE (channel, sequence_number)
);
CREATE TABLE marks (
    channel INTEGER PRIMARY KEY, deleted_to INTEGER NOT NULL, highest INTEGER NOT NULL
);
"""


@dataclass(slots=True)
class _Admitted:
    """What of a batch is to be written, and what is left out."""

    writer: RowWriter
    """Has the records."""
    ended: set[int] = field(default_factory=set)
    """Channels whose end is among them."""
    snapshots: list[Snapshot] = field(default_factory=list)
    owners: list[tuple[int, bytes]] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)


class SqliteJournal:
    """See the module's text for the layout and ``contract.Journal`` for what it promises."""

    def __init__(
        self,
        path: Path,
        *,
        master_key: bytes,
        strategy: str,
        clock: Callable[[], int] = time.time_ns,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Open a journal, or make one.

        Args:
            path: the database file; ``-wal`` lies beside it.
            master_key: 32 bytes, from which every sealing key is derived.
            strategy: name of the strategy that will write, noted in the journal.
            clock: nanoseconds since the epoch, for the note.
            random: source of salts.

        Raises:
            JournalLockedError: another process, or this one, has it open.
            JournalVersionError: it isn't a journal, is of another format, or was sealed under
                another master key.
            JournalError: the file can't be opened.
        """
        self._path = path
        self._master_key = master_key
        self._strategy = strategy
        self._clock = clock
        self._random = random
        self._commits = self._records = self._record_bytes = 0
        self._snapshots = self._snapshot_bytes = 0
        self._records_deleted = self._snapshots_deleted = 0
        self._closed = False
        self.previous_strategy: str | None = None
        """Which strategy wrote last before this opening; None if the journal is new."""
        self._connection: sqlite3.Connection | None = None
        self._open()

    # --- Opening and failing ----------------------------------------------------------------------

    def _open(self) -> None:
        try:
            # Readable by its owner only, and so are the files that SQLite makes beside it.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            connection = sqlite3.connect(
                self._path, timeout=0, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"{self._path} can't be opened: {error}") from error
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute(f"PRAGMA page_size = {_PAGE_SIZE}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA journal_size_limit = {_CHECKPOINT_AT_LATEST}")
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise JournalLockedError(
                    f"{self._path} is in use by another service: a journal has one writer"
                ) from error
            raise JournalError(f"{self._path} can't be opened: {error}") from error
        except sqlite3.DatabaseError as error:
            raise JournalVersionError(f"{self._path} is not a journal: {error}") from error
        self._require_format(connection)
        self._owners = OwnerTable(connection)
        self._begin_epoch(connection)
        connection.execute("COMMIT")
        self._index = LogIndex()
        self._index.build(
            self._scan(connection),
            connection.execute("SELECT channel, deleted_to, highest FROM marks"),
            connection.execute(
                "SELECT channel, max(sequence_number) FROM snapshots GROUP BY channel"
            ),
        )
        self._replaced: list[tuple[int, int]] = []
        self._since_checkpoint = 0
        self._cleanable = True

    def _scan(self, connection: sqlite3.Connection) -> Iterator[Entry]:
        """Yield what the log lists, and have the index distrust what can't be read."""
        expected: int | None = None
        for number, directory in connection.execute(
            "SELECT number, directory FROM log ORDER BY number"
        ):
            if expected is not None and number != expected:
                self._index.distrust_before(first_place(number))
            expected = number + 1
            self._index.next_row = number + 1
            try:
                opened = self._sealer.open(directory, directory_context(number))
            except (CorruptRecordError, TypeError):
                self._index.distrust_before(first_place(number + 1))
                continue
            yield from entries_of(number, opened)

    def _require_format(self, connection: sqlite3.Connection) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables == 0:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_FORMAT_VERSION}")
        elif application != _APPLICATION_ID:
            raise JournalVersionError(f"{self._path} is a database, but not a journal")
        elif version != _FORMAT_VERSION:
            raise JournalVersionError(
                f"{self._path} has format {version}, this service reads {_FORMAT_VERSION}:"
                " use the release that wrote it"
            )

    def _begin_epoch(self, connection: sqlite3.Connection) -> None:
        self._sealer = Sealer(self._master_key)
        epoch = 0
        for epoch, strategy, salt, canary in connection.execute(
            "SELECT epoch, strategy, salt, canary FROM writers ORDER BY epoch"
        ):
            self._sealer.know_epoch(epoch, salt)
            try:
                self._sealer.open(canary, _CANARY)
            except CorruptRecordError:
                raise JournalVersionError(
                    f"{self._path} was sealed under another master key: give the one it was"
                    " made with (sealing_key_file)"
                ) from None
            self.previous_strategy = strategy
        salt = self._random(SALT_SIZE)
        self._sealer.begin_epoch(epoch + 1, salt)
        connection.execute(
            "INSERT INTO writers VALUES (?, ?, ?, ?, ?)",
            (
                epoch + 1,
                self._strategy,
                self._clock(),
                salt,
                self._sealer.seal(_CANARY, _CANARY),
            ),
        )

    def _usable(self) -> sqlite3.Connection:
        """Return the connection, opening the file anew if the last transaction failed."""
        if self._closed:
            raise JournalError("the journal is closed")
        if self._connection is None:
            previous = self.previous_strategy
            self._open()
            self.previous_strategy = previous
        if self._connection is None:
            raise JournalError("the journal could not be opened anew")
        return self._connection

    def _abandon(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error:
                # The file is opened anew in any case, and its content decides.
                return

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._usable()
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._abandon()
            raise CommitFailedError(f"the transaction failed: {error}") from error
        except BaseException:
            self._abandon()
            raise

    def _tail(self, channel: int) -> Tail:
        """Return a channel's tail, looking up what a channel without live records has left."""
        self._usable()
        tail = self._index.tails.get(channel)
        if tail is None:
            reason = self._index.damaged.get(channel)
            if reason is not None:
                raise CorruptRecordError(f"channel {channel}: {reason}")
            snapshot = self._newest_snapshot(channel)
            mark = self._select("SELECT highest FROM marks WHERE channel = ?", (channel,))
            if self._index.distrusted and (snapshot or mark):
                raise CorruptRecordError(f"channel {channel}: {NEWEST_UNKNOWN}")
            tail = Tail(max(snapshot, mark[0] if mark else 0), snapshot)
            if tail.highest:
                self._index.tails[channel] = tail
        return tail

    def _height(self, channel: int) -> int:
        """Return a channel's highest sequence number; 0 if it is damaged, and gets no more."""
        return 0 if channel in self._index.damaged else self._tail(channel).highest

    def _newest_snapshot(self, channel: int) -> int:
        row = self._select(
            "SELECT max(sequence_number) FROM snapshots WHERE channel = ?", (channel,)
        )
        return (row and row[0]) or 0

    # --- Writing ----------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> list[Rejection]:
        """See ``Journal``."""
        self._usable()
        admitted = self._admit(batch)
        size = admitted.writer.size
        with self._transaction() as connection:
            self._insert_rows(connection, admitted.writer)
            for channel in admitted.ended:
                connection.execute("DELETE FROM snapshots WHERE channel = ?", (channel,))
                connection.execute("DELETE FROM marks WHERE channel = ?", (channel,))
            owned = self._owners.change(connection, self._sealer, admitted.ended, admitted.owners)
            if admitted.snapshots:
                size += self._insert_snapshots(connection, admitted.snapshots)
            self._delete_replaced(connection)
        self._enter(admitted)
        self._owners.settle(owned)
        self._commits += 1
        self._since_checkpoint += size + 2 * _PAGE_SIZE
        if self._since_checkpoint > _CHECKPOINT_AT_LATEST:
            self._checkpoint()
        return admitted.rejections

    def _admit(self, batch: Batch) -> "_Admitted":
        """Sort out what of a batch follows from what is stored; change nothing."""
        writer = RowWriter(self._index.next_row)
        admitted = _Admitted(writer)
        refused = set(self._index.damaged)
        heights: dict[int, int] = {}
        tails = self._index.tails
        for record in batch.records:
            channel, number = record.channel, record.sequence_number
            height = heights.get(channel)
            if height is None:
                tail = tails.get(channel)
                height = self._height(channel) if tail is None else tail.highest
                heights[channel] = height
            if number != height + 1 or channel in refused:
                refused.add(channel)
                admitted.rejections.append(Rejection(record, height))
                continue
            heights[channel] = number
            if record.kind is RecordKind.CLOSED:
                heights[channel] = 0
                admitted.ended.add(channel)
            writer.add(channel, number, record.kind, record.payload)
        for snapshot in batch.snapshots:
            height = heights.get(snapshot.channel)
            if height is None:
                height = self._height(snapshot.channel)
            if snapshot.channel in refused or snapshot.sequence_number > height:
                admitted.rejections.append(Rejection(snapshot, height))
            else:
                admitted.snapshots.append(snapshot)
        for channel, owner in batch.owners:
            # Not of one that has ended in the same batch.
            if channel not in refused and heights.get(channel):
                admitted.owners.append((channel, owner))
        return admitted

    def _insert_rows(self, connection: sqlite3.Connection, writer: RowWriter) -> None:
        writer.finish()
        seal = self._sealer.seal
        for number, directory, payloads in writer.rows:
            sealed = seal(directory, directory_context(number))
            connection.execute(
                "INSERT INTO log VALUES (?, ?, ?)",
                (number, sealed, seal(payloads, payloads_context(number, sealed))),
            )

    def _insert_snapshots(self, connection: sqlite3.Connection, snapshots: list[Snapshot]) -> int:
        rows = [
            (
                snapshot.channel,
                snapshot.sequence_number,
                snapshot.taken_at,
                self._sealer.seal(
                    snapshot.payload,
                    snapshot_context(snapshot.channel, snapshot.sequence_number, snapshot.taken_at),
                ),
            )
            for snapshot in snapshots
        ]
        connection.executemany("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?)", rows)
        return sum(len(row[3]) for row in rows)

    def _delete_replaced(self, connection: sqlite3.Connection) -> None:
        """Delete the snapshots that newer ones have replaced since the last commit."""
        if self._replaced:
            cursor = connection.executemany(
                "DELETE FROM snapshots WHERE channel = ? AND sequence_number <= ?", self._replaced
            )
            self._snapshots_deleted += cursor.rowcount
            self._replaced.clear()

    def _enter(self, admitted: "_Admitted") -> None:
        """Take note of what a transaction has made durable."""
        index = self._index
        tails = index.tails
        entries = admitted.writer.entries
        for place, channel, _, kind in entries:
            if kind == _CLOSED:
                ended = tails.pop(channel, None)
                index.live -= 0 if ended is None else len(ended.places)
                continue
            tail = tails.get(channel)
            if tail is None:
                tail = tails[channel] = Tail(0, 0)
            tail.append(place)
            index.live += 1
        count = len(entries)
        index.next_row = admitted.writer.next_row
        index.stored += count
        self._records += count
        self._record_bytes += admitted.writer.size
        for snapshot in admitted.snapshots:
            tail = self._tail(snapshot.channel)
            tail.snapshot = max(tail.snapshot, snapshot.sequence_number)
            self._snapshots += 1
            self._snapshot_bytes += len(snapshot.payload)

    def delete_records(self, channel: int, to_sequence_number: int) -> None:
        """See ``Journal``."""
        tail = self._tail(channel)
        to = min(to_sequence_number, tail.highest)
        if to < tail.first:
            return
        if to > tail.snapshot:
            with self._transaction() as connection:
                self._mark(connection, channel, to, tail.highest)
        self._index.live -= tail.delete_to(to)

    def _mark(
        self, connection: sqlite3.Connection, channel: int, deleted_to: int, highest: int
    ) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO marks VALUES (?, ?, ?)", (channel, deleted_to, highest)
        )

    def delete_snapshots(self, channel: int, criteria: SnapshotCriteria) -> None:
        """See ``Journal``."""
        tail = self._tail(channel)
        if (
            criteria.max_taken_at == MAX_SEQUENCE_NUMBER
            and criteria.max_sequence_number < tail.snapshot
        ):
            # The common case, behind a newer snapshot: no read looks at these any more, so it
            # can wait for the next commit, and be lost in a crash.
            self._replaced.append((channel, criteria.max_sequence_number))
            return
        with self._transaction() as connection:
            # What the newest snapshot implied has to be said by a mark now.
            self._mark(connection, channel, tail.first - 1, tail.highest)
            cursor = connection.execute(
                "DELETE FROM snapshots WHERE channel = ? AND sequence_number <= ?"
                " AND taken_at <= ?",
                (channel, criteria.max_sequence_number, criteria.max_taken_at),
            )
            self._snapshots_deleted += cursor.rowcount
        tail.snapshot = self._newest_snapshot(channel)

    # --- Reading ----------------------------------------------------------------------------------

    def read(
        self,
        channel: int,
        from_sequence_number: int = 1,
        to_sequence_number: int = MAX_SEQUENCE_NUMBER,
        limit: int = MAX_SEQUENCE_NUMBER,
    ) -> list[Record]:
        """See ``Journal``."""
        tail = self._tail(channel)
        first = max(from_sequence_number, tail.first)
        last = min(to_sequence_number, tail.highest, first + limit - 1)
        return [self._read_one(channel, tail, number) for number in range(first, last + 1)]

    def _read_one(self, channel: int, tail: Tail, number: int) -> Record:
        place = tail.place_of(number)
        row = None if place is None else self._select(_SELECT_ROW, (row_of(place),))
        if place is None or row is None:
            raise CorruptRecordError(f"channel {channel}: record {number} is missing")
        try:
            kind, payload = record_at(place, self._open_payloads(row_of(place), *row))
            return Record(channel, number, RecordKind(kind), payload)
        except (CorruptRecordError, ValueError, TypeError) as error:
            raise CorruptRecordError(f"channel {channel}: record {number}: {error}") from error

    def _open_payloads(self, number: int, directory: bytes, payloads: bytes) -> bytes:
        return self._sealer.open(payloads, payloads_context(number, directory))

    def _select(self, query: str, values: tuple[object, ...]) -> tuple[Any, ...] | None:
        try:
            row: tuple[Any, ...] | None = self._usable().execute(query, values).fetchone()
        except sqlite3.Error as error:
            raise JournalError(f"the journal can't be read: {error}") from error
        return row

    def highest_sequence_number(self, channel: int) -> int:
        """See ``Journal``."""
        return self._tail(channel).highest

    def owner(self, channel: int) -> bytes:
        """See ``Journal``."""
        try:
            return self._owners.of(self._usable(), self._sealer, channel)
        except sqlite3.Error as error:
            raise JournalError(f"the journal can't be read: {error}") from error

    def owned(self, owner: bytes) -> int:
        """See ``Journal``."""
        return self._owners.count(owner)

    def load_snapshot(self, channel: int, criteria: SnapshotCriteria = LATEST) -> Snapshot | None:
        """See ``Journal``."""
        if criteria != LATEST and self._replaced:
            with self._transaction() as connection:
                self._delete_replaced(connection)
        row = self._select(
            "SELECT sequence_number, taken_at, payload FROM snapshots WHERE channel = ?"
            " AND sequence_number <= ? AND taken_at <= ? ORDER BY sequence_number DESC LIMIT 1",
            (channel, criteria.max_sequence_number, criteria.max_taken_at),
        )
        if row is None:
            return None
        number, taken_at, blob = row
        try:
            payload = self._sealer.open(blob, snapshot_context(channel, number, taken_at))
        except (CorruptRecordError, TypeError) as error:
            raise CorruptRecordError(f"channel {channel}: snapshot {number}: {error}") from error
        return Snapshot(channel, number, taken_at, payload)

    def recover(self, channel: int) -> Recovery:
        """See ``Journal``."""
        tail = self._tail(channel)
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
        records: list[Record] = []
        for number in range(tail.highest, covered, -1):
            records.append(self._read_one(channel, tail, number))
            # A whole state: nothing before it is of any use.
            if records[-1].kind is RecordKind.STATE:
                break
        records.reverse()
        return Recovery(snapshot, records, tail.highest, self.owner(channel))

    # --- Looking after the file -------------------------------------------------------------------

    def forget(self, channel: int) -> None:
        """See ``Journal``."""
        tail = self._index.tails.get(channel)
        if tail is not None and not tail.places:
            del self._index.tails[channel]

    def upkeep(self) -> bool:
        """See ``Journal``."""
        if self._wants_cleaning():
            self._clean()
        if self._since_checkpoint > _CHECKPOINT_AFTER:
            self._checkpoint()
        return self._wants_cleaning()

    def _wants_cleaning(self) -> bool:
        index = self._index
        # What can't be read must stay: it is all that tells that something is missing.
        return self._cleanable and not index.distrusted and index.dead > max(index.live, _MIN_DEAD)

    def _clean(self) -> None:
        """Remove the oldest rows of the log, after appending anew what is live in them."""
        index = self._index
        writer = RowWriter(index.next_row)
        removed = end = 0
        with self._transaction() as connection:
            for number, directory, payloads in connection.execute(
                "SELECT number, directory, payloads FROM log ORDER BY number LIMIT ?",
                (_CLEAN_ROWS,),
            ).fetchall():
                opened = self._sealer.open(directory, directory_context(number))
                entries = list(entries_of(number, opened))
                try:
                    self._keep(writer, number, directory, payloads, entries)
                except CorruptRecordError:
                    # Its channels are refused for as long as it is there, so there it stays.
                    self._cleanable = False
                    break
                removed += len(entries)
                end = number + 1
                if removed >= _CLEAN_RECORDS:
                    break
            connection.execute("DELETE FROM log WHERE number < ?", (end,))
            self._insert_rows(connection, writer)
        for place, channel, number, _ in writer.entries:
            if channel not in index.damaged:
                index.tails[channel].move(number, place)
        index.next_row = writer.next_row
        kept = len(writer.entries)
        index.stored += kept - removed
        self._records_deleted += removed - kept
        self._since_checkpoint += writer.size + removed * _PAGE_SIZE // 64

    def _keep(
        self,
        writer: RowWriter,
        row: int,
        directory: bytes,
        payloads: bytes,
        entries: list[Entry],
    ) -> None:
        """Append anew what of a row is live, or of a damaged channel; all of it or nothing."""
        index = self._index
        kept = [
            (place, channel, number)
            for place, channel, number, _ in entries
            if channel in index.damaged
            or ((tail := index.tails.get(channel)) and tail.place_of(number) == place)
        ]
        if not kept:
            return
        opened = self._open_payloads(row, directory, payloads)
        records = [record_at(place, opened) for place, _, _ in kept]
        for (_, channel, number), (kind, payload) in zip(kept, records, strict=True):
            writer.add(channel, number, kind, payload)

    def _checkpoint(self) -> None:
        """Move the WAL's content into the database, so that the WAL begins anew."""
        try:
            self._usable().execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            self._abandon()
            raise JournalError(f"the checkpoint failed: {error}") from error
        self._since_checkpoint = 0

    def statistics(self) -> JournalStatistics:
        """See ``Journal``. May be called from any thread: it reads counters and file sizes."""
        size = 0
        for suffix in ("", "-wal"):
            file = Path(f"{self._path}{suffix}")
            if file.exists():
                size += file.stat().st_size
        return JournalStatistics(
            commits=self._commits,
            records=self._records,
            record_bytes=self._record_bytes,
            snapshots=self._snapshots,
            snapshot_bytes=self._snapshot_bytes,
            records_deleted=self._records_deleted,
            snapshots_deleted=self._snapshots_deleted,
            bytes_on_disk=size,
        )

    def close(self) -> None:
        """See ``Journal``."""
        if self._closed:
            return
        self._closed = True
        if self._connection is not None:
            self._connection.close()
            self._connection = None
