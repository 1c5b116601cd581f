"""``python -m benchmarks.recovery``: channels a second that come back when all are used at once.

Everything of the service but gRPC, in one process, on a journal as a service leaves it:

- *graceful*: a snapshot of each channel, and nothing behind it;
- *sent*: up to 100 records behind the snapshot, 50 on average, of messages sent; records of 256
  channels share a row of the log. The first turn of the ratchet is before the snapshot;
- *both ways*: the same of messages sent and received in turn, so that both ends' ratchets turn.

The process's CPU is what counts: the journal's thread included, opening the journal not. Every
channel is checked against the session that wrote it.
"""

import os
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.house import House, open_journal
from benchmarks.rounds import require, rounds_from_arguments, spread
from loadgen.bench.sessions import now
from protos.connect_actor.v1 import connect_pb2 as wire
from service.actors.commands import Restore, Restored
from service.persistence.contract import Batch, Record, RecordKind, Snapshot
from service.protocol.changes import Change, encode_change
from service.protocol.handshake import ChannelLimits, Initiation, connect_id_of, respond
from service.protocol.keys import Identity
from service.protocol.session import Session

CHANNELS = 10_000
JOURNALS = ("graceful", "sent", "both ways")
_RECORDS = 100
_A_COMMIT = 256
_MESSAGE = bytes(64)


@dataclass
class _Channel:
    connect_id: int
    service: Session
    peer: Session
    records: int = 1

    @classmethod
    def make(cls, identity: Identity) -> "_Channel":
        initiation = Initiation.begin(identity, os.urandom)
        service = respond(
            initiation.request,
            identity=identity,
            limits=ChannelLimits(),
            now=now(),
            random=os.urandom,
        )
        response = wire.EstablishResponse.FromString(service.handshake.response)
        made = cls(connect_id_of(initiation.request), service, initiation.complete(response))
        made._send()
        return made

    def _send(self) -> Change:
        payload, change = self.service.encrypt(_MESSAGE, now=now(), random=os.urandom)
        self.peer.decrypt(payload, now=now())
        return change

    def snapshot(self) -> Snapshot:
        return Snapshot(self.connect_id, self.records, now(), self.service.encode())

    def record(self, *, both_ways: bool) -> Record:
        """Let a message pass and return its record."""
        self.records += 1
        if both_ways and self.records % 2:
            payload, _ = self.peer.encrypt(_MESSAGE, now=now(), random=os.urandom)
            change: Change = self.service.decrypt(payload, now=now())[1]
        else:
            change = self._send()
        return Record(self.connect_id, self.records, RecordKind.CHANGE, encode_change(change))

    def is_restored(self, answer: object) -> bool:
        ratchet = self.service.ratchet
        return (
            isinstance(answer, Restored)
            and ratchet.sending is not None
            and ratchet.receiving is not None
            and answer.sending_chain_length == ratchet.sending.next_index
            and answer.receiving_chain_length == ratchet.receiving.next_index
        )


def _write(path: Path, kind: str) -> list[_Channel]:
    """Make a journal, and return the channels in it as they were at its end."""
    identity = Identity.generate(os.urandom)
    channels = [_Channel.make(identity) for _ in range(CHANNELS)]
    journal = open_journal(path)
    for first in range(0, CHANNELS, _A_COMMIT):
        part = channels[first : first + _A_COMMIT]
        begun = [Record(channel.connect_id, 1, RecordKind.ESTABLISHED, b"") for channel in part]
        journal.commit(Batch(begun, [channel.snapshot() for channel in part]))
    source = random.Random(1)
    until = {channel.connect_id: source.randint(1, _RECORDS) for channel in channels}
    busy = [] if kind == "graceful" else list(channels)
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
    house = House(open_journal(path))
    restores = [(channel.connect_id, Restore()) for channel in channels]
    answers, seconds = house.ask(restores, at_once=CHANNELS)
    require(
        all(channel.is_restored(answer) for channel, answer in zip(channels, answers, strict=True))
    )
    require(house.environment.statistics.recovered == CHANNELS)
    house.close()
    return CHANNELS / seconds


def main() -> None:
    """Run the rounds and print the table."""
    count = rounds_from_arguments(__doc__)
    with tempfile.TemporaryDirectory(prefix="recovery-") as directory:
        paths = {kind: Path(directory, f"{number}.db") for number, kind in enumerate(JOURNALS)}
        channels = {kind: _write(path, kind) for kind, path in paths.items()}
        figures: dict[str, list[float]] = {kind: [] for kind in JOURNALS}
        for _ in range(count):
            for kind, path in paths.items():
                figures[kind].append(_measure(path, channels[kind]))
    table = Table(title=f"{CHANNELS:,} channels at once, {count} rounds", box=box.SIMPLE_HEAD)
    table.add_column("journal")
    table.add_column("channels a second of CPU", justify="right")
    table.add_column("CPU for each", justify="right")
    for kind, rates in figures.items():
        table.add_row(kind, spread(rates, "/s"), spread([1e6 / rate for rate in rates], "µs"))
    Console().print(table)


if __name__ == "__main__":
    main()
