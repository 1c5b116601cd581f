"""Bringing a journal of format 2 up to format 3, at its opening, within the opening's transaction.

Format 2 does not tell an entry that cleaning has moved from one that stands where it was written,
nor where its log begins, and its marks of deletion are not sealed. So nothing of it vouches for a
channel any more: all that is live is appended anew as moved, under the new epoch, and the rest
goes. Marks count only where they refuse.

A log with a row that can't be read or is missing is left as it is: the release that wrote it knows
better which channels it can serve. A channel that this one would refuse is given up.

The formats have different keys (``persistence.sealing``): what was sealed in one never
opens as the other, whatever number the file is given.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.contract import (
    MAX_SEQUENCE_NUMBER,
    CorruptRecordError,
    JournalVersionError,
)
from connect_actor.persistence.log_index import LogIndex
from connect_actor.persistence.log_rows import (
    GIVEN_UP_NOTE,
    MOVED,
    SNAPSHOT_NOTE,
    Entry,
    RowWriter,
    draw_life,
    entries_of,
    is_note,
    record_at,
    stamp_of,
    stored_number,
)
from connect_actor.persistence.sealing import (
    Sealer,
    canary_context,
    directory_context,
    owner_context,
    snapshot_context,
)
from connect_actor.persistence.sqlite.schema import add_row, make_tables, require_format

__all__ = ["OldJournal"]

_log = logging.getLogger(__name__)

_FORMAT = 2
_TABLES = ("writers", "log", "snapshots", "marks", "owners", "backup")
# Rows that are finished in memory before they are written.
_ROWS = 100


class OldJournal:
    """A journal of format 2, as it was read."""

    def __init__(
        self, connection: sqlite3.Connection, path: Path, keys: KeyRing, head: int
    ) -> None:
        """Read it; change nothing.

        Args:
            connection: to the file, within a transaction.
            path: of the file, for messages.
            keys: all master keys that it needs.
            head: number of the last row that was acknowledged; 0 if that is not known.

        Raises:
            JournalVersionError: it is a backup, its log is damaged, or a master key is missing.
        """
        self._connection = connection
        self._path = path
        self._sealer = Sealer(_FORMAT)
        self.strategy: str | None = None
        """Which wrote last."""
        if connection.execute("SELECT 1 FROM backup").fetchone() is not None:
            raise JournalVersionError(
                f"{path} is a backup of format {_FORMAT}: restore it with the release that made it"
            )
        self._know_epochs(keys)
        self._index = LogIndex()
        self._index.build(
            self._scan(),
            connection.execute(
                "SELECT channel, max(sequence_number), 0, taken_at FROM snapshots GROUP BY channel"
            ),
        )
        self.next_row = self._index.next_row
        """Number of the row behind the last one."""
        if self._index.distrusted or self.next_row <= head:
            raise JournalVersionError(
                f"{path} has format {_FORMAT}, and part of its log is missing or damaged: only the"
                " release that wrote it can serve what is still whole; or restore a backup"
            )

    def _know_epochs(self, keys: KeyRing) -> None:
        for epoch, strategy, key_id, salt, canary in self._connection.execute(
            "SELECT epoch, strategy, key_id, salt, canary FROM writers ORDER BY epoch"
        ):
            key = keys.find(key_id)
            try:
                if key is None:
                    raise JournalVersionError(
                        f"{self._path} was sealed under the master key {key_id.hex()}, which is"
                        " not given: give the one it was made with (sealing_key_file)"
                    )
                self._sealer.know_epoch(epoch, key, salt, strategy)
                self._sealer.open(canary, canary_context(epoch))
            # What a damaged page yields may be of any type.
            except (CorruptRecordError, TypeError, AttributeError):
                raise JournalVersionError(
                    f"{self._path} is damaged where it says who wrote it (epoch {epoch}), or is"
                    f" not of format {_FORMAT}"
                ) from None
            self.strategy = strategy

    def _scan(self) -> Iterator[Entry]:
        index = self._index
        expected: int | None = None
        for number, directory in self._connection.execute(
            "SELECT number, directory FROM log ORDER BY number"
        ):
            if expected not in (None, number):
                index.distrust_before(number)
            expected = index.next_row = number + 1
            try:
                opened = self._sealer.open(directory, directory_context(number))
            except CorruptRecordError:
                index.distrust_before(number)
                continue
            yield from entries_of(number, opened)

    def take_away(self) -> None:
        """Put its tables aside, and make those of a journal in their place."""
        for table in _TABLES:
            self._connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
        make_tables(self._connection)

    def bring_up(self, sealer: Sealer, random: Callable[[int], bytes]) -> None:
        """Write what it held into the new tables, and drop the old ones.

        Args:
            sealer: of the epoch that has begun.
            random: source of the channels' lives.

        Raises:
            JournalVersionError: there are tables that were never a journal's.
        """
        given_up = set(self._index.damaged)
        given_up.update(
            channel
            for (channel,) in self._connection.execute(
                "SELECT channel FROM old_marks WHERE highest = ?", (MAX_SEQUENCE_NUMBER,)
            )
        )
        owners = self._owners(given_up)
        lives = _Lives(random, owners)
        writer = RowWriter(self.next_row)
        for row in self._connection.execute(
            "SELECT number, directory, payloads FROM old_log ORDER BY number"
        ):
            self._move(writer, lives, given_up, *row)
            if len(writer.rows) >= _ROWS:
                self._write(sealer, writer)
        self._move_snapshots(sealer, writer, lives, given_up)
        for channel in given_up:
            writer.note(channel, 0, GIVEN_UP_NOTE)
        writer.finish()
        self._write(sealer, writer)
        for channel, owner in owners.items():
            if channel in lives and channel not in given_up:
                life = lives[channel]
                self._connection.execute(
                    "INSERT INTO owners VALUES (?, ?, ?, ?)",
                    (channel, life, owner, sealer.seal(owner, owner_context(channel, life))),
                )
        for table in _TABLES:
            self._connection.execute(f"DROP TABLE old_{table}")
        require_format(self._connection, self._path)
        _log.warning(
            "the journal was brought up from format %d: %d channels, %d of them given up",
            _FORMAT,
            len(lives.keys() | given_up),
            len(given_up),
        )

    def _write(self, sealer: Sealer, writer: RowWriter) -> None:
        for row in writer.rows:
            add_row(self._connection, sealer, *row)
        writer.rows.clear()
        writer.entries.clear()

    def _owners(self, given_up: set[int]) -> dict[int, bytes]:
        owners: dict[int, bytes] = {}
        for channel, owner, seal in self._connection.execute("SELECT * FROM old_owners"):
            try:
                owners[channel] = self._sealer.open(seal, owner_context(channel, 0))
            except CorruptRecordError:
                owners[channel] = b""
            if owners[channel] != owner:
                given_up.add(channel)
        return owners

    def _move(
        self,
        writer: RowWriter,
        lives: "_Lives",
        given_up: set[int],
        row: int,
        directory: bytes,
        payloads: bytes,
    ) -> None:
        listed = self._sealer.open(directory, directory_context(row))
        live = [
            entry
            for entry in entries_of(row, listed)
            if not is_note(entry[3])
            and (tail := self._index.tails.get(entry[1])) is not None
            and tail.place_of(entry[2]) == entry[0]
            and entry[1] not in given_up
        ]
        if not live:
            return
        try:
            opened = self._sealer.open_payloads(row, directory, payloads)
            records = [record_at(place, opened)[1] for place, *_ in live]
        except CorruptRecordError:
            given_up.update(channel for _, channel, *_ in live)
            return
        for (_, channel, number, kind, _), record in zip(live, records, strict=True):
            writer.add(channel, stored_number(lives[channel], number), kind, record, MOVED)

    def _move_snapshots(
        self, sealer: Sealer, writer: RowWriter, lives: "_Lives", given_up: set[int]
    ) -> None:
        """Move the newest of each channel: the index has held those against the log."""
        for channel, number, taken_at, blob in self._connection.execute(
            "SELECT channel, max(sequence_number), taken_at, payload FROM old_snapshots"
            " GROUP BY channel"
        ):
            if channel in given_up:
                continue
            try:
                opened = self._sealer.open(blob, snapshot_context(channel, number, taken_at))
            except CorruptRecordError:
                given_up.add(channel)
                continue
            life = lives[channel]
            stored = stored_number(life, number)
            writer.note(channel, stored, SNAPSHOT_NOTE | MOVED, stamp_of(taken_at))
            self._connection.execute(
                "INSERT INTO snapshots VALUES (?, ?, ?, ?, ?)",
                (
                    channel,
                    number,
                    life,
                    taken_at,
                    sealer.seal(opened, snapshot_context(channel, stored, taken_at)),
                ),
            )


class _Lives(dict[int, int]):
    """The channels' lives, drawn as they are asked for."""

    def __init__(self, random: Callable[[int], bytes], owners: dict[int, bytes]) -> None:
        super().__init__()
        self._random = random
        self._owners = owners

    def __missing__(self, channel: int) -> int:
        life = self[channel] = draw_life(self._random, owned=channel in self._owners)
        return life
