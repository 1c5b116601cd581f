"""A small fixed workload of a journal, and what must be in the journal after each of its steps.

The memory journal says what must be there. A step is acknowledged when its call has returned; of a
step that was begun, all or nothing may be there, and of one that failed, too.
"""

from collections.abc import Callable
from pathlib import Path

from connect_actor.persistence.contract import (
    Batch,
    Journal,
    JournalError,
    JournalLockedError,
    JournalVersionError,
    Record,
    RecordKind,
    Snapshot,
)
from connect_actor.persistence.memory import MemoryJournal
from tests.support.journals import sqlite_journal

__all__ = ["COMMITS", "STATES", "STEPS", "Progress", "Run", "World", "WrongError", "world"]

_CHANNELS = (1, 2, 3, 4)

Step = Callable[[Journal], object]
World = dict[int, tuple[int, Snapshot | None, tuple[Record, ...]]]
"""Of each channel: its highest sequence number, its newest snapshot, the records after that."""

Progress = Callable[[str, int], None]
"""Told "begin", with the number of steps done before, then "done", or after a failure "found", with
the number of those done now."""


class WrongError(AssertionError):
    """The journal says something else than what it has acknowledged, or fails in a wrong way."""


def world(journal: Journal) -> World:
    """Return all that the journal says."""
    said: World = {}
    for channel in _CHANNELS:
        recovery = journal.recover(channel)
        said[channel] = (
            recovery.highest_sequence_number,
            recovery.snapshot,
            tuple(recovery.records),
        )
    return said


def _record(channel: int, number: int, size: int = 100) -> Record:
    kind = RecordKind.STATE if number == 1 else RecordKind.CHANGE
    return Record(channel, number, kind, (b"%d-%d " % (channel, number)).ljust(size, b"."))


def _snapshot(channel: int, number: int) -> Snapshot:
    return Snapshot(channel, number, 1_000 + number, (b"s-%d " % number).ljust(3_000, b"."))


def _commit(*entries: Record | Snapshot) -> Step:
    records = [entry for entry in entries if isinstance(entry, Record)]
    snapshots = [entry for entry in entries if isinstance(entry, Snapshot)]

    def commit(journal: Journal) -> object:
        return journal.commit(Batch(records, snapshots))

    return commit


def _close(journal: Journal) -> None:
    journal.close()


STEPS: tuple[Step, ...] = (
    _commit(_record(1, 1)),
    _commit(_record(1, 2), _record(2, 1, 3_000), _record(3, 1)),
    _commit(_record(1, 3), _record(2, 2, 40_000), _record(2, 3, 40_000), _record(4, 1)),
    _commit(_record(1, 4), _snapshot(1, 4)),
    lambda journal: journal.upkeep(),
    _commit(_record(3, 2), Record(4, 2, RecordKind.CLOSED, b"")),
    _commit(_record(4, 1, 200), _record(1, 5), _snapshot(1, 5)),
    lambda journal: journal.upkeep(),
    _close,
    _commit(_record(1, 6), _record(2, 4), _record(3, 3), _record(4, 2)),
    lambda journal: journal.upkeep(),
    _commit(_record(3, 4, 9_000), _snapshot(3, 4)),
    lambda journal: journal.upkeep(),
    _commit(_record(3, 5)),
    _close,
)

COMMITS = frozenset(number for number, step in enumerate(STEPS, 1) if step.__name__ == "commit")
"""Numbers of the steps that commit something, from 1."""


def _states() -> list[World]:
    journal = MemoryJournal()
    states = [world(journal)]
    for step in STEPS:
        step(journal)
        states.append(world(journal))
    return states


STATES = _states()
"""What a journal must say after so many steps."""

# Failures in a row after which a run ends: the disk does not come back.
_PATIENCE = 4


class Run:
    """One run of the workload on a journal that may fail."""

    def __init__(self, path: Path, progress: Progress = lambda *_: None) -> None:
        self._path = path
        self._progress = progress
        self._journal: Journal | None = None
        self.done = 0
        """Steps that are acknowledged, or that the journal said were done when it was asked."""
        self.begun = False
        """Whether the step after these was begun, so that all of it may be there as well."""
        self.reported = 0
        """Failures that the journal has reported."""
        self.misnamed: list[str] = []
        """Failures reported as what they aren't: other errors than a journal's, or a wrong one."""

    def go(self) -> None:
        """Take the steps; after a failure, go on from what the journal says.

        Raises:
            WrongError: it says what can't be, or took a step in part.
        """
        failures = 0
        while self.done < len(STEPS) and failures < _PATIENCE:
            try:
                self._step()
                failures = 0
            except WrongError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever the journal raises
                self._report(error)
                failures += 1

    def _report(self, error: Exception) -> None:
        self.reported += 1
        misleading = isinstance(error, JournalLockedError | JournalVersionError)
        if misleading or not isinstance(error, JournalError):
            self.misnamed.append(repr(error))

    def _step(self) -> None:
        if self._journal is None:
            self._journal = sqlite_journal(self._path)
        if self.begun:
            # The last attempt failed. What the journal says now, it must stand by.
            said = world(self._journal)
            self.done += self.expect(said)
            self.begun = False
            self._progress("found", self.done)
            return
        self.begun = True
        self._progress("begin", self.done)
        rejections = STEPS[self.done](self._journal)
        if isinstance(rejections, list) and rejections:
            raise WrongError(f"step {self.done} was rejected: {rejections}")
        if STEPS[self.done] is _close:
            self._journal = None
        self.done += 1
        self.begun = False
        self._progress("done", self.done)

    def expect(self, said: World) -> int:
        """Return how many further steps the journal has, which must be one that was begun.

        Raises:
            WrongError: it says what can't be.
        """
        for further in range(1 + self.begun):
            if said == STATES[self.done + further]:
                return further
        raise WrongError(f"after {self.done} steps{' and a bit' * self.begun} it says {said}")

    def abandon(self) -> None:
        """Release the journal, whatever it says to that."""
        if self._journal is not None:
            try:
                self._journal.close()
            except Exception as error:  # noqa: BLE001 - as above
                self._report(error)
            self._journal = None

    def finish(self) -> None:
        """Open the journal anew, look whether all is there, and take the steps that are left.

        Raises:
            WrongError: something isn't, or is there in part; or a step fails.
        """
        journal = sqlite_journal(self._path)
        self.done += self.expect(world(journal))
        self.begun = False
        journal.close()
        before = self.reported
        self.go()
        if self.reported > before or self.done < len(STEPS):
            raise WrongError("without faults a step failed")
