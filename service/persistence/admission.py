"""What of a batch follows from what is stored, and what is left out: decided before any writing."""

from dataclasses import dataclass, field

from service.persistence.contract import Batch, Record, RecordKind, Rejection, Snapshot
from service.persistence.sqlite_reader import SqliteReader

__all__ = ["Admitted", "admit"]


@dataclass(slots=True)
class Admitted:
    """What of a batch is to be written, and what is left out."""

    records: list[Record] = field(default_factory=list)
    ended: set[int] = field(default_factory=set)
    """Channels whose end is among them."""
    more_channels: int = 0
    """Channels that begin with them, less those that end."""
    owners: list[tuple[int, bytes]] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)


class _Heights:
    """How far each channel has come, within a batch."""

    def __init__(self, reader: SqliteReader) -> None:
        self._reader = reader
        self.reached: dict[int, int] = {}
        self.refused: set[int] = set()

    def of(self, channel: int) -> int:
        """Return a channel's highest sequence number; of one that is damaged 0, and refuse it."""
        height = self.reached.get(channel)
        if height is None:
            stored = self._reader.height(channel)
            if stored is None:
                self.refused.add(channel)
            height = self.reached[channel] = stored or 0
        return height


def admit(reader: SqliteReader, batch: Batch) -> Admitted:
    """Sort a batch out; change nothing."""
    admitted = Admitted()
    heights = _Heights(reader)
    reached, refused = heights.reached, heights.refused
    for record in batch.records:
        channel = record.channel
        height = heights.of(channel)
        if record.sequence_number != height + 1 or channel in refused:
            refused.add(channel)
            admitted.rejections.append(Rejection(record, height))
            continue
        reached[channel] = height + 1
        if not height:
            admitted.more_channels += 1
        if record.kind is RecordKind.CLOSED:
            admitted.more_channels -= 1
            reached[channel] = 0
            admitted.ended.add(channel)
        admitted.records.append(record)
    for snapshot in batch.snapshots:
        channel = snapshot.channel
        height = heights.of(channel)
        if channel not in refused and channel in admitted.ended:
            continue
        if channel in refused or snapshot.sequence_number > height:
            admitted.rejections.append(Rejection(snapshot, height))
        else:
            admitted.snapshots.append(snapshot)
    # Not of one that has ended in the same batch.
    admitted.owners += [
        (channel, owner)
        for channel, owner in batch.owners
        if channel not in refused and reached.get(channel)
    ]
    return admitted
