"""Journals for tests: a real one, and one that fails, hangs or is written behind one's back."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.contract import (
    Batch,
    CommitFailedError,
    Record,
    Recovery,
    Rejection,
    Snapshot,
)
from connect_actor.persistence.memory import MemoryJournal
from connect_actor.persistence.sqlite.journal import SqliteJournal
from tests.support.process import PATIENCE

__all__ = [
    "EAGER_UPKEEP",
    "KINDS",
    "MASTER_KEY",
    "Script",
    "ScriptedJournal",
    "ScriptedSqliteJournal",
    "scripted_journal",
    "sqlite_journal",
]

KINDS = ("memory", "sqlite")
"""Of journals: what holds on the one in memory need not hold on the one that serves."""

MASTER_KEY = bytes(range(32))

EAGER_UPKEEP = {"_MIN_DEAD": 0, "_CLEAN_RECORDS": 3, "_CHECKPOINT_AFTER": 0}
"""Constants of ``persistence.sqlite.journal`` with which a few records give upkeep work."""


def sqlite_journal(
    path: Path, *, key: bytes = MASTER_KEY, strategy: str = "differential"
) -> SqliteJournal:
    """Open, or make, a journal; one whose files a test has put there, too."""
    return SqliteJournal(path, keys=KeyRing.of(key), strategy=strategy, moved=True)


if TYPE_CHECKING:
    # What the mixin calls is there in each kind.
    class _Mixed(MemoryJournal): ...
else:
    _Mixed = object


class Script(_Mixed):
    """Has a journal's next commits and recoveries do as a test says; mixed in before it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - the kind's own
        super().__init__(*arguments, **options)
        self.gate = threading.Event()
        """Cleared, it holds every commit up."""
        self.gate.set()
        self.entered = threading.Event()
        """Set once a commit has reached the gate."""
        self.batches: list[Batch] = []
        self.fail_before: list[bool] = []
        """For the next commits: fail without having written."""
        self.fail_after: list[bool] = []
        """For the next commits: write, then fail."""
        self.reject: list[bool] = []
        """For the next commits: leave out all records, and say so."""
        self.on_recover: Callable[[int], None] = lambda _: None
        self.recoveries: list[int] = []
        self.looked_up: list[int] = []
        """Channels whose owner was asked for."""
        self.heights = 0
        """Times that a highest sequence number was asked for."""
        self.upkeep_steps = 0
        """Steps of clean-up that are still to be done."""
        self.upkeeps: list[int] = []
        """For each step that was asked for, the commits there were before it."""
        self.forgotten: list[int] = []
        self.closed_after: int | None = None
        """Commits there were before it was closed."""

    @property
    def all_records(self) -> list[Record]:
        return [record for batch in self.batches for record in batch.records]

    @property
    def all_snapshots(self) -> list[Snapshot]:
        return [snapshot for batch in self.batches for snapshot in batch.snapshots]

    def commit(self, batch: Batch) -> list[Rejection]:
        self.entered.set()
        self.gate.wait(PATIENCE)
        if self.fail_before and self.fail_before.pop(0):
            raise CommitFailedError("on purpose, before writing")
        if self.reject and self.reject.pop(0):
            return [Rejection(r, self.highest_sequence_number(r.channel)) for r in batch.records]
        rejections = super().commit(batch)
        if batch.records or batch.snapshots:
            self.batches.append(batch)
        if self.fail_after and self.fail_after.pop(0):
            raise CommitFailedError("on purpose, after writing")
        return rejections

    def recover(self, channel: int) -> Recovery:
        self.recoveries.append(channel)
        self.on_recover(channel)
        return super().recover(channel)

    def owner(self, channel: int) -> bytes:
        self.looked_up.append(channel)
        return super().owner(channel)

    def highest_sequence_number(self, channel: int) -> int:
        self.heights += 1
        return super().highest_sequence_number(channel)

    def upkeep(self) -> bool:
        self.upkeeps.append(len(self.batches))
        self.upkeep_steps = max(self.upkeep_steps - 1, 0)
        return super().upkeep() or self.upkeep_steps > 0

    def forget(self, channel: int) -> None:
        self.forgotten.append(channel)
        super().forget(channel)

    def close(self) -> None:
        self.closed_after = len(self.batches)
        super().close()


class ScriptedJournal(Script, MemoryJournal):
    """A scripted journal in memory."""


class ScriptedSqliteJournal(Script, SqliteJournal):
    """A scripted journal as it serves."""


def scripted_journal(kind: str, directory: Path) -> Script:
    """Return a scripted journal of one of the kinds."""
    if kind == "memory":
        return ScriptedJournal()
    return ScriptedSqliteJournal(
        directory / "journal.db", keys=KeyRing.of(MASTER_KEY), strategy="differential"
    )
