"""Rows of the log: the records of a commit side by side.

SQLite's price and sealing's are by the row, so a row holds many records. It has two parts, each
sealed as a whole: the records one behind another (*payloads*), and a list of whose they are
(*directory*). They are sealed apart, so that damage to the payloads leaves it known whom it
concerns; no damage can make a record anybody else's, or nobody's.

A record's *place* is the number of its row and its offset in the payloads, in one integer that
grows along the log.

Sequence numbers are stored with the *life* of their channel in front: a random number that is drawn
when the channel begins, since an id may be used again once its channel has ended. So what is left
of one life never passes for a part of another, whatever of the log between them is lost.
"""

import struct
from collections.abc import Callable, Iterator

from connect_actor.persistence.contract import CorruptRecordError, RecordKind

__all__ = [
    "GIVEN_UP_NOTE",
    "MAX_ROWS",
    "MOVED",
    "OWNED",
    "SEALED_STATE",
    "SEQUENCE_BITS",
    "SEQUENCE_MASK",
    "SNAPSHOT_NOTE",
    "STATE_SEALED_BEFORE",
    "Entry",
    "RowWriter",
    "draw_life",
    "entries_of",
    "first_place",
    "is_note",
    "life_of",
    "record_at",
    "row_of",
    "sequence_of",
    "stamp_of",
    "stored_number",
]

_NOTE = 0x40
SNAPSHOT_NOTE = _NOTE
"""Kind of an entry that is no record: it says which snapshot of its channel is the newest."""
GIVEN_UP_NOTE = _NOTE | 2
"""Kind of an entry that is no record: its channel is refused for good."""
MOVED = 0x20
"""Added to the kind of an entry that cleaning has appended anew. It first stood in a row that is
gone, before anything that is left: so it says nothing of how far its channel has come."""
SEALED_STATE = 0x90 | RecordKind.STATE
"""Kind of a whole state that is sealed on its own, under its channel's snapshot's key."""
STATE_SEALED_BEFORE = 0x80 | RecordKind.STATE
"""The same in the form before this one (``StateCipher.open_before``)."""

# Channel, life and sequence number, kind, length.
_ENTRY = struct.Struct(">QQBI")
# In front of a record: kind and length again, so that it can be read without the directory.
_HEADER = struct.Struct(">BI")
_HEADER_SIZE = _HEADER.size
_unpack_header = _HEADER.unpack_from

# Records begin within the first 64 KiB of a row (see below). That leaves rows 43 bits of a signed
# integer: at 10,000 rows a second, enough for 27 years.
_OFFSET_BITS = 20
MAX_ROWS = 1 << 42
"""Rows that no log comes to."""
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1

# A read opens a whole row, so rows are kept to about this; a record larger than that has its own.
_MAX_ROW_BYTES = 64 * 1024

# Of a snapshot's time as many bits go into its note as a length has.
_STAMP_MASK = (1 << 32) - 1

# Of a stored number: 40 bits are the sequence number, enough for a million a second for 12 days in
# a channel's one life, and those in front its life.
SEQUENCE_BITS = 40
SEQUENCE_MASK = (1 << SEQUENCE_BITS) - 1
_RANDOM_LIFE_BITS = 22
OWNED = 1 << _RANDOM_LIFE_BITS
"""Set in the life of a channel that has an owner."""

Entry = tuple[int, int, int, int, int]
"""One entry of a directory: place, channel, stored number, kind, length; or, of a note about a
snapshot, its stamp instead of a length."""


def draw_life(random: Callable[[int], bytes], *, owned: bool) -> int:
    """Return the life of a channel that begins."""
    drawn = int.from_bytes(random(3), "big") % OWNED
    return drawn | OWNED if owned else drawn


def stored_number(life: int, sequence_number: int) -> int:
    """Return how a sequence number is stored."""
    return life << SEQUENCE_BITS | sequence_number


def life_of(number: int) -> int:
    """Return the life in a stored number."""
    return number >> SEQUENCE_BITS


def sequence_of(number: int) -> int:
    """Return the sequence number in a stored number."""
    return number & SEQUENCE_MASK


def is_note(kind: int) -> bool:
    """Tell whether an entry of this kind has no record in the payloads."""
    return bool(kind & _NOTE)


def stamp_of(taken_at: int) -> int:
    """Return what a note says of the time at which a snapshot was taken."""
    return taken_at & _STAMP_MASK


def first_place(row: int) -> int:
    """Return the place before which everything is in earlier rows."""
    return row << _OFFSET_BITS


def row_of(place: int) -> int:
    """Return the number of the row that a place is in."""
    return place >> _OFFSET_BITS


class RowWriter:
    """Puts records side by side, in rows of a bearable size."""

    __slots__ = ("_directory", "_offset", "_payloads", "_row", "entries", "rows", "size")

    def __init__(self, first_row: int) -> None:
        """Begin with the row of this number."""
        self._row = first_row
        self._offset = 0
        self._directory: list[bytes] = []
        self._payloads: list[bytes] = []
        self.rows: list[tuple[int, bytes, bytes]] = []
        """Number, directory and payloads of each row that is finished, not yet sealed."""
        self.entries: list[Entry] = []
        """All records, in order."""
        self.size = 0
        """Bytes of the records."""

    @property
    def next_row(self) -> int:
        """Number of the row behind those that are finished."""
        return self._row

    def add(self, channel: int, number: int, kind: int, payload: bytes, mark: int = 0) -> None:
        """Put a record behind the others; ``mark`` is ``MOVED`` if it is not new."""
        length = len(payload)
        if self._offset + length > _MAX_ROW_BYTES and self._offset:
            self.finish()
        place = (self._row << _OFFSET_BITS) + self._offset
        self.entries.append((place, channel, number, kind | mark, length))
        self._directory.append(_ENTRY.pack(channel, number, kind | mark, length))
        self._payloads += (_HEADER.pack(kind, length), payload)
        self._offset += _HEADER.size + length
        self.size += length

    def note(self, channel: int, number: int, kind: int, stamp: int = 0) -> None:
        """Put down an entry that is no record; it takes no room in the payloads."""
        place = (self._row << _OFFSET_BITS) + self._offset
        self.entries.append((place, channel, number, kind, stamp))
        self._directory.append(_ENTRY.pack(channel, number, kind, stamp))

    def finish(self) -> None:
        """Finish the row in hand, if anything is in it."""
        if not self._directory:
            return
        self.rows.append((self._row, b"".join(self._directory), b"".join(self._payloads)))
        self._row += 1
        self._offset = 0
        self._directory, self._payloads = [], []


def entries_of(row: int, directory: bytes) -> Iterator[Entry]:
    """Yield what an opened directory lists.

    Raises:
        CorruptRecordError: it is no list of entries.
    """
    if len(directory) % _ENTRY.size:
        raise CorruptRecordError(f"a directory has {len(directory)} bytes")
    place = first_place(row)
    for channel, number, kind, length in _ENTRY.iter_unpack(directory):
        yield place, channel, number, kind, length
        if not kind & _NOTE:
            place += _HEADER.size + length


def record_at(place: int, payloads: bytes) -> tuple[int, bytes]:
    """Return kind and content of the record at a place in its row's opened payloads.

    Raises:
        CorruptRecordError: there is none.
    """
    offset = place & _OFFSET_MASK
    try:
        kind, length = _unpack_header(payloads, offset)
    except struct.error:
        raise CorruptRecordError("its row is shorter than it was") from None
    begin = offset + _HEADER_SIZE
    end = begin + length
    if end > len(payloads):
        raise CorruptRecordError("its row is shorter than it was")
    return kind, payloads[begin:end]
