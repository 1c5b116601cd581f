"""``python -m benchmarks.recovery``: channels a second that come back when all are used at once.

Everything of the service but gRPC, in one process, on a journal as a service leaves it:

- *graceful*: a snapshot of each channel, and nothing behind it;
- *sent*: up to so many records behind the snapshot, half of it on average, of messages sent. The
  records of 256 channels share a row of the log; the first turn is before the snapshot;
- *both ways*: the same of messages sent and received in turn, so that both ends' ratchets turn.

50 is the service's own ``snapshot_interval``.

The process's CPU is what counts: the journal's thread included, opening the journal not. Every
channel is checked against the session that wrote it.
"""

import gc
import os
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.in_process import InProcess, sqlite_journal
from benchmarks.rounds import require, rounds_from_arguments, spread
from connect_actor.actors.commands import Restore, Restored
from connect_actor.persistence.contract import Batch, Record, RecordKind, Snapshot
from connect_actor.protocol.changes import Change, encode_change
from connect_loadgen.bench.sessions import Ends, make_ends, now

CHANNELS = 10_000
JOURNALS = (("graceful", 0), ("sent", 50), ("both ways", 50), ("sent", 100))
_A_COMMIT = 256
_KEY = bytes(32)
_MESSAGE = bytes(64)


@dataclass
class _Channel:
    connect_id: int
    ends: Ends
    records: int = 1

    def snapshot(self) -> Snapshot:
        return Snapshot(self.connect_id, self.records, now(), self.ends.service.encode())

    def record(self, *, both_ways: bool) -> Record:
        """Let a message pass and return its record."""
        ends = self.ends
        self.records += 1
        change: Change
        if both_ways and self.records % 2:
            _, change = ends.service.decrypt(ends.seal(_MESSAGE), now=now())
        else:
            payload, change = ends.service.encrypt(_MESSAGE, now=now(), random=os.urandom)
            ends.peer.decrypt(payload, now=now())
        return Record(self.connect_id, self.records, RecordKind.CHANGE, encode_change(change))

    def is_restored(self, answer: object) -> bool:
        ratchet = self.ends.service.ratchet
        return (
            isinstance(answer, Restored)
            and ratchet.sending is not None
            and ratchet.receiving is not None
            and answer.sending_chain_length == ratchet.sending.next_index
            and answer.receiving_chain_length == ratchet.receiving.next_index
        )


def _write(path: Path, kind: str, records: int) -> list[_Channel]:
    """Make a journal, and return the channels in it as they were at its end."""
    channels = [_Channel(number, make_ends()) for number in range(1, CHANNELS + 1)]
    journal = sqlite_journal(path, key=_KEY)
    for first in range(0, CHANNELS, _A_COMMIT):
        part = channels[first : first + _A_COMMIT]
        begun = [Record(channel.connect_id, 1, RecordKind.ESTABLISHED, b"") for channel in part]
        journal.commit(Batch(begun, [channel.snapshot() for channel in part]))
    source = random.Random(1)
    until = {channel.connect_id: source.randint(0, records) for channel in channels}
    busy = [channel for channel in channels if until[channel.connect_id]]
    while busy:
        source.shuffle(busy)
        for first in range(0, len(busy), _A_COMMIT):
            part = busy[first : first + _A_COMMIT]
            both_ways = kind == "both ways"
            journal.commit(Batch([channel.record(both_ways=both_ways) for channel in part]))
        busy = [channel for channel in busy if channel.records <= until[channel.connect_id]]
    journal.close()
    return channels


def _measure(path: Path, channels: Sequence[_Channel]) -> float:
    """Return how many channels come back in a second of CPU."""
    service = InProcess(sqlite_journal(path, key=_KEY))
    restores = [(channel.connect_id, Restore()) for channel in channels]
    # As the service does when it is ready.
    gc.collect()
    gc.freeze()
    begun = time.process_time()
    answers = service.ask_all(restores)
    seconds = time.process_time() - begun
    gc.unfreeze()
    require(
        all(channel.is_restored(answer) for channel, answer in zip(channels, answers, strict=True))
    )
    require(service.environment.statistics.recovered == CHANNELS)
    service.abandon()
    return CHANNELS / seconds


def main() -> None:
    """Run the rounds and print the table."""
    count = rounds_from_arguments(__doc__)
    with tempfile.TemporaryDirectory(prefix="recovery-") as directory:
        paths = {
            journal: Path(directory, f"{number}.db") for number, journal in enumerate(JOURNALS)
        }
        channels = {journal: _write(path, *journal) for journal, path in paths.items()}
        figures: dict[tuple[str, int], list[float]] = {journal: [] for journal in JOURNALS}
        for _ in range(count):
            for journal, path in paths.items():
                figures[journal].append(_measure(path, channels[journal]))
    table = Table(title=f"{CHANNELS:,} channels at once, {count} rounds", box=box.SIMPLE_HEAD)
    table.add_column("journal")
    table.add_column("channels a second of CPU", justify="right")
    table.add_column("CPU for each", justify="right")
    for (kind, records), rates in figures.items():
        name = f"{kind}, up to {records} behind"
        table.add_row(name, spread(rates, "/s"), spread([1e6 / rate for rate in rates], "µs"))
    Console().print(table)


if __name__ == "__main__":
    main()
