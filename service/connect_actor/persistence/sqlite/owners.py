"""The table of channels' owners in the SQLite journal.

A row holds the owner in clear, so that an owner's channels can be counted, and sealed for its
channel's life, which is what is believed: a row that was changed, moved from another channel or
kept from an earlier life of this one does not open. The life itself tells that there is an owner
(``OWNED``), so a row that is missing is noticed. Channels without an owner have none, and are
looked for all the same, so that another's channel takes no longer than one that is not there; a
journal without any owner never looks. Channels without an owner are the rest of all channels, which
have a snapshot each.
"""

import sqlite3
import struct
from collections import Counter
from collections.abc import Iterable

from connect_actor.persistence.contract import CorruptRecordError, JournalError
from connect_actor.persistence.log_rows import OWNED
from connect_actor.persistence.sealing import Sealer, owner_context

__all__ = ["OwnerTable"]


class OwnerTable:
    """Used on the journal's thread; ``count`` on any."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Count what the table holds."""
        self._counts = Counter[bytes](
            dict(connection.execute("SELECT owner, count(*) FROM owners GROUP BY owner"))
        )
        self._channels = 0

    def count_all(self, connection: sqlite3.Connection) -> None:
        """Count the channels, too, each of which must have no more than one snapshot."""
        (self._channels,) = connection.execute("SELECT count(*) FROM snapshots").fetchone()

    def count(self, owner: bytes) -> int:
        """Return how many channels an owner has; of no owner: how many have none."""
        return self._counts[owner] if owner else self._channels - self._counts.total()

    def change(
        self,
        connection: sqlite3.Connection,
        sealer: Sealer,
        ended: Iterable[int],
        owned: Iterable[tuple[int, int, bytes]],
    ) -> "Counter[bytes]":
        """Delete the rows of channels that end and insert those of new ones: id, life, owner.

        Within a transaction: what it returns goes to ``settle`` once that is durable.
        """
        change = Counter[bytes]()
        if self._counts:
            for channel in ended:
                change.subtract(
                    owner
                    for (owner,) in connection.execute(
                        "DELETE FROM owners WHERE channel = ? RETURNING owner", (channel,)
                    ).fetchall()
                )
        for channel, life, owner in owned:
            connection.execute(
                "INSERT INTO owners VALUES (?, ?, ?, ?)",
                (channel, life, owner, sealer.seal(owner, owner_context(channel, life))),
            )
            change[owner] += 1
        return change

    def settle(self, change: "Counter[bytes]", more_channels: int) -> None:
        """Count what a transaction has made durable, and so many channels more."""
        self._counts.update(change)
        self._channels += more_channels

    def of(
        self, connection: sqlite3.Connection, sealer: Sealer, channel: int, life: int | None
    ) -> bytes:
        """Return a channel's owner; empty if it has none.

        Args:
            connection: to the journal.
            sealer: knows all epochs.
            channel: whose.
            life: of the channel; None if that is not known, since the channel is damaged: then
                whoever its row names is told so.

        Raises:
            CorruptRecordError: its row is missing or damaged, or another channel's.
            JournalError: it can't be read.
        """
        owned = life is None or life & OWNED
        if not owned and not self._counts:
            return b""
        try:
            row = connection.execute(
                "SELECT life, owner, seal FROM owners WHERE channel = ?", (channel,)
            ).fetchone()
        except sqlite3.Error as error:
            raise JournalError(f"the journal can't be read: {error}") from error
        if not owned or (row is None and life is None):
            return b""
        if row is None or life not in (None, row[0]):
            raise CorruptRecordError(f"channel {channel}: its owner: the row is missing")
        try:
            owner = sealer.open(row[2], owner_context(channel, row[0]))
        except (CorruptRecordError, TypeError, struct.error) as error:
            raise CorruptRecordError(f"channel {channel}: its owner: {error}") from error
        if owner != row[1]:
            raise CorruptRecordError(f"channel {channel}: its owner is not the one that was sealed")
        return owner
