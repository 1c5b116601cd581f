"""Verifying a journal: that every part of it opens in its place, and every channel comes back.

A channel is whole if its newest snapshot and the records after it open, join up and add up to a
session: it is brought back here as a service would, by the same code, so what is said of it is what
a service would do. What no read needs any more (dead records, in rows that wait for cleaning) is
opened, too: damage there is a disk
that fails.

Memory: the index that a service has as well; whatever else is opened is dropped again.
"""

from dataclasses import dataclass, field
from pathlib import Path

from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.contract import CorruptRecordError, JournalError
from connect_actor.persistence.log_rows import MOVED, entries_of, is_note, record_at
from connect_actor.persistence.recovery import rebuild
from connect_actor.persistence.sealing import directory_context
from connect_actor.persistence.sqlite.looking import View, look
from connect_actor.persistence.sqlite.owners import OwnerTable
from connect_actor.persistence.sqlite.reader import SqliteReader
from connect_actor.persistence.sqlite.schema import epochs_of, last_row, reading

__all__ = ["Findings", "Verification", "verify"]

# Of SQLite's own check: more of the same tells no more.
_MAX_FILE_PROBLEMS = 100


@dataclass(slots=True)
class Findings:
    """What is wrong: all of it is counted, the first of it described."""

    limit: int | None
    """How many are described; None for all."""
    count: int = 0
    described: list[str] = field(default_factory=list)

    def add(self, description: str) -> None:
        """Take note of one more."""
        self.count += 1
        if self.limit is None or len(self.described) < self.limit:
            self.described.append(description)


@dataclass(slots=True)
class Verification:
    """What was looked at, and what is wrong with it."""

    channels: Findings
    """Those that don't come back, and why."""
    log: Findings
    """Rows that are missing or don't open."""
    snapshots: Findings
    """Those that don't open."""
    file: Findings
    """Whatever concerns the file as a whole."""
    is_backup: bool = False
    rows: int = 0
    records: int = 0
    records_live: int = 0
    snapshots_seen: int = 0
    epochs: int = 0
    key_ids: list[str] = field(default_factory=list)
    last_row: int = 0
    acknowledged_row: int = 0
    """The last one, says the lease; 0 if that is not known."""
    channels_seen: int = 0
    channels_served: int = 0
    """Those that a service would serve, with all that was acknowledged; it refuses the others."""
    channels_given_up: int = 0
    """Left behind on purpose, when an older backup was restored."""

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not any(part.count for part in (self.channels, self.log, self.snapshots, self.file))


def verify(path: Path, keys: KeyRing, *, limit: int | None) -> Verification:
    """Walk all of a journal as it is now.

    Args:
        path: the database file; a service may be writing it.
        keys: all master keys that it needs.
        limit: how many findings of each sort are described; None for all.

    Raises:
        JournalError: the file can't be opened.
        JournalVersionError: it isn't a journal, or a master key is missing.
    """
    found = Verification(Findings(limit), Findings(limit), Findings(limit), Findings(limit))
    with look(path, keys) as view:
        try:
            _walk(view, found)
        except JournalError as error:
            found.file.add(str(error))
    return found


def _walk(view: View, found: Verification) -> None:
    with reading(view.path):
        for (problem,) in view.connection.execute(f"PRAGMA integrity_check({_MAX_FILE_PROBLEMS})"):
            if problem != "ok":
                found.file.add(f"SQLite's integrity check: {problem}")
        epochs = epochs_of(view.connection)
        found.epochs = len(epochs)
        found.key_ids = sorted({epoch.key_id.hex() for epoch in epochs})
        found.is_backup = view.is_backup
        found.last_row = last_row(view.connection)
        found.acknowledged_row = view.lease.head
        if found.last_row < view.lease.head:
            found.file.add(
                f"the log ends with row {found.last_row}, but row {view.lease.head} was"
                " acknowledged: this is an older copy, or its newest part is lost"
            )
        elif max(found.last_row, view.first_row - 1) < view.head:
            found.file.add(
                f"the log ends with row {found.last_row}, but row {view.head} was written before"
                " the journal was opened last: its newest part is lost"
            )
        reader = view.read()
        _walk_log(view, reader, found)
        _walk_snapshots(reader, found)
        _walk_channels(reader, found)


def _walk_log(view: View, reader: SqliteReader, found: Verification) -> None:
    expected = view.first_row
    for number, directory, payloads in view.connection.execute(
        "SELECT number, directory, payloads FROM log ORDER BY number"
    ):
        if number < view.first_row:
            found.log.add(f"row {number} does not belong here: the log begins with {expected}")
            continue
        if number != expected:
            found.log.add(f"rows {expected} to {number - 1} are missing")
        expected = number + 1
        found.rows += 1
        try:
            listed = view.sealer.open_row(number, directory, directory_context(number))
            entries = list(entries_of(number, listed))
        except CorruptRecordError as error:
            found.log.add(f"row {number}: directory: {error}")
            continue
        records = [entry for entry in entries if not is_note(entry[3])]
        found.records += len(records)
        try:
            opened = reader.open_payloads(number, directory, payloads)
            wrong = sum(
                record_at(place, opened)[0] != kind & ~MOVED for place, _, _, kind, _ in records
            )
        except CorruptRecordError as error:
            channels = {channel for _, channel, *_ in records}
            found.log.add(f"row {number}: payloads of {len(channels)} channels: {error}")
            continue
        if wrong:
            found.log.add(f"row {number}: {wrong} records are of another kind than listed")


def _walk_snapshots(reader: SqliteReader, found: Verification) -> None:
    for row in reader.connection.execute(
        "SELECT channel, life, sequence_number, taken_at, payload FROM snapshots"
    ):
        found.snapshots_seen += 1
        try:
            reader.open_snapshot(*row)
        except CorruptRecordError as error:
            found.snapshots.add(str(error))


def _walk_channels(reader: SqliteReader, found: Verification) -> None:
    found.records_live = reader.index.live_records
    given_up = reader.given_up()
    owners = OwnerTable(reader.connection)
    found.channels_given_up = len(given_up)
    for channel in reader.channels():
        if channel in given_up:
            continue
        found.channels_seen += 1
        try:
            if rebuild(reader.recover(channel)) is None:
                raise CorruptRecordError(f"channel {channel}: it has no session")  # noqa: TRY301
            owners.of(reader.connection, reader.sealer, channel, reader.life(channel))
        except CorruptRecordError as error:
            found.channels.add(str(error))
        else:
            found.channels_served += 1
        # Nor keep what was looked up for it: there may be more channels than fit into memory.
        reader.index.tails.pop(channel, None)
