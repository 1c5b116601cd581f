"""Channels in a journal, as a service writes them, for tests that have none."""

from connect_actor.persistence.contract import (
    Batch,
    Journal,
    Record,
    RecordKind,
    Snapshot,
)
from connect_actor.protocol.changes import encode_change
from tests.support.channels import NOW, Ends, make_ends

__all__ = ["StoredChannel"]


class StoredChannel:
    """One channel whose service's end writes what it does to a journal."""

    def __init__(self, journal: Journal, channel: int, owner: bytes = b"") -> None:
        self.journal = journal
        self.channel = channel
        self.number = 1
        self.ends: Ends = make_ends(channel)
        owners = [(channel, owner)] if owner else []
        established = Record(channel, 1, RecordKind.ESTABLISHED, b"")
        assert journal.commit(Batch([established], [self._snapshot()], owners)) == []

    def _snapshot(self) -> Snapshot:
        return Snapshot(self.channel, self.number, NOW, self.ends.service.encode())

    def send(self, messages: int = 1) -> None:
        for _ in range(messages):
            ends = self.ends
            _, change = ends.service.encrypt(b"down", now=NOW, random=ends.random)
            self.number += 1
            record = Record(self.channel, self.number, RecordKind.CHANGE, encode_change(change))
            assert self.journal.commit(Batch([record])) == []

    def snap(self) -> None:
        assert self.journal.commit(Batch(snapshots=[self._snapshot()])) == []
