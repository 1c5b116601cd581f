"""Where a channel's records lie in the log: the in-memory index of the SQLite journal.

Records are appended in arrival order, and an index on disk would cost a page for every record; so
the index is here, made anew by one scan when the journal is opened, and holds only channels that
have live records. A channel's live records are always consecutive: deletion takes a prefix.
"""

from array import array
from collections.abc import Iterable

from connect_actor.persistence.contract import RecordKind
from connect_actor.persistence.log_rows import (
    GIVEN_UP_NOTE,
    MOVED,
    SEQUENCE_BITS,
    SEQUENCE_MASK,
    SNAPSHOT_NOTE,
    Entry,
    is_note,
    stamp_of,
)
from connect_actor.persistence.sealing import StateCipher

__all__ = ["GIVEN_UP", "LogIndex", "Tail"]

_CLOSED = int(RecordKind.CLOSED)
_NEWEST_UNKNOWN = "its newest records may be among those that can't be read"
GIVEN_UP = (
    "it may have gone on after the backup that was restored, or was damaged when the journal was"
    " brought up: establish a new channel"
)


class Tail:
    """One channel's live records: those from ``first`` to ``highest``, and where they lie."""

    __slots__ = ("highest", "life", "places", "snapshot", "state_cipher")

    def __init__(self, highest: int, snapshot: int, life: int) -> None:
        self.life = life
        self.highest = highest
        """The channel's highest sequence number ever."""
        self.snapshot = snapshot
        """Sequence number of its newest snapshot; 0 if it has none."""
        self.state_cipher: StateCipher | None = None
        """What seals whole states behind the snapshot; None until it is needed."""
        self.places = array("q")
        """In the log, by sequence number, the last one being that of ``highest``."""

    @property
    def first(self) -> int:
        """Sequence number of the first live record; ``highest`` plus 1 if there is none."""
        return self.highest - len(self.places) + 1

    def append(self, place: int) -> None:
        """Take note of the next record."""
        self.highest += 1
        self.places.append(place)

    def place_of(self, sequence_number: int) -> int | None:
        """Return where a record lies, or None if it is not live."""
        offset = sequence_number - self.first
        return self.places[offset] if 0 <= offset < len(self.places) else None

    def move(self, sequence_number: int, place: int) -> None:
        """Take note that a live record lies elsewhere now."""
        self.places[sequence_number - self.first] = place

    def delete_to(self, sequence_number: int) -> int:
        """Drop records up to and with this one; return how many were live."""
        dropped = min(max(sequence_number - self.first + 1, 0), len(self.places))
        del self.places[:dropped]
        return dropped


class _Found:
    """What the log tells of one channel's life, while it is scanned."""

    __slots__ = ("entries", "life", "note", "numbers", "original")

    def __init__(self, life: int) -> None:
        self.life = life
        self.entries = 0
        self.numbers: dict[int, int] = {}
        """Places of records by their sequence numbers."""
        self.original = 0
        """Place of the last record that cleaning has not moved: the channel came so far there."""
        self.note = (0, 0)
        """Sequence number and stamp of the newest snapshot."""


class LogIndex:
    """The tails of all channels that are in memory."""

    def __init__(self) -> None:
        self.tails: dict[int, Tail] = {}
        self.stored = 0
        """Records and notes physically in the log."""
        self.live = 0
        """Records that a read can still show, and notes that still say something."""
        self.next_row = 1
        self.damaged: dict[int, str] = {}
        """Channels whose records don't join up, or of which that can't be told, and why."""
        self.distrusted = 0
        """The place before which records of any channel may be missing unseen; 0: nowhere."""

    @property
    def live_records(self) -> int:
        """Records that a read can still show."""
        return sum(len(tail.places) for tail in self.tails.values())

    @property
    def dead(self) -> int:
        """Of what is physically in the log, how much is of no more use."""
        return self.stored - self.live

    def distrust_before(self, place: int) -> None:
        """Take note that before this place records of any channel may be missing unseen."""
        self.distrusted = max(self.distrusted, place)

    def build(self, log: Iterable[Entry], snapshots: Iterable[tuple[int, int, int, int]]) -> None:
        """Make the index from what is stored.

        Args:
            log: all records that are listed, in the order of their places.
            snapshots: channel, sequence number, life and time of its newest snapshot.
        """
        known = self._read(log)
        newest: dict[int, int] = {}
        for channel, number, life, taken_at in snapshots:
            found = known.setdefault(channel, _Found(life))
            if (found.life, *found.note) == (life, number, stamp_of(taken_at)):
                newest[channel] = number
            else:
                self.damaged.setdefault(
                    channel, "its newest snapshot is not the one that was taken last"
                )
        for channel, found in known.items():
            # What can't be read may have held anybody's records. A channel whose record stands
            # behind it has come just as far as it says there; of the others nobody can tell.
            if found.original < self.distrusted:
                self.damaged[channel] = _NEWEST_UNKNOWN
            if found.note[0] and channel not in newest:
                self.damaged.setdefault(channel, "its newest snapshot is missing")
            if channel in self.damaged:
                # They stay stored, and are dead to everyone but whoever repairs the journal.
                self.live += found.entries
            else:
                self._build_tail(channel, found, newest.get(channel, 0))

    def _read(self, log: Iterable[Entry]) -> dict[int, _Found]:
        """Return what the log tells of the channels that have not ended."""
        known: dict[int, _Found] = {}
        for place, channel, number, kind, length in log:
            self.stored += 1
            # As ``life_of`` and ``sequence_of``, of which a call would be half of the work here.
            life, sequence_number = number >> SEQUENCE_BITS, number & SEQUENCE_MASK
            moved = kind & MOVED
            kind ^= moved  # noqa: PLW2901 - without the mark
            found = known.get(channel)
            if found is None or found.life != life:
                if found is not None and moved:
                    # Of an earlier life: cleaning moves what is older than all that it leaves.
                    continue
                # If there was an earlier life, its end is among what is lost.
                found = known[channel] = _Found(life)
            found.entries += 1
            if kind == _CLOSED:
                del known[channel]
            elif kind == SNAPSHOT_NOTE:
                found.note = (sequence_number, length)
            elif kind == GIVEN_UP_NOTE:
                self.damaged[channel] = GIVEN_UP
                self.live += 1
                del known[channel]
            elif is_note(kind):
                self.damaged[channel] = "its log holds a note that this release does not know"
                self.live += 1
                del known[channel]
            else:
                found.numbers[sequence_number] = place
                if not moved:
                    found.original = place
        return known

    def _build_tail(self, channel: int, found: _Found, snapshot: int) -> None:
        self.live += snapshot > 0
        numbers = found.numbers
        # Recovery has no use for what the snapshot covers.
        live = sorted(number for number in numbers if number > snapshot)
        if not live:
            return
        # All are different and behind the snapshot: their count tells whether one is missing.
        if len(live) != live[-1] - snapshot:
            self.damaged[channel] = f"records are missing after {snapshot}"
            self.live += len(numbers)
            return
        tail = self.tails[channel] = Tail(live[-1], snapshot, found.life)
        tail.places.extend(numbers[number] for number in live)
        self.live += len(live)
