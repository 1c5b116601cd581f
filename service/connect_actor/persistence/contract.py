"""The journal contract: what a backend promises, and the values that cross it.

Every backend passes the one suite in ``tests/persistence/journal_conformance.py``, which ports the
journal and snapshot-store checks of Akka's persistence TCK.

Promises, whatever the backend:

1. ``commit`` is all or nothing and durable when it returns. Several channels' records share one.
2. A channel's sequence numbers are gapless from 1 and unique; the journal itself refuses any
   other write, so a stale second writer can't slip a record in.
3. A snapshot takes the place of the channel's earlier one and of the records up to it, in the
   transaction that writes it. That never lowers the channel's highest sequence number.
4. What is read back is what was written, bit for bit, or ``CorruptRecordError``: never something
   else, and never silently less.
5. Only one writer at a time has a journal. One that stood still for longer than its lease may be
   replaced; the journal itself refuses whatever it still wants to write.
6. A channel's owner is durable in the transaction of its first record, and gone with its end.

A journal is synchronous and used from one thread at a time (the committer's).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, Protocol

from connect_actor.keys.keyring import KeyRing

__all__ = [
    "MAX_SEQUENCE_NUMBER",
    "Batch",
    "CommitFailedError",
    "CorruptRecordError",
    "Journal",
    "JournalError",
    "JournalFencedError",
    "JournalHangsError",
    "JournalLockedError",
    "JournalStatistics",
    "JournalVersionError",
    "Record",
    "RecordKind",
    "Recovery",
    "Rejection",
    "Snapshot",
]

# The largest integer that every backend can hold (SQLite's INTEGER is a signed 64-bit one).
MAX_SEQUENCE_NUMBER = 2**63 - 1


class JournalError(Exception):
    """Root of what a journal raises. None of these carries a payload or a key."""


class CommitFailedError(JournalError):
    """The transaction failed and its outcome is unknown: none, or all, of it may be durable."""


class CorruptRecordError(JournalError):
    """A stored record or snapshot is not what was written, or one is missing in between."""


class JournalHangsError(JournalError):
    """The journal does not answer, so it can't be closed either."""


class JournalLockedError(JournalError):
    """Another writer has this journal, and is alive."""


class JournalFencedError(JournalError):
    """Another writer has taken the journal over; what was to be written is known not to be."""


class JournalVersionError(JournalError):
    """This service can't use the journal: its format, its sealing key, or that it is a backup."""


class RecordKind(IntEnum):
    """How a record's payload is to be read. The numbers are stored: never reuse one."""

    STATE = 1
    """A whole session: recovery starts anew from it."""
    CHANGE = 2
    """One change: recovery applies it to the session before it."""
    CLOSED = 3
    """The channel has ended. Its commit erases all that the journal holds of the channel, itself
    included, in the same transaction; the id may be used again, from sequence number 1."""
    ESTABLISHED = 4
    """The channel begins. Its session is the snapshot that the same transaction holds, so that it
    can be erased as snapshots are; the payload is empty."""
    CHANGES = 5
    """Several changes that met in one commit, as runs: recovery applies them in order."""


class Record(NamedTuple):
    """One entry of a channel's history. ``payload`` is plaintext; it never shows in a repr.

    A tuple, since one is made for every message: a frozen dataclass takes four times as long.
    """

    channel: int
    sequence_number: int
    kind: RecordKind
    payload: bytes

    def __repr__(self) -> str:
        return (
            f"Record(channel={self.channel}, sequence_number={self.sequence_number},"
            f" kind={self.kind!r})"
        )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A whole session as it was after the record ``sequence_number``."""

    channel: int
    sequence_number: int
    taken_at: int
    """Microseconds since the epoch, by settled time (``clock``)."""
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one transaction makes durable: records in order, then snapshots."""

    records: Sequence[Record] = ()
    snapshots: Sequence[Snapshot] = ()
    owners: Sequence[tuple[int, bytes]] = ()
    """Channels whose first record is in the batch, each with its owner: 16 bytes that stand for a
    principal. A channel that nobody in particular owns is not among them."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A part of a batch that is known not to be written, while the rest of the batch is."""

    entry: Record | Snapshot
    highest: int
    """The channel's highest sequence number, which the record's does not follow, or which the
    snapshot's is beyond; 0 for a channel whose records are damaged."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """All that is needed to bring a channel back: its newest snapshot and the records after it."""

    snapshot: Snapshot | None
    records: Sequence[Record]
    highest_sequence_number: int
    """0 if the journal knows nothing of the channel."""
    owner: bytes = b""
    """Who established the channel; empty if nobody in particular."""


@dataclass(frozen=True, slots=True)
class JournalStatistics:
    """Figures since the journal was opened, but for those said to be current."""

    commits: int
    records: int
    record_bytes: int
    """Bytes of record payloads before sealing."""
    snapshots: int
    snapshot_bytes: int
    """Bytes of snapshot payloads before sealing."""
    records_deleted: int
    """Records that are physically gone."""
    snapshots_deleted: int
    bytes_on_disk: int
    """Current size of the journal's files; 0 for one that has none."""


