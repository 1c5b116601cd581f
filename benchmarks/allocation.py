"""``python -m benchmarks.allocation``: what one message allocates, by operation and strategy.

Counts, not times: nothing here says how fast anything is, and no throughput is measured in a
process that these counts are taken in. Two domains, two methods, never added up:

- *Python's allocators* (raw, mem and obj), by the counting hook; exact, rules in
  ``service/connect_actor/observe/_allocation_hook.c``.
- *The native heap* (malloc and its kin, mmap), by memray, in a process of its own. It holds what
  pymalloc passes on (blocks above 512 bytes, arenas) and what native libraries take (OpenSSL,
  protobuf); blocks of up to 512 bytes that pymalloc serves from its arenas are not in it.

The last rows are a whole service under a short load, from its own metrics: gRPC's Python layer,
actors, committer, journal and scrapes included, divided by messages. Takes some 40 s.
"""

import multiprocessing
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import get_args

import memray
import uvloop
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console
from rich.table import Table

from connect_actor.network.connections import http_get
from connect_actor.persistence.strategies import STRATEGIES
from connect_actor.protocol.changes import Change
from connect_actor.protocol.handshake import ChannelLimits, Initiation, respond
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.session import Session
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.load import Progress
from connect_loadgen.experiments.run import run_load
from connect_loadgen.probes.allocation import Allocation, measure, measure_each
from connect_loadgen.service.process import ServiceOptions, ServiceProcess
from connect_loadgen.settings.load import RunSettings, StrategyName, load_settings

PLAINTEXT = bytes(64)
CALLS = 1_000
WARM_UP = 100
NOW = 1_700_000_000_000_000
PATIENCE = 30.0

_FREES = {
    memray.AllocatorType.FREE,
    memray.AllocatorType.MUNMAP,
}


class Ends:
    """Both ends of a channel, made from seeded randomness, after a first exchange of messages."""

    def __init__(self) -> None:
        self.random = random.Random(1).randbytes
        initiation = Initiation.begin(Identity.generate(self.random), self.random)
        self.service: Session = respond(
            initiation.request,
            identity=Identity.generate(self.random),
            limits=ChannelLimits(),
            now=NOW,
            random=self.random,
        )
        response = wire.EstablishResponse.FromString(self.service.handshake.response)
        self.peer: Session = initiation.complete(response)
        self.change: Change
        self.to_peer: Payload
        self.encrypt()
        self.deliver()
        self.decrypt(self.sealed())

    def encrypt(self) -> None:
        """Let the service encrypt."""
        self.to_peer, self.change = self.service.encrypt(PLAINTEXT, now=NOW, random=self.random)

    def decrypt(self, payload: Payload) -> None:
        """Let the service decrypt."""
        _, self.change = self.service.decrypt(payload, now=NOW)

    def deliver(self) -> None:
        """Let the peer open what the service has encrypted."""
        self.peer.decrypt(self.to_peer, now=NOW)

    def sealed(self) -> Payload:
        """Return what the peer encrypts for the service."""
        return self.peer.encrypt(PLAINTEXT, now=NOW, random=self.random)[0]


def chain_encrypt() -> Callable[[], object]:
    """Encrypt while the peer is silent, so that the DH ratchet does not turn."""
    return Ends().encrypt


def chain_decrypt() -> Callable[[], object]:
    """Decrypt while the service is silent."""
    ends = Ends()
    payloads = iter([ends.sealed() for _ in range(CALLS + WARM_UP)])
    return lambda: ends.decrypt(next(payloads))


def record(strategy: str) -> Callable[[], object]:
    """Make a record of one and the same change, as a strategy does for each message."""
    ends, made = Ends(), STRATEGIES[strategy]()
    return lambda: made.record(ends.service, ends.change)


CASES: dict[str, Callable[[], Callable[[], object]]] = {
    "encrypt, chain step": chain_encrypt,
    "decrypt, chain step": chain_decrypt,
    **{f"record, {name}": partial(record, name) for name in STRATEGIES},
}
"""Makes what is measured, anew in each process that measures it."""


@dataclass(frozen=True, slots=True)
class Count:
    """Blocks and bytes of one call, or for each message."""

    blocks: float
    bytes: float

    @classmethod
    def of(cls, found: Allocation) -> "Count":
        """Return what the hook has found, in all domains."""
        return cls(found.blocks_per_call, found.bytes_per_call)


def in_python(case: str) -> Count:
    """Count a case in Python's allocators."""
    return Count.of(measure(CASES[case](), CALLS, WARM_UP))


