"""``python -m benchmarks.probes``: what the always-on probes cost, as a ratio of throughput.

Three processes serve the same messages, half of them encrypted and half decrypted, in frames of 64
on Exchange streams, through router, actors, ratchet, record and a durable SQLite journal: the whole
service but gRPC's sockets, which would only make the probes look cheaper. The processes differ in
what counts meanwhile:

- *none*: no hook, no GC callback, no sampling of the loop, no clock and no distribution; what is
  left are additions to plain integers, in line;
- *hook*: the allocation hook alone;
- *all*: everything that a service has.

They take turns in short rounds, in an order shuffled anew each time, and a ratio is taken within
its turn, so that what else the machine does weighs on all. Where a process's memory happens to lie
makes a difference, too, that lasts as long as the process: so there are several sets of processes.
Throughput is messages for each second of CPU: on a shared machine the clock on the wall says more
about the neighbours. Takes some two minutes.
"""

import asyncio
import gc
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal, cast, get_args

import uvloop
from rich.console import Console
from rich.progress import track
from rich.table import Table

from connect_actor.access.gate import Caller, Gate
from connect_actor.keys.keyring import KeyRing
from connect_actor.observe.allocation import AllocationProbe
from connect_actor.observe.counting import Distribution
from connect_actor.observe.runtime import Probes
from connect_actor.persistence.sqlite import SqliteJournal
from connect_actor.protocol.wire import payload_to_wire
from connect_actor.rpc.admission import Admission, Bounds
from connect_actor.rpc.entrance import Context, Entrance
from connect_actor.rpc.exchange import Exchange, StreamLimits
from connect_actor.rpc.statistics import Answer, Arrivals, RequestStatistics
from connect_actor.v1 import connect_pb2 as wire
from tests.support.calls import CallContext
from tests.support.house import House, PeerEnd

Variant = Literal["none", "hook", "all"]

SETS = 8
TURNS = 40
WARM_UP_TURNS = 3
FRAMES = 32
FRAME_OPERATIONS = 64
MESSAGES = FRAMES * FRAME_OPERATIONS
CHANNELS = 100
MOST = 0.02
"""Of throughput, that all probes together may cost."""


class Uncounted(Distribution):
    """A distribution that stays empty."""

    __slots__ = ()

    def add(self, value: float, times: int = 1) -> None:
        """Count nothing."""


class NoStatistics(RequestStatistics):
    """Statistics that stay empty."""

    def frame_accepted(self, operations: int) -> Arrivals:
        """Count nothing."""
        del operations
        return Arrivals(0.0)

    def frame_answered(self, answers: Sequence[Answer]) -> None:
        """Count nothing."""


def _count_nothing(house: House) -> RequestStatistics:
    house.committer.statistics.commit_duration = Uncounted()
    house.committer.statistics.commit_records = Uncounted()
    return NoStatistics()


def _frame(peers: Sequence[PeerEnd], number: int) -> wire.OperationFrame:
    frame = wire.OperationFrame()
    for position in range(FRAME_OPERATIONS):
        peer = peers[(number * FRAME_OPERATIONS + position) % len(peers)]
        operation = frame.operations.add(operation_id=position)
        if position % 2:
            operation.encrypt.connect_id = peer.connect_id
            operation.encrypt.plaintext = bytes(64)
        else:
            operation.decrypt.connect_id = peer.connect_id
            payload_to_wire(peer.seal(bytes(64)), operation.decrypt.payload)
    return frame


class _Call(CallContext):
    """A call that brings its frames as they come, each in a pass of the loop of its own."""

    async def read(self) -> object:
        await asyncio.sleep(0)
        return await super().read()


