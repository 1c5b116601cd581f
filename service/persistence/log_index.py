"""Where a channel's records lie in the log: the in-memory index of the SQLite journal.

Records are appended in arrival order, and an index on disk would cost a page for every record; so
the index is here, made anew by one scan when the journal is opened, and holds only channels that
have live records. A channel's live records are always consecutive: deletion takes a prefix.
"""

from array import array
from collections.abc import Iterable

from service.persistence.contract import MAX_SEQUENCE_NUMBER, RecordKind
from service.persistence.log_rows import SNAPSHOT_NOTE, Entry, stamp_of
from service.persistence.sealing import StateCipher

__all__ = ["GIVEN_UP", "HIGHEST_UNKNOWN", "NEWEST_UNKNOWN", "LogIndex", "Tail"]

NEWEST_UNKNOWN = "its newest records may be among those that can't be read"
GIVEN_UP = "it may have gone on after the backup that was restored: establish a new channel"

HIGHEST_UNKNOWN = MAX_SEQUENCE_NUMBER
"""In a mark instead of a channel's highest sequence number: the channel is given up."""


class Tail:
    """One channel's live records: those from ``first`` to ``highest``, and where they lie."""

    __slots__ = ("highest", "places", "snapshot", "state_cipher")

    def __init__(self, highest: int, snapshot: int) -> None:
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


class LogIndex:
    """The tails of all channels that are in memory."""

    def __init__(self) -> None:
        self.tails: dict[int, Tail] = {}
        self.stored = 0
        """Records and notes physically in the log."""
        self.live = 0
        """Records that a read can still show, and notes of snapshots that are the newest."""
        self.next_row = 1
        self.damaged: dict[int, str] = {}
        """Channels whose records don't join up, or of which that can't be told, and why."""
        self.distrusted = 0
        """The place before which records of any channel may be missing unseen; 0: nowhere."""
        self.vouched: set[int] = set()
        """Channels with a record at or behind that place, which tells how far they have come. Kept
        only if there is such a place; the log is not cleaned then, so the record stays."""

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

    def build(
        self,
        log: Iterable[Entry],
        marks: Iterable[tuple[int, int, int]],
        snapshots: Iterable[tuple[int, int, int]],
    ) -> None:
        """Make the index from what is stored.

        Args:
            log: all records that are listed, in the order of their places.
            marks: channel, highest deleted and highest sequence number, where those were noted.
            snapshots: channel, sequence number and time of its newest snapshot.
        """
        found: dict[int, dict[int, int]] = {}
        notes: dict[int, tuple[int, int]] = {}
        for place, channel, number, kind, length in log:
            self.stored += 1
            if kind == RecordKind.CLOSED:
                found.pop(channel, None)
                notes.pop(channel, None)
            elif kind == SNAPSHOT_NOTE:
                notes[channel] = (number, length)
            else:
                found.setdefault(channel, {})[number] = place
        newest = self._check_snapshots(notes, snapshots)
        noted = {channel: (to, highest) for channel, to, highest in marks if channel in found}
        for channel, numbers in found.items():
            if channel in self.damaged:
                self.live += len(numbers)
                continue
            if self.distrusted and max(numbers.values()) >= self.distrusted:
                self.vouched.add(channel)
            deleted_to, highest = noted.get(channel, (0, 0))
            self._build_tail(channel, numbers, newest.get(channel, 0), deleted_to, highest)

    def _check_snapshots(
        self,
        notes: dict[int, tuple[int, int]],
        snapshots: Iterable[tuple[int, int, int]],
    ) -> dict[int, int]:
        """Refuse every channel whose newest snapshot is not the one that the log tells of.

        Returns the newest one's sequence number by channel.
        """
        newest: dict[int, int] = {}
        for channel, number, taken_at in snapshots:
            newest[channel] = number
            if notes.pop(channel, None) != (number, stamp_of(taken_at)):
                self.damaged[channel] = "its newest snapshot is not the one that was taken last"
            self.live += 1
        for channel, (number, _) in notes.items():
            # A note of none follows a deletion.
            if number:
                self.damaged[channel] = "its newest snapshot is missing"
                self.live += 1
        return newest

    def _build_tail(
        self, channel: int, numbers: dict[int, int], snapshot: int, deleted_to: int, highest: int
    ) -> None:
        # A snapshot is a mark, too: recovery has no use for what it covers.
        covered = max(snapshot, deleted_to)
        live = sorted(number for number in numbers if number > covered)
        if not live and covered >= highest:
            return
        # All are different and behind what is covered: their count tells whether one is missing.
        if len(live) != max(highest, *live, covered + 1) - covered:
            # Its records stay stored, and are dead to everyone but whoever repairs the journal.
            self._refuse(channel, numbers, f"records are missing after {covered}")
            return
        if numbers[live[-1]] < self.distrusted:
            self._refuse(channel, numbers, NEWEST_UNKNOWN)
            return
        tail = self.tails[channel] = Tail(live[-1], snapshot)
        tail.places.extend(numbers[number] for number in live)
        self.live += len(live)

    def _refuse(self, channel: int, numbers: dict[int, int], reason: str) -> None:
        self.damaged[channel] = reason
        self.live += len(numbers)
