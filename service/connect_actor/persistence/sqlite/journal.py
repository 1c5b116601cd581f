"""The SQLite journal: one file, one writer, records appended in arrival order.

Layout and why (the tables themselves are in ``persistence.sqlite.schema``):

- A commit touches the last pages of the log only, however many channels it holds.
- A snapshot is written in the transaction of the records it goes with, replaces the one before it
  there, and marks which records it covers, so that their deletion needs no write of its own.
- Covered records leave the file in ``upkeep``, as in a log-structured store: the oldest rows of the
  log are removed whole, after what is live in them has been appended anew at the log's end.
- A log with a row that can't be read is not cleaned any more: it is all that tells that something
  is missing. What cleaning appends anew is marked as moved, and with which row the log begins is
  sealed in the same transaction: neither an old entry nor a log without its oldest rows passes for
  one that shows how far a channel has come.

Erasure: a replaced snapshot is overwritten where it lay (``secure_delete``), and gone from the
write-ahead log, too, with the checkpoint that ``upkeep`` makes within ``ERASED_WITHIN`` seconds.
The rows of the log may stay longer: what is secret in them opens with the snapshot's key only
(``persistence.sealing``).

Durability: WAL with ``synchronous=FULL``; a commit has returned from fdatasync. After a failed
transaction the file is closed and read anew: an error of fsync may mean that pages are lost
(Rebello et al., ATC 2020), so nothing in memory is believed.

One writer: each opening is an *epoch*, and every transaction checks that its own is the newest one.
The lease (``persistence.sqlite.lease``) says when another opening may begin.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from connect_actor.files import sync
from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.admission import Admitted, admit
from connect_actor.persistence.contract import (
    Batch,
    CommitFailedError,
    CorruptRecordError,
    JournalError,
    JournalFencedError,
    JournalLockedError,
    JournalStatistics,
    JournalVersionError,
    RecordKind,
    Recovery,
    Rejection,
    Snapshot,
)
from connect_actor.persistence.log_index import Tail
from connect_actor.persistence.log_rows import (
    MAX_ROWS,
    SEALED_STATE,
    SNAPSHOT_NOTE,
    RowWriter,
    life_of,
    stamp_of,
    stored_number,
)
from connect_actor.persistence.sealing import (
    SALT_SIZE,
    STATE_KEY_SIZE,
    Sealer,
    StateCipher,
    snapshot_context,
    state_context,
)
from connect_actor.persistence.sqlite.cleaning import CleaningStep
from connect_actor.persistence.sqlite.lease import WriterLease, lease_path
from connect_actor.persistence.sqlite.owners import OwnerTable
from connect_actor.persistence.sqlite.reader import SqliteReader
from connect_actor.persistence.sqlite.resealing import Resealing
from connect_actor.persistence.sqlite.restoring import being_restored, finish_restore
from connect_actor.persistence.sqlite.schema import (
    FORMAT_VERSION,
    PAGE_SIZE,
    Epoch,
    FileKind,
    add_epoch,
    add_row,
    add_row_of_newest,
    connect,
    described,
    file_id,
    first_row,
    is_busy,
    know_epochs,
    last_row,
    newest_epoch,
    noted_file_id,
    require_format,
    seal_beginning,
    translated,
)
from connect_actor.persistence.sqlite.upgrading import OldJournal

__all__ = ["ERASED_WITHIN", "SqliteJournal"]

# The log is cleaned when more of it is dead than live, and at least this many records are.
_MIN_DEAD = 2_000
# Rows cleaned in one step at most, and records after which it ends: a few milliseconds of work.
_CLEAN_ROWS = 200
_CLEAN_RECORDS = 1_000
# Bytes written after which upkeep moves the WAL into the database, and after which a commit does.
_CHECKPOINT_AFTER = 4 * 1024 * 1024
_CHECKPOINT_AT_LATEST = 64 * 1024 * 1024
_COPY_BYTES = 1024 * 1024
# Milliseconds that opening waits for whoever reads the journal.
_READERS_LEAVE_WITHIN = 2_000
ERASED_WITHIN = 1.0
"""Seconds after which upkeep makes a checkpoint for the sake of what was deleted."""

_STATE = RecordKind.STATE
_CLOSED = int(RecordKind.CLOSED)


def _write_anew(wal: Path) -> None:
    """Write a file's bytes over themselves, and sync it.

    After a sync that failed, now or in an earlier life, the kernel may show pages that are not on
    disk and never will be, since it takes them for clean. Now they are dirty again.

    Raises:
        JournalError: it can't be done.
    """
    offset = 0
    try:
        file = os.open(wal, os.O_RDWR | os.O_CLOEXEC)
        try:
            while part := os.pread(file, _COPY_BYTES, offset):
                offset += os.pwrite(file, part, offset)
            os.fsync(file)
        finally:
            os.close(file)
    except FileNotFoundError:
        return
    except OSError as error:
        raise JournalError(f"{wal} can't be written anew: {error.strerror}") from error


def _identity(path: Path) -> tuple[int, int]:
    """Return device and inode of what lies there now, as far as other processes matter."""
    found = path.stat()
    return found.st_dev, found.st_ino


class SqliteJournal:
    """See the module's text for the layout and ``contract.Journal`` for what it promises."""

    def __init__(
        self,
        path: Path,
        *,
        keys: KeyRing,
        strategy: str,
        lease: float = 10.0,
        moved: bool = False,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """Open a journal, or make one.

        Args:
            path: the database file; ``-wal``, ``-shm`` and ``-lease`` lie beside it.
            keys: master keys, from which every sealing key is derived.
            strategy: name of the strategy that will write, noted in the journal.
            lease: seconds without a sign of life after which another writer may take over.
            moved: the operator's word that a file that is not the one that was written last was
                moved here, and that the other one is gone.
            clock: nanoseconds since the epoch, for notes.
            monotonic: nanoseconds, on a clock that all processes of this machine share.
            random: source of salts and keys.

        Raises:
            JournalLockedError: another process, or this one, has it open.
            JournalVersionError: it isn't a journal, is of another format, a backup or a copy, or
                was sealed under a master key that is not among the keys.
            JournalError: the file can't be opened.
        """
        self._path = path
        self._moved = moved
        self._keys = keys
        self._strategy = strategy
        self._clock = clock
        self._monotonic = monotonic
        self._random = random
        self._commits = self._records = self._record_bytes = 0
        self._snapshots = self._snapshot_bytes = 0
        self._records_deleted = self._snapshots_deleted = 0
        self._closed = self._fenced = False
        self._epoch = 0
        self._file_id = b""
        self._begins = 1
        self._salts: set[bytes] = set()
        """Of the epochs that this writer has begun, or tried to."""
        self.previous_strategy: str | None = None
        """Which strategy wrote last before this opening; None if the journal is new."""
        self._reader: SqliteReader | None = None
        finish_restore(path)
        self._lease = WriterLease(lease_path(path), lease, monotonic)
        try:
            self.previous_strategy = self._open()
        except BaseException:
            self._lease.release()
            raise

    # --- Opening and failing ----------------------------------------------------------------------

    def _open(self) -> str | None:
        """Open the file as its newest writer; return which strategy wrote before."""
        with translated(self._path):
            with self._lease.opening():
                self._make_file()
                connection, sealer, head, previous = self._connect()
            try:
                self._load(connection, sealer, head)
            except BaseException:
                connection.close()
                raise
        return previous

    def _make_file(self) -> None:
        """Make the file if there is none, and tell it from its copies."""
        try:
            # Readable by its owner only, and so are the files that SQLite makes beside it.
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            self._file_id = file_id(self._path)
            self._opened = _identity(self._path)
        except OSError as error:
            raise JournalError(f"{self._path} can't be opened: {error}") from error
        if being_restored(self._path):
            raise JournalLockedError(f"{self._path} is being restored: start again")

    def _connect(
        self, *, again: bool = False
    ) -> tuple[sqlite3.Connection, Sealer, int, str | None]:
        """Become the newest writer; return its connection and keys, the head, who wrote before."""
        connection = connect(self._path)
        try:
            return connection, *self._prepare(connection)
        except sqlite3.Error as error:
            connection.close()
            if again or not is_busy(error):
                raise
        except BaseException:
            connection.close()
            raise
        # A writer that was stopped within a transaction would hold SQLite's lock for ever.
        self._lease.end_silent()
        return self._connect(again=True)

    def _prepare(self, connection: sqlite3.Connection) -> tuple[Sealer, int, str | None]:
        connection.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            # It says so instead of failing, and would go on without.
            raise JournalError(f"{self._path} can't have a write-ahead log")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("BEGIN IMMEDIATE")
        # Nobody else can write from here on.
        _write_anew(Path(f"{self._path}-wal"))
        old = None
        if require_format(connection, self._path) != FORMAT_VERSION:
            old = OldJournal(connection, self._path, self._keys, self._lease.head)
        if self._lease.head and not newest_epoch(connection):
            raise JournalVersionError(
                f"{self._path} is empty or new, but {self._lease.head} rows were acknowledged:"
                " put the journal back, or give the service another data_dir"
            )
        self._succeed(connection)
        number, acknowledged = newest_epoch(connection) + 1, self._lease.head
        sealer = Sealer()
        if old is not None:
            begins, head, previous = old.next_row, old.next_row - 1, old.strategy
            old.take_away()
        else:
            begins, head, previous = self._known(connection, sealer)
        last = max(last_row(connection), begins - 1)
        if max(last, head) >= MAX_ROWS:
            raise JournalVersionError(
                f"{self._path} is damaged: no log has come to row {max(last, head)}"
            )
        self._begin_epoch(connection, sealer, number, max(last, head) + 1)
        seal_beginning(connection, sealer, begins)
        if _identity(self._path) != self._opened:
            raise JournalLockedError(f"{self._path} has been exchanged meanwhile: start again")
        if old is not None:
            old.bring_up(sealer, self._random)
        elif last < head:
            # What was acknowledged is missing. An empty row behind the gap says so from now on,
            # whatever becomes of the lease's file.
            add_row(connection, sealer, head + 1)
        # An earlier release deleted what a snapshot had replaced a commit later.
        connection.execute(
            "DELETE FROM snapshots AS old WHERE EXISTS (SELECT 1 FROM snapshots AS new"
            " WHERE new.channel = old.channel AND new.sequence_number > old.sequence_number)"
        )
        connection.execute("COMMIT")
        self._lease.renew(acknowledged)
        self._make_durable(connection)
        self._begins = begins
        return sealer, head, previous

    def _load(self, connection: sqlite3.Connection, sealer: Sealer, head: int) -> None:
        self._reader = SqliteReader(connection, sealer, self._begins, head)
        self._owners = OwnerTable(connection)
        self._owners.count_all(connection)
        self._since_checkpoint = 0
        self._erase_after: int | None = self._monotonic()
        self._cleanable = True
        self._clean_before = 0
        self._resealing = Resealing.of(connection, self._keys.sealing)

    def _known(self, connection: sqlite3.Connection, sealer: Sealer) -> tuple[int, int, str | None]:
        """Let the sealer open all that is stored.

        Returns the number of the row with which the log begins, that of the last one that was
        written, as far as that is known, and which strategy wrote before.
        """
        newest = know_epochs(connection, self._path, self._keys, sealer)
        if newest is None:
            return 1, 0, None
        begins = first_row(connection, self._path, sealer, FileKind.JOURNAL)
        if not self._moved and noted_file_id(connection, sealer) != self._file_id:
            raise JournalVersionError(
                f"{self._path} is a copy of the file that a service opened last, or was put back"
                " or moved to another file system. If the other one was or is used since, both use"
                " the same message keys. Only if its service was stopped before and has not run"
                " since, anywhere: connect-actor restore --nothing-written-since"
            )
        return begins, max(self._lease.head, newest.first_row - 1), newest.strategy

    def _make_durable(self, connection: sqlite3.Connection) -> None:
        """Move what the WAL holds into the database, and sync the directory, as SQLite may not."""
        connection.execute(f"PRAGMA busy_timeout = {_READERS_LEAVE_WITHIN}")
        (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy and self._lease.end_predecessors():
            (busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        connection.execute("PRAGMA busy_timeout = 0")
        if busy:
            raise JournalLockedError(f"{self._path} is being read: try again when that is done")
        try:
            sync(self._path.parent)
        except OSError as error:
            raise JournalError(f"{self._path.parent} can't be synced: {error}") from error

    def _succeed(self, connection: sqlite3.Connection) -> None:
        """Check that the newest writer is this one, or has gone."""
        newest = connection.execute(
            "SELECT epoch, salt FROM writers ORDER BY epoch DESC LIMIT 1"
        ).fetchone()
        if newest is None or newest[1] in self._salts:
            return
        if self._epoch:
            raise self._fence()
        if self._lease.held_by_another(newest[0]):
            raise JournalLockedError(
                f"{self._path} is in use by another service: a journal has one writer"
            )

    def _begin_epoch(
        self, connection: sqlite3.Connection, sealer: Sealer, number: int, first: int
    ) -> None:
        """Begin an epoch with this row of the log: all before it have been written."""
        salt = self._random(SALT_SIZE)
        self._salts.add(salt)
        key = self._keys.sealing
        epoch = Epoch(number, self._strategy, self._clock(), key.id, first)
        add_epoch(connection, sealer, epoch, key, salt, self._file_id)
        self._lease.take(number)
        self._epoch = number

    def _fence(self) -> JournalFencedError:
        self._fenced = True
        self._abandon()
        return JournalFencedError(
            f"{self._path} has been taken over by another service: this one writes no more"
        )

    def _usable(self) -> SqliteReader:
        """Return the open file, opening it anew if the last transaction failed."""
        if self._closed:
            raise JournalError("the journal is closed")
        if self._fenced:
            raise self._fence()
        if self._reader is None:
            self._open()
        if self._reader is None:
            raise JournalError("the journal could not be opened anew")
        return self._reader

    def _abandon(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            try:
                reader.connection.close()
            except sqlite3.Error:
                # The file is opened anew in any case, and its content decides.
                return

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One that ends with the block, begun as the newest writer."""
        with self._writing() as connection:
            connection.execute("BEGIN IMMEDIATE")
            if newest_epoch(connection) != self._epoch:
                raise self._fence()
            yield connection
            connection.execute("COMMIT")

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Believe nothing in memory after a failure."""
        connection = self._usable().connection
        try:
            yield connection
        except sqlite3.Error as error:
            self._abandon()
            message = f"the transaction failed: {described(error, self._path)}"
            raise CommitFailedError(message) from error
        except BaseException:
            self._abandon()
            raise

    # --- Writing ----------------------------------------------------------------------------------

    def commit(self, batch: Batch) -> list[Rejection]:
        """See ``Journal``."""
        reader = self._usable()
        if not batch.records and not batch.snapshots:
            self._require_newest(reader)
            return []
        admitted = admit(reader, batch, self._random)
        # Keys of the whole states behind each new snapshot.
        fresh = {
            snapshot.channel: (snapshot.sequence_number, self._random(STATE_KEY_SIZE))
            for snapshot in admitted.snapshots
        }
        writer = RowWriter(reader.index.next_row)
        self._put(reader, writer, admitted, fresh)
        notes = self._note(writer, admitted)
        writer.finish()
        size = writer.size
        apart = admitted.ended or admitted.snapshots or admitted.owners
        if len(writer.rows) == 1 and not apart:
            self._append(reader.sealer, writer.rows[0])
        else:
            size += self._commit_all(reader, writer, admitted, fresh)
        self._enter(reader, writer, admitted.snapshots)
        self._records -= notes
        self._lease.renew(reader.index.next_row - 1)
        self._commits += 1
        self._since_checkpoint += size + 2 * PAGE_SIZE
        if self._since_checkpoint > _CHECKPOINT_AT_LATEST:
            self._checkpoint()
        return admitted.rejections

    def _append(self, sealer: Sealer, row: tuple[int, bytes, bytes]) -> None:
        """Commit a row of the log by one statement: five would each wait for the interpreter."""
        with self._writing() as connection:
            if not add_row_of_newest(connection, sealer, self._epoch, *row):
                raise self._fence()

    def _commit_all(
        self,
        reader: SqliteReader,
        writer: RowWriter,
        admitted: Admitted,
        fresh: dict[int, tuple[int, bytes]],
    ) -> int:
        """Commit rows of the log and what goes with them; return the bytes of the latter."""
        size = 0
        with self._transaction() as connection:
            self._insert_rows(connection, reader.sealer, writer)
            for channel in admitted.ended:
                connection.execute("DELETE FROM snapshots WHERE channel = ?", (channel,))
                self._erase_soon()
            if admitted.snapshots:
                size = self._insert_snapshots(connection, reader.sealer, admitted, fresh)
            owned = self._owners.change(connection, reader.sealer, admitted.ended, admitted.owners)
        self._owners.settle(owned, admitted.more_channels)
        return size

    @staticmethod
    def _put(
        reader: SqliteReader,
        writer: RowWriter,
        admitted: Admitted,
        fresh: dict[int, tuple[int, bytes]],
    ) -> None:
        """Put records into rows, each whole state under the key of the snapshot before it."""
        for record, stored in zip(admitted.records, admitted.numbers, strict=True):
            channel, number, kind, payload = record
            if kind is not _STATE:
                writer.add(channel, stored, kind, payload)
                continue
            snapshot, key = fresh.get(channel, (number, b""))
            if snapshot < number:
                cipher: StateCipher | None = StateCipher(key)
            else:
                cipher = reader.state_cipher(channel, reader.tail(channel))
            if cipher is None:
                writer.add(channel, stored, kind, payload)
            else:
                sealed = cipher.seal(payload, state_context(channel, number))
                writer.add(channel, stored, SEALED_STATE, sealed)

    @staticmethod
    def _note(writer: RowWriter, admitted: Admitted) -> int:
        """Put down which snapshots are the newest of their channels; return how many."""
        for snapshot, life in zip(admitted.snapshots, admitted.lives, strict=True):
            number = stored_number(life, snapshot.sequence_number)
            writer.note(snapshot.channel, number, SNAPSHOT_NOTE, stamp_of(snapshot.taken_at))
        return len(admitted.snapshots)

    @staticmethod
    def _insert_rows(connection: sqlite3.Connection, sealer: Sealer, writer: RowWriter) -> None:
        writer.finish()
        for row in writer.rows:
            add_row(connection, sealer, *row)

    def _insert_snapshots(
        self,
        connection: sqlite3.Connection,
        sealer: Sealer,
        admitted: Admitted,
        fresh: dict[int, tuple[int, bytes]],
    ) -> int:
        rows = []
        for snapshot, life in zip(admitted.snapshots, admitted.lives, strict=True):
            channel, number, taken_at = (
                snapshot.channel,
                snapshot.sequence_number,
                snapshot.taken_at,
            )
            context = snapshot_context(channel, stored_number(life, number), taken_at)
            sealed = sealer.seal(fresh[channel][1] + snapshot.payload, context)
            rows.append((channel, number, life, taken_at, sealed))
        # No cursor is kept: one that an error's traceback holds would keep the lock past closing.
        replaced = connection.executemany(
            "DELETE FROM snapshots WHERE channel = ?", [row[:1] for row in rows]
        ).rowcount
        if replaced:
            self._snapshots_deleted += replaced
            self._erase_soon()
        connection.executemany("INSERT INTO snapshots VALUES (?, ?, ?, ?, ?)", rows)
        return sum(len(row[4]) for row in rows)

    def _enter(self, reader: SqliteReader, writer: RowWriter, snapshots: list[Snapshot]) -> None:
        """Take note of what a transaction has made durable."""
        index = reader.index
        tails = index.tails
        entries = writer.entries
        for place, channel, number, kind, _ in entries:
            if kind == SNAPSHOT_NOTE:
                continue
            if kind == _CLOSED:
                ended = tails.pop(channel, None)
                if ended is not None:
                    index.live -= len(ended.places) + (ended.snapshot > 0)
                continue
            tail = tails.get(channel)
            if tail is None:
                tail = tails[channel] = Tail(0, 0, life_of(number))
            tail.append(place)
            index.live += 1
        index.next_row = writer.next_row
        index.stored += len(entries)
        self._records += len(entries)
        self._record_bytes += writer.size
        for snapshot in snapshots:
            tail = reader.tail(snapshot.channel)
            index.live += tail.snapshot == 0
            tail.snapshot = snapshot.sequence_number
            tail.state_cipher = None
            index.live -= tail.delete_to(tail.snapshot)
            self._snapshots += 1
            self._snapshot_bytes += len(snapshot.payload)

    # --- Reading ----------------------------------------------------------------------------------

    def highest_sequence_number(self, channel: int) -> int:
        """See ``Journal``."""
        reader = self._usable()
        highest = reader.tail(channel).highest
        if not highest and reader.index.distrusted:
            raise CorruptRecordError(f"channel {channel}: it may be among what was lost")
        return highest

    def owner(self, channel: int) -> bytes:
        """See ``Journal``."""
        reader = self._usable()
        return self._owners.of(reader.connection, reader.sealer, channel, reader.life(channel))

    def owned(self, owner: bytes) -> int:
        """See ``Journal``."""
        return self._owners.count(owner)

    def channels(self, after: int, limit: int) -> list[int]:
        """See ``Journal``."""
        return self._usable().saved_channels(after, limit)

    def saved_at(self, channel: int) -> int:
        """See ``Journal``."""
        return self._usable().saved_at(channel)

    def newest_save(self) -> int:
        """See ``Journal``."""
        return self._usable().newest_save()

    def recover(self, channel: int) -> Recovery:
        """See ``Journal``."""
        recovery = self._usable().recover(channel)
        owner = self.owner(channel)
        return replace(recovery, owner=owner) if owner else recovery

    def forget(self, channel: int) -> None:
        """See ``Journal``."""
        if self._reader is not None:
            tails = self._reader.index.tails
            tail = tails.get(channel)
            if tail is not None and not tail.places:
                del tails[channel]

    # --- The lease and the keys -------------------------------------------------------------------

    def renew(self) -> None:
        """See ``Journal``."""
        reader = self._usable()
        self._require_newest(reader)
        self._lease.renew(reader.index.next_row - 1)

    def _require_newest(self, reader: SqliteReader) -> None:
        # Not by the lease, which a writer that was stopped may have written over.
        with self._writing():
            if newest_epoch(reader.connection) != self._epoch:
                raise self._fence()

    def use_keys(self, keys: KeyRing) -> None:
        """See ``Journal``."""
        reader = self._usable()
        sealer = Sealer()
        know_epochs(reader.connection, self._path, keys, sealer)
        changes = keys.sealing.id != self._keys.sealing.id
        self._keys = keys
        if changes:
            with self._transaction() as connection:
                first = reader.index.next_row
                self._begin_epoch(connection, reader.sealer, self._epoch + 1, first)
                seal_beginning(connection, reader.sealer, self._begins)
            self._lease.renew(reader.index.next_row - 1)
            self._resealing = Resealing.of(reader.connection, keys.sealing)

    # --- Looking after the file -------------------------------------------------------------------

    def upkeep(self) -> bool:
        """See ``Journal``."""
        reader = self._usable()
        reader.opened_rows.rest()
        if self._wants_cleaning(reader):
            self._clean(reader)
        elif self._resealing is not None:
            self._reseal(reader, self._resealing)
        if self._since_checkpoint > _CHECKPOINT_AFTER or (
            self._erase_after is not None and self._monotonic() >= self._erase_after
        ):
            self._checkpoint()
        return self._wants_cleaning(reader) or self._resealing is not None

    def _wants_cleaning(self, reader: SqliteReader) -> bool:
        index = reader.index
        # What can't be read must stay: it is all that tells that something is missing.
        return (
            self._cleanable
            and not index.distrusted
            and index.dead > max(index.live, _MIN_DEAD)
            and index.next_row > self._clean_before
        )

    def _clean(self, reader: SqliteReader) -> None:
        """Remove the oldest rows of the log, after appending anew what is live in them."""
        step = CleaningStep(reader, self._begins)
        # Nothing in the log needs overwriting, which would double what cleaning writes.
        reader.connection.execute("PRAGMA secure_delete = OFF")
        with self._transaction() as connection:
            step.do(connection, _CLEAN_ROWS, _CLEAN_RECORDS)
        reader.connection.execute("PRAGMA secure_delete = ON")
        self._cleanable = not step.damaged
        if step.begins == self._begins:
            # All that is left is the last row.
            self._clean_before = reader.index.next_row
        self._begins = step.begins
        self._records_deleted += step.enter()
        self._since_checkpoint += step.written.size + step.removed * PAGE_SIZE // 64
        self._lease.renew(reader.index.next_row - 1)

    def _reseal(self, reader: SqliteReader, resealing: Resealing) -> None:
        """Do one step of sealing anew what earlier master keys have sealed."""
        with self._transaction() as connection:
            self._since_checkpoint += resealing.step(connection, reader.sealer)
        self._erase_soon()
        if resealing.done:
            self._resealing = None

    def _erase_soon(self) -> None:
        if self._erase_after is None:
            self._erase_after = self._monotonic() + int(ERASED_WITHIN * 1e9)

    def _checkpoint(self) -> None:
        """Move the WAL's content into the database, and leave nothing of it behind."""
        try:
            (busy, *_) = (
                self._usable().connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            )
        except sqlite3.Error as error:
            self._abandon()
            message = f"the checkpoint failed: {described(error, self._path)}"
            raise JournalError(message) from error
        self._since_checkpoint = 0
        # Somebody who reads the journal keeps the WAL from ending: once more, later.
        self._erase_after = None
        if busy:
            self._erase_soon()

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
        self._abandon()
        self._lease.release()
