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
import os
import random
import statistics
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Literal, get_args

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.in_process import Channel, Stream, in_process
from benchmarks.rounds import require
from connect_actor.observe.allocation import AllocationProbe
from connect_actor.observe.counting import Distribution
from connect_actor.observe.runtime import Probes
from connect_actor.protocol.wire import payload_to_wire
from connect_actor.rpc.statistics import Answer, Arrivals, RequestStatistics
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.bench.sessions import now

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


def _frames(channels: Sequence[Channel]) -> list[bytes]:
    frames = []
    for first in range(0, MESSAGES, FRAME_OPERATIONS):
        frame = wire.OperationFrame()
        for position in range(FRAME_OPERATIONS):
            channel = channels[(first + position) % len(channels)]
            operation = frame.operations.add(operation_id=position)
            if position % 2:
                operation.encrypt.connect_id = channel.connect_id
                operation.encrypt.plaintext = bytes(64)
            else:
                operation.decrypt.connect_id = channel.connect_id
                sealed = channel.peer.encrypt(bytes(64), now=now(), random=os.urandom)[0]
                payload_to_wire(sealed, operation.decrypt.payload)
        frames.append(frame.SerializeToString())
    return frames


def _round(stream: Stream, channels: Sequence[Channel]) -> float:
    """Serve all messages of one round and return the CPU seconds that it took."""
    frames = _frames(channels)
    gc.collect()
    begun = time.process_time()
    results = stream.exchange(frames, MESSAGES)
    seconds = time.process_time() - begun
    require(all(result.WhichOneof("outcome") != "error" for result in results))
    return seconds


async def _start_probes() -> Probes:
    return Probes.start(asyncio.get_running_loop())


def _serve_rounds(variant: Variant, parent: Connection) -> None:
    if variant == "hook" and AllocationProbe.install() is None:
        raise RuntimeError("the allocation hook is not built: install a C compiler, make setup")
    with in_process() as service:
        probes = service.run(_start_probes()) if variant == "all" else None
        counted = RequestStatistics()
        if variant != "all":
            service.committer.statistics.commit_duration = Uncounted()
            service.committer.statistics.commit_records = Uncounted()
            counted = NoStatistics()
        channels = service.establish(CHANNELS)
        with service.open_stream(counted) as stream:
            gc.freeze()
            while parent.recv():
                parent.send(_round(stream, channels))
        if probes is not None:
            probes.stop()


def _measure_set(draw: random.Random) -> list[dict[Variant, float]]:
    """Return messages per CPU second of each variant, turn by turn, from fresh processes."""
    context = multiprocessing.get_context("spawn")
    workers: dict[Variant, Connection] = {}
    processes = []
    for variant in get_args(Variant):
        workers[variant], theirs = context.Pipe()
        process = context.Process(target=_serve_rounds, args=(variant, theirs), daemon=True)
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