def conversation_encrypt() -> Count:
    """Count encryption where each message is answered, so that the DH ratchet turns by default."""
    ends = Ends()

    def answer() -> None:
        ends.deliver()
        ends.decrypt(ends.sealed())

    ends.encrypt()
    return Count.of(measure_each(answer, lambda _: ends.encrypt(), CALLS, WARM_UP))


def conversation_decrypt() -> Count:
    """Count decryption in the same conversation."""
    ends = Ends()

    def ask() -> Payload:
        ends.encrypt()
        ends.deliver()
        return ends.sealed()

    return Count.of(measure_each(ask, ends.decrypt, CALLS, WARM_UP))


def in_native_heap(case: str) -> Count:
    """Count a case in the native heap, less what memray finds of the loop itself."""
    call, idle = _track(CASES[case]()), _track(lambda: None)
    return Count((call.blocks - idle.blocks) / CALLS, (call.bytes - idle.bytes) / CALLS)


def _track(call: Callable[[], object]) -> Count:
    for _ in range(WARM_UP):
        call()
    turns = repeat(None, CALLS)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "allocations")
        with memray.Tracker(path, file_format=memray.FileFormat.ALL_ALLOCATIONS):
            for _ in turns:
                call()
        with memray.FileReader(path) as reader:
            sizes = [
                entry.size
                for entry in reader.get_allocation_records()
                if memray.AllocatorType(entry.allocator) not in _FREES
            ]
    return Count(len(sizes), sum(sizes))


class Reading(Progress):
    """Reads a service's allocation when its measured load begins."""

    def __init__(self, metrics: str) -> None:
        self._metrics = metrics
        self.before = Count(0, 0)

    def step(self, text: str) -> None:
        """Read, if the load begins."""
        if text.startswith("measuring"):
            self.before = self.read()

    def tick(self, share: float, text: str) -> None:
        """Nothing to show."""

    def read(self) -> Count:
        """Return what the service's process has allocated since its start."""
        _, body = http_get(self._metrics, "/metrics", PATIENCE)
        sums = dict.fromkeys(("connect_allocations_total", "connect_allocated_bytes_total"), 0.0)
        for family in text_string_to_metric_families(body.decode()):
            for sample in family.samples:
                if sample.name in sums:
                    sums[sample.name] += sample.value
        return Count(*sums.values())


async def whole_service(strategy: StrategyName) -> Count:
    """Count a service under load, for each message that it encrypts or decrypts."""
    with tempfile.TemporaryDirectory() as directory:
        options = ServiceOptions(strategy, "sqlite", Path(directory))
        async with ServiceProcess(options, PATIENCE) as service:
            settings = load_settings(
                RunSettings,
                [f"--target={service.listen}", "--warm-up-seconds=1", "--duration-seconds=4"],
            )
            reading = Reading(service.metrics)
            result = await run_load(settings, reading)
            after = reading.read()
            await service.stop()
    (turn,) = result.sides["run"].rounds
    messages = 0 if turn.load is None else turn.load.messages
    return Count(
        (after.blocks - reading.before.blocks) / messages,
        (after.bytes - reading.before.bytes) / messages,
    )


def _in_fresh_process(count: Callable[[str], Count], case: str) -> Count:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(count, (case,))


def _row(table: Table, name: str, python: Count, native: Count | None) -> None:
    cells = [f"{python.blocks:,.1f}", f"{python.bytes:,.0f}"]
    cells += ["", ""] if native is None else [f"{native.blocks:,.1f}", f"{native.bytes:,.0f}"]
    table.add_row(name, *cells)


def main() -> None:
    """Count, and print the table."""
    table = Table(title="Allocated for each message of 64 bytes; whole service: 64 and 1,024")
    table.add_column("", no_wrap=True)
    for column in (
        "Python's allocators\nblocks (pymem_hook)",
        "bytes",
        "native heap\nblocks (memray)",
        "bytes",
    ):
        table.add_column(column, justify="right")
    for case in CASES:
        python = _in_fresh_process(in_python, case)
        _row(table, case, python, _in_fresh_process(in_native_heap, case))
    _row(table, "encrypt, conversation", conversation_encrypt(), None)
    _row(table, "decrypt, conversation", conversation_decrypt(), None)
    table.add_section()
    strategy: StrategyName
    for strategy in get_args(StrategyName):
        _row(table, f"whole service, {strategy}", uvloop.run(whole_service(strategy)), None)
    Console().print(table)


if __name__ == "__main__":
    main()