async def _round(house: House, counted: RequestStatistics, peers: Sequence[PeerEnd]) -> float:
    """Serve all messages of one round and return the CPU seconds that it took."""
    frames = [_frame(peers, number).SerializeToString() for number in range(FRAMES)]
    entrance = Entrance(Gate(), Bounds(), 1 << 22)
    exchange = Exchange(
        house.router,
        counted,
        Admission(Bounds()),
        Caller(b"", None, None),
        StreamLimits(1 << 20, 1 << 22, 8 * FRAME_OPERATIONS),
        entrance.enter(cast("Context", _Call(*frames))),
        deadline=None,
        stream_id="probe",
    )
    answered = 0
    gc.collect()
    begun = time.process_time()
    async for results in exchange.serve():
        answered += sum(result.WhichOneof("outcome") != "error" for result in results.results)
    seconds = time.process_time() - begun
    if answered != MESSAGES:
        raise RuntimeError(f"{MESSAGES - answered} messages failed: these figures mean nothing")
    return seconds


async def _serve_rounds(variant: Variant, parent: Connection, directory: Path) -> None:
    probes = Probes.start(asyncio.get_running_loop()) if variant == "all" else None
    if variant == "hook" and AllocationProbe.install() is None:
        raise RuntimeError("the allocation hook is not built: install a C compiler, make setup")
    journal = SqliteJournal(
        directory / "journal.db", keys=KeyRing.of(bytes(32)), strategy="differential"
    )
    house = House(journal, wall_clock=True)
    counted = RequestStatistics() if variant == "all" else _count_nothing(house)
    peers = [await house.establish(seed) for seed in range(1, CHANNELS + 1)]
    gc.freeze()
    while parent.recv():
        parent.send(await _round(house, counted, peers))
    await house.close()
    if probes is not None:
        probes.stop()


def _work(variant: Variant, parent: Connection) -> None:
    with tempfile.TemporaryDirectory() as directory:
        uvloop.run(_serve_rounds(variant, parent, Path(directory)))


def _measure_set(draw: random.Random) -> list[dict[Variant, float]]:
    """Return messages per CPU second of each variant, turn by turn, from fresh processes."""
    context = multiprocessing.get_context("spawn")
    workers: dict[Variant, Connection] = {}
    processes = []
    for variant in get_args(Variant):
        workers[variant], theirs = context.Pipe()
        process = context.Process(target=_work, args=(variant, theirs), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
    turns = []
    for _ in range(WARM_UP_TURNS + TURNS):
        turn: dict[Variant, float] = {}
        for variant in draw.sample(list(workers), len(workers)):
            workers[variant].send("go on")
            turn[variant] = MESSAGES / workers[variant].recv()
        turns.append(turn)
    for connection in workers.values():
        connection.send("")
    for process in processes:
        process.join()
    return turns[WARM_UP_TURNS:]


def main() -> None:
    """Run the rounds and print the table."""
    draw = random.Random(1)
    sets = [_measure_set(draw) for _ in track(range(SETS), "processes", transient=True)]
    table = Table(
        title=f"{SETS} sets of processes, {TURNS} turns each, {MESSAGES:,} messages a turn"
    )
    for column in (
        "probes",
        "messages\nper CPU second",
        "to none, median\nof all turns",
        "quartiles\nof all turns",
        "lowest to highest\nmedian of a set",
    ):
        table.add_column(column, justify="right")
    cost = 0.0
    for variant in get_args(Variant):
        rate = statistics.median(turn[variant] for turns in sets for turn in turns)
        ratios = [[turn[variant] / turn["none"] for turn in turns] for turns in sets]
        low, middle, high = statistics.quantiles([ratio for each in ratios for ratio in each], n=4)
        medians = sorted(map(statistics.median, ratios))
        table.add_row(
            variant,
            f"{rate:,.0f}",
            f"{middle:.3f}",
            f"{low:.3f} to {high:.3f}",
            f"{medians[0]:.3f} to {medians[-1]:.3f}",
        )
        cost = 1 - middle
    console = Console()
    console.print(table)
    console.print(f"All probes cost {cost:.1%} of throughput; at most {MOST:.0%} are allowed.")


if __name__ == "__main__":
    main()
