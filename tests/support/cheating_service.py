"""The service with a journal that cheats, as a process: what the crash run's ledger must catch.

``python -m tests.support.cheating_service HOW serve [flags]``, where HOW is one of ``JOURNALS``.
Everything but the journal is the real service.
"""

import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from service import app, cli
from service.persistence.contract import (
    LATEST,
    Batch,
    JournalStatistics,
    Recovery,
    Rejection,
    Snapshot,
    SnapshotCriteria,
)
from service.persistence.sqlite import SqliteJournal

# Without such a delay a kill comes too late for the cheat to lose anything.
COMMIT_DELAY = 0.03


class SlowJournal:
    """An honest journal whose commits take long; the base of the others."""

    def __init__(self, path: Path, *, master_key: bytes, strategy: str) -> None:
        self._honest = SqliteJournal(path, master_key=master_key, strategy=strategy)
        self.previous_strategy = self._honest.previous_strategy

    def commit(self, batch: Batch) -> Sequence[Rejection]:
        time.sleep(COMMIT_DELAY)
        return self._honest.commit(batch)

    def highest_sequence_number(self, channel: int) -> int:
        return self._honest.highest_sequence_number(channel)

    def load_snapshot(self, channel: int, criteria: SnapshotCriteria = LATEST) -> Snapshot | None:
        return self._honest.load_snapshot(channel, criteria)

    def delete_snapshots(self, channel: int, criteria: SnapshotCriteria) -> None:
        self._honest.delete_snapshots(channel, criteria)

    def delete_records(self, channel: int, to_sequence_number: int) -> None:
        self._honest.delete_records(channel, to_sequence_number)

    def recover(self, channel: int) -> Recovery:
        return self._honest.recover(channel)

    def forget(self, channel: int) -> None:
        self._honest.forget(channel)

    def upkeep(self) -> bool:
        return self._honest.upkeep()

    def statistics(self) -> JournalStatistics:
        return self._honest.statistics()

    def close(self) -> None:
        self._honest.close()


class EarlyJournal(SlowJournal):
    """Says that a batch is durable when it has only been taken note of.

    It is written when the next one comes and the delay is over, or when something is to be read:
    until the process is killed nobody can tell.
    """

    def __init__(self, path: Path, *, master_key: bytes, strategy: str) -> None:
        super().__init__(path, master_key=master_key, strategy=strategy)
        self._owed: deque[tuple[float, Callable[[], object]]] = deque()

    def commit(self, batch: Batch) -> Sequence[Rejection]:
        self._later(lambda: self._honest.commit(batch))
        self._write_older_than(COMMIT_DELAY)
        return []

    def delete_snapshots(self, channel: int, criteria: SnapshotCriteria) -> None:
        self._later(lambda: self._honest.delete_snapshots(channel, criteria))

    def delete_records(self, channel: int, to_sequence_number: int) -> None:
        self._later(lambda: self._honest.delete_records(channel, to_sequence_number))

    def forget(self, channel: int) -> None:
        self._later(lambda: self._honest.forget(channel))

    def highest_sequence_number(self, channel: int) -> int:
        self._write_older_than(0)
        return super().highest_sequence_number(channel)

    def recover(self, channel: int) -> Recovery:
        self._write_older_than(0)
        return super().recover(channel)

    def close(self) -> None:
        self._write_older_than(0)
        super().close()

    def _later(self, work: Callable[[], object]) -> None:
        self._owed.append((time.monotonic(), work))

    def _write_older_than(self, seconds: float) -> None:
        while self._owed and time.monotonic() - self._owed[0][0] >= seconds:
            self._owed.popleft()[1]()


class RewindingJournal(SlowJournal):
    """Goes back to an older state: a recovery never sees a channel's last record."""

    def commit(self, batch: Batch) -> Sequence[Rejection]:
        return self._honest.commit(batch)

    def recover(self, channel: int) -> Recovery:
        honest = super().recover(channel)
        has_base = honest.snapshot is not None or len(honest.records) > 1
        return replace(honest, records=honest.records[:-1]) if has_base else honest


JOURNALS = {
    "slow": SlowJournal,
    "early": EarlyJournal,
    "rewinding": RewindingJournal,
}


if __name__ == "__main__":
    how = sys.argv.pop(1)
    vars(app)["SqliteJournal"] = JOURNALS[how]
    sys.exit(cli.main())