class Journal(Protocol):
    """See the module's text for what holds of every implementation."""

    def commit(self, batch: Batch) -> list[Rejection]:
        """Make a batch durable.

        Returns:
            What was left out: records whose sequence number is not the channel's highest plus one
            (a rejected record takes later ones of its channel with it), snapshots of a channel
            with a rejected record or with a sequence number beyond the channel's highest, and all
            of a channel whose records are damaged.

        A snapshot of a channel that ends in the same batch is not kept, nor is one that is older
        than another of its channel; neither is a rejection.

        An empty batch only makes sure that this writer still has the journal.

        Raises:
            CommitFailedError: the outcome of the whole batch is unknown.
            JournalFencedError: nothing of it is written, and nothing ever will be by this writer.
        """

    def highest_sequence_number(self, channel: int) -> int:
        """Return the highest sequence number ever committed for a channel, or 0.

        Raises:
            CorruptRecordError: it is not known, and so much is lost that it may have been.
        """

    def owner(self, channel: int) -> bytes:
        """Return a channel's owner; empty if it has none, or there is no such channel.

        Raises:
            CorruptRecordError: what is stored of it is damaged.
        """

    def owned(self, owner: bytes) -> int:
        """Return how many channels an owner has; of no owner: how many have none.

        May be called from any thread.
        """

    def channels(self, after: int, limit: int) -> list[int]:
        """Return the first channels that have a snapshot, in ascending order of their ids.

        Every channel has one from its first record on. Those that are damaged may be among them.
        The work is in proportion to what is asked for, not to what there is.

        Args:
            after: only ids above this one; -1 begins with the first.
            limit: how many at most; fewer come only if there are no more.

        Raises:
            CorruptRecordError: a page of the list is damaged.
        """

    def saved_at(self, channel: int) -> int:
        """Return when a channel's newest snapshot was taken: microseconds since the epoch, or 0.

        It is read as it is stored: whoever wants to rely on it loads the snapshot.

        Raises:
            CorruptRecordError: it is damaged, or the channel is known to be.
        """

    def newest_save(self) -> int:
        """Return when the newest of all snapshots was taken: microseconds since the epoch, or 0.

        May be a little older where snapshots were deleted or are damaged.
        """

    def recover(self, channel: int) -> Recovery:
        """Return the newest snapshot and the records after it.

        Of these, what precedes the last whole state may be left out: recovery begins there.

        Raises:
            CorruptRecordError: something between the snapshot (or record 1, if there is none) and
                the highest sequence number is damaged or missing, or the snapshot is newer than
                the highest sequence number.
        """

    def forget(self, channel: int) -> None:
        """Free memory that the journal spends on this channel; what is stored stays stored."""

    def renew(self) -> None:
        """Give a sign of life, so that no other writer takes the journal over.

        Raises:
            JournalFencedError: one has.
        """

    def use_keys(self, keys: KeyRing) -> None:
        """Seal under the first of these from now on, and open what any of them has sealed.

        What older keys have sealed is sealed anew by ``upkeep``, bit by bit.

        Raises:
            JournalError: a key that is still needed is missing; nothing has changed.
        """

    def upkeep(self) -> bool:
        """Do one bounded step of clean-up beside the commit path.

        Returns:
            Whether there is more to do.
        """

    def statistics(self) -> JournalStatistics:
        """Return the journal's figures."""

    def close(self) -> None:
        """Release the journal's files. Calling it again has no effect."""
