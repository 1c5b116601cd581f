"""Rows of the log that have been opened a moment ago.

A row holds a commit's records, of many channels. After a restart all of these are recovered at
about the same time, and each would open the row again: what a row yields is kept for the next one.

It is the content of records in clear, so it is kept no longer than it helps: ``rest`` drops
everything that has been of no use since the last one.
"""

from collections import OrderedDict

__all__ = ["MAX_BYTES", "OpenedRows"]

# Records of a change are about 10 bytes with their header: this holds those of 30,000 channels that
# are 50 records behind their snapshots each.
MAX_BYTES = 16 * 1024 * 1024


class OpenedRows:
    """The payloads of rows by number; up to ``MAX_BYTES`` in all, those opened last."""

    __slots__ = ("_rows", "_size", "_used", "get")

    def __init__(self) -> None:
        """Begin with none."""
        self._rows: OrderedDict[int, bytes] = OrderedDict()
        self.get = self._rows.get
        """Returns the payloads of a row, by its number, if they are kept. A bare look-up, since a
        recovery does one for each record: that it has, it says once, by ``used``."""
        self._size = 0
        self._used = False

    def __len__(self) -> int:
        """Return how many rows are kept."""
        return len(self._rows)

    def keep(self, number: int, payloads: bytes) -> None:
        """Keep a row that has just been opened, in place of those that were opened first."""
        if len(payloads) > MAX_BYTES:
            return
        self._rows[number] = payloads
        self._size += len(payloads)
        while self._size > MAX_BYTES:
            self._size -= len(self._rows.popitem(last=False)[1])

    def used(self) -> None:
        """Take note that something has been looked for."""
        self._used = True

    def rest(self) -> None:
        """Take note of a pause: drop everything, unless it was used since the last one."""
        if not self._used:
            self.clear()
        self._used = False

    def clear(self) -> None:
        """Drop everything."""
        self._rows.clear()
        self._size = 0
