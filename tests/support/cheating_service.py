"""The service with a journal that cheats, as a process: what the crash run's ledger must catch.

``python -m tests.support.cheating_service HOW serve [flags]``, where HOW is one of ``JOURNALS``.
Everything but the journal is the real service.
"""

import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from connect_actor import cli
from connect_actor.persistence.contract import Batch, Recovery, Rejection
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.process import app

# Seconds. With a tenth of it a kill comes too late for the cheat to lose a Decrypt, if the machine
# is starved.
COMMIT_DELAY = 0.2


class SlowJournal(SqliteJournal):
    """An honest journal whose commits take long."""

    def commit(self, batch: Batch) -> list[Rejection]:
        if batch.records or batch.snapshots:
            time.sleep(COMMIT_DELAY)
        return super().commit(batch)


class EarlyJournal(SqliteJournal):
    """Says that a batch is durable when it has only been taken note of.

    It is written when the next one comes and the delay is over, or when something is to be read:
    until the process is killed nobody can tell.
    """

    _owed: deque[tuple[float, Callable[[], object]]]

    def commit(self, batch: Batch) -> list[Rejection]:
        honest = super().commit
        self._later(lambda: honest(batch))
        self._write_older_than(COMMIT_DELAY)
        return []

    def forget(self, channel: int) -> None:
        honest = super().forget
        self._later(lambda: honest(channel))

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
        if not hasattr(self, "_owed"):
            self._owed = deque()
        self._owed.append((time.monotonic(), work))

    def _write_older_than(self, seconds: float) -> None:
        owed = getattr(self, "_owed", None)
        while owed and time.monotonic() - owed[0][0] >= seconds:
            owed.popleft()[1]()


class RewindingJournal(SqliteJournal):
    """Goes back to an older state: a recovery never sees a channel's last record."""

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
