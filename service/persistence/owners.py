"""The table of channels' owners in the SQLite journal.

A row holds the owner in clear, so that an owner's channels can be counted, and sealed for its
channel, which is what is believed: a row that was changed or moved from another channel does not
open. Channels without an owner have no row, and a journal that has none never looks; they are the
rest of all channels, which have a snapshot each.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable

from service.persistence.contract import CorruptRecordError, JournalError
from service.persistence.sealing import Sealer, owner_context

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
        owned: Iterable[tuple[int, bytes]],
    ) -> "Counter[bytes]":
        """Delete the rows of channels that end and insert those of new ones.

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
        for channel, owner in owned:
            connection.execute(
                "INSERT INTO owners VALUES (?, ?, ?)",
                (channel, owner, sealer.seal(owner, owner_context(channel))),
            )
            change[owner] += 1
        return change

    def settle(self, change: "Counter[bytes]", more_channels: int) -> None:
        """Count what a transaction has made durable, and so many channels more."""
        self._counts.update(change)
        self._channels += more_channels

    def of(self, connection: sqlite3.Connection, sealer: Sealer, channel: int) -> bytes:
        """Return a channel's owner; empty if it has none.

        Raises:
            CorruptRecordError: its row is damaged, or another channel's.
            JournalError: it can't be read.
        """
        if not self._counts:
            return b""
        try:
            row = connection.execute(
                "SELECT owner, seal FROM owners WHERE channel = ?", (channel,)
            ).fetchone()
        except sqlite3.Error as error:
            raise JournalError(f"the journal can't be read: {error}") from error
        if row is None:
            return b""
        try:
            owner = sealer.open(row[1], owner_context(channel))
        except CorruptRecordError as error:
            raise CorruptRecordError(f"channel {channel}: its owner: {error}") from error
        if owner != row[0]:
            raise CorruptRecordError(f"channel {channel}: its owner is not the one that was sealed")
        return owner
