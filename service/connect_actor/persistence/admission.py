"""What of a batch follows from what is stored, and what is left out: decided before any writing."""

from collections.abc import Callable
from dataclasses import dataclass, field

from connect_actor.persistence.contract import Batch, Record, RecordKind, Rejection, Snapshot
from connect_actor.persistence.log_rows import (
    SEQUENCE_MASK,
    draw_life,
    life_of,
    sequence_of,
    stored_number,
)
from connect_actor.persistence.sqlite.reader import SqliteReader

__all__ = ["Admitted", "admit"]


@dataclass(slots=True)
class Admitted:
    """What of a batch is to be written, and what is left out."""

    records: list[Record] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    """Of each record, as it is stored."""
    ended: set[int] = field(default_factory=set)
    """Channels whose end is among them."""
    more_channels: int = 0
    """Channels that begin with them, less those that end."""
    owners: list[tuple[int, int, bytes]] = field(default_factory=list)
    """Channel, life and owner."""
    snapshots: list[Snapshot] = field(default_factory=list)
    """The newest of each channel."""
    lives: list[int] = field(default_factory=list)
    """Of each snapshot's channel."""
    rejections: list[Rejection] = field(default_factory=list)


class _Heights:
    """How far each channel has come, within a batch, in numbers as they are stored."""

    def __init__(self, reader: SqliteReader, batch: Batch, random: Callable[[int], bytes]) -> None:
        self._reader = reader
        self._random = random
        self._owned = {channel for channel, _ in batch.owners}
        self.reached: dict[int, int] = {}
        self.refused: set[int] = set()

    def of(self, channel: int) -> int:
        """Return a channel's highest number; of one that is damaged 0, and refuse it."""
        height = self.reached.get(channel)
        if height is None:
            height = self._reader.height(channel)
            if height is None:
                self.refused.add(channel)
                self.reached[channel] = height = 0
            elif height:
                self.reached[channel] = height
            else:
                height = self.begin(channel)
        return height

    def begin(self, channel: int) -> int:
        """Let a channel begin, or begin again; return its number before its first record."""
        life = draw_life(self._random, owned=channel in self._owned)
        height = self.reached[channel] = stored_number(life, 0)
        return height


def admit(reader: SqliteReader, batch: Batch, random: Callable[[int], bytes]) -> Admitted:
    """Sort a batch out; change nothing.

    Args:
        reader: of the journal.
        batch: to be written.
        random: source of the lives of channels that begin.
    """
    admitted = Admitted()
    heights = _Heights(reader, batch, random)
    reached, refused = heights.reached, heights.refused
    records, numbers = admitted.records, admitted.numbers
    for record in batch.records:
        channel = record.channel
        height = heights.of(channel)
        if record.sequence_number != (height & SEQUENCE_MASK) + 1 or channel in refused:
            refused.add(channel)
            admitted.rejections.append(Rejection(record, sequence_of(height)))
            continue
        if not height & SEQUENCE_MASK:
            admitted.more_channels += 1
        reached[channel] = height = height + 1
        records.append(record)
        numbers.append(height)
        if record.kind is RecordKind.CLOSED:
            admitted.more_channels -= 1
            heights.begin(channel)
            admitted.ended.add(channel)
    newest: dict[int, Snapshot] = {}
    for snapshot in batch.snapshots:
        channel = snapshot.channel
        height = heights.of(channel)
        if channel not in refused and channel in admitted.ended:
            continue
        if channel in refused or snapshot.sequence_number > sequence_of(height):
            admitted.rejections.append(Rejection(snapshot, sequence_of(height)))
        else:
            other = newest.get(channel)
            least = other.sequence_number if other else reader.tail(channel).snapshot
            if snapshot.sequence_number >= least:
                newest[channel] = snapshot
    admitted.snapshots += newest.values()
    admitted.lives += [life_of(reached[channel]) for channel in newest]
    # Not of one that has ended in the same batch.
    admitted.owners += [
        (channel, life_of(height), owner)
        for channel, owner in batch.owners
        if channel not in refused and sequence_of(height := reached.get(channel, 0))
    ]
    return admitted
