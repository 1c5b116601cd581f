"""The journal in memory: the measuring baseline, what the service does when persistence is free.

It keeps every promise of the contract but durability.
"""

from bisect import bisect_left, bisect_right, insort
from collections import Counter

from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.contract import (
    Batch,
    JournalStatistics,
    Record,
    RecordKind,
    Recovery,
    Rejection,
    Snapshot,
)

__all__ = ["MemoryJournal"]


class _Channel:
    """What is kept of one channel."""

    __slots__ = ("highest", "owner", "records", "snapshot")

    def __init__(self) -> None:
        self.highest = 0
        self.owner = b""
        self.records: dict[int, Record] = {}
        self.snapshot: Snapshot | None = None


class MemoryJournal:
    """See ``contract.Journal``."""

    def __init__(self) -> None:
        """Begin empty."""
        self._channels: dict[int, _Channel] = {}
        self._saved: list[int] = []
        """Ids of the channels that have a snapshot, in order."""
        self._owned: Counter[bytes] = Counter()
        self._commits = self._records = self._record_bytes = 0
        self._snapshots = self._snapshot_bytes = 0
        self._records_deleted = self._snapshots_deleted = 0

    def _channel(self, channel: int) -> _Channel:
        return self._channels.get(channel) or _Channel()

    def commit(self, batch: Batch) -> list[Rejection]:
        """See ``Journal``."""
        if not batch.records and not batch.snapshots:
            return []
        rejections: list[Rejection] = []
        refused: set[int] = set()
        ended: set[int] = set()
        for record in batch.records:
            kept = self._channels.setdefault(record.channel, _Channel())
            if record.channel in refused or record.sequence_number != kept.highest + 1:
                refused.add(record.channel)
                rejections.append(Rejection(record, kept.highest))
                continue
            self._records += 1
            self._record_bytes += len(record.payload)
            if record.kind is RecordKind.CLOSED:
                ended.add(record.channel)
                self._end(record.channel)
            else:
                self._owned[b""] += kept.highest == 0
                kept.records[record.sequence_number] = record
                kept.highest = record.sequence_number
        for channel, owner in batch.owners:
            if channel in self._channels and channel not in refused:
                self._channels[channel].owner = owner
                self._owned.update({owner: 1, b"": -1})
        for snapshot in batch.snapshots:
            highest = self._channel(snapshot.channel).highest
            if snapshot.channel in ended:
                continue
            if snapshot.channel in refused or snapshot.sequence_number > highest:
                rejections.append(Rejection(snapshot, highest))
                continue
            self._save(snapshot)
        self._commits += 1
        return rejections

    def _end(self, channel: int) -> None:
        ended = self._channels.pop(channel)
        self._owned[ended.owner] -= 1
        if ended.snapshot is not None:
            del self._saved[bisect_left(self._saved, channel)]

    def _save(self, snapshot: Snapshot) -> None:
        kept = self._channels[snapshot.channel]
        if kept.snapshot is None:
            insort(self._saved, snapshot.channel)
        elif snapshot.sequence_number < kept.snapshot.sequence_number:
            return
        else:
            self._snapshots_deleted += 1
        kept.snapshot = snapshot
        for number in [n for n in kept.records if n <= snapshot.sequence_number]:
            del kept.records[number]
            self._records_deleted += 1
        self._snapshots += 1
        self._snapshot_bytes += len(snapshot.payload)

    def highest_sequence_number(self, channel: int) -> int:
        """See ``Journal``."""
        return self._channel(channel).highest

    def owner(self, channel: int) -> bytes:
        """See ``Journal``."""
        return self._channel(channel).owner

    def owned(self, owner: bytes) -> int:
        """See ``Journal``."""
        return self._owned[owner]

    def channels(self, after: int, limit: int) -> list[int]:
        """See ``Journal``."""
        first = bisect_right(self._saved, after)
        return self._saved[first : first + limit]

    def saved_at(self, channel: int) -> int:
        """See ``Journal``."""
        snapshot = self._channel(channel).snapshot
        return 0 if snapshot is None else snapshot.taken_at

    def newest_save(self) -> int:
        """See ``Journal``."""
        kept = (self.saved_at(channel) for channel in self._saved)
        return max(kept, default=0)

    def recover(self, channel: int) -> Recovery:
        """See ``Journal``."""
        kept = self._channel(channel)
        return Recovery(kept.snapshot, list(kept.records.values()), kept.highest, kept.owner)

    def forget(self, channel: int) -> None:
        """See ``Journal``; here memory is all that is stored."""

    def renew(self) -> None:
        """See ``Journal``; nobody else can reach it."""

    def use_keys(self, keys: KeyRing) -> None:
        """See ``Journal``; nothing is sealed in memory."""

    def upkeep(self) -> bool:
        """See ``Journal``."""
        return False

    def statistics(self) -> JournalStatistics:
        """See ``Journal``."""
        return JournalStatistics(
            commits=self._commits,
            records=self._records,
            record_bytes=self._record_bytes,
            snapshots=self._snapshots,
            snapshot_bytes=self._snapshot_bytes,
            records_deleted=self._records_deleted,
            snapshots_deleted=self._snapshots_deleted,
            bytes_on_disk=0,
        )

    def close(self) -> None:
        """See ``Journal``."""
