"""``python -m benchmarks.actors``: a ``ThreadingActor`` beside a ``DispatchedActor``.

Both do the same: an actor that returns what it gets, among many idle ones. Rounds of the two
alternate, in fresh actors; a ratio is taken within its round, so that what else the machine does
weighs on both. Memory is what the resident set of a fresh process grows by. At the end, that of a
real channel that is live and idle. Takes some 40 s.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import psutil
from pykka import ActorRef, ActorRegistry, ThreadingActor
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.rounds import better_by, in_fresh_process, require, rounds_from_arguments, spread
from connect_actor.actors.actor import DispatchedActor, ask
from connect_actor.actors.dispatcher import Dispatcher
from connect_loadgen.probes.idle import CHANNELS, bytes_per_idle_channel

# A thread each: more takes minutes to start, and many a machine allows no more.
THREADING_ACTORS = 2_000
DISPATCHED_ACTORS = 10_000
ASKS = 2_000
# Tells go to this many of the actors, in turn: several to each, as in a service under load.
TOLD_ACTORS = 100
THREADING_TELLS = 10_000
DISPATCHED_TELLS = 100_000


@dataclass(frozen=True, slots=True)
class Figures:
    """What one kind of actor did in one round; the times are seconds."""

    bytes_per_actor: float
    start: float
    """To start one actor."""
    blocking_ask_p50: float
    """A blocking ask, from a thread that is not the actor's."""
    blocking_ask_p99: float
    awaited_ask_p50: float
    """An ask awaited in a coroutine; for the dispatched actor, on its own loop."""
    awaited_ask_p99: float
    tells: float
    """Per second until all are handled, from a thread that is not the actors'."""
    loop_tells: float
    """Per second until all are handled, from a coroutine."""


class ThreadingEcho(ThreadingActor):
    """Returns what it gets."""

    use_daemon_thread = True

    def on_receive(self, message: object) -> object:
        """Return the message."""
        return message


class DispatchedEcho(DispatchedActor):
    """Returns what it gets."""

    def on_receive(self, message: object) -> object:
        """Return the message."""
        return message


Refs = Sequence[ActorRef[Any]]


def _percentiles(seconds: list[float]) -> tuple[float, float]:
    cuts = statistics.quantiles(seconds, n=100)
    return cuts[49], cuts[98]


def _blocking_asks(refs: Refs) -> tuple[float, float]:
    seconds = []
    for number in range(ASKS):
        ref = refs[number % len(refs)]
        begun = time.perf_counter()
        answer = ref.ask(number)
        seconds.append(time.perf_counter() - begun)
        require(answer == number)
    return _percentiles(seconds)


async def _awaited_asks(refs: Refs) -> tuple[float, float]:
    seconds = []
    for number in range(ASKS):
        ref = refs[number % len(refs)]
        begun = time.perf_counter()
        answer = await ask(ref, number)
        seconds.append(time.perf_counter() - begun)
        require(answer == number)
    return _percentiles(seconds)


def _tells(refs: Refs, count: int) -> float:
    told = refs[:TOLD_ACTORS]
    begun = time.perf_counter()
    for number in range(count // len(told)):
        for ref in told:
            ref.tell(number)
    for end in [ref.ask("end", block=False) for ref in told]:
        require(end.get() == "end")
    return count / (time.perf_counter() - begun)


async def _loop_tells(refs: Refs, count: int) -> float:
    told = refs[:TOLD_ACTORS]
    begun = time.perf_counter()
    for number in range(count // len(told)):
        for ref in told:
            ref.tell(number)
    for end in [ref.ask("end", block=False) for ref in told]:
        require(await end == "end")
    return count / (time.perf_counter() - begun)


def _threading_round() -> Figures:
    used = in_fresh_process(_threading_memory)
    begun = time.perf_counter()
    refs = [ThreadingEcho.start() for _ in range(THREADING_ACTORS)]
    start = (time.perf_counter() - begun) / len(refs)
    try:
        return Figures(
            used,
            start,
            *_blocking_asks(refs),
            *asyncio.run(_awaited_asks(refs)),
            _tells(refs, THREADING_TELLS),
            asyncio.run(_loop_tells(refs, THREADING_TELLS)),
        )
    finally:
        ActorRegistry.stop_all()


def _dispatched_round() -> Figures:
    used = in_fresh_process(_dispatched_memory)
    with Dispatcher.in_thread() as dispatcher:
        begun = time.perf_counter()
        refs = [DispatchedEcho.start(dispatcher=dispatcher) for _ in range(DISPATCHED_ACTORS)]
        refs[-1].ask("started")
        start = (time.perf_counter() - begun) / len(refs)
        loop = dispatcher.loop
        try:
            return Figures(
                used,
                start,
                *_blocking_asks(refs),
                *asyncio.run_coroutine_threadsafe(_awaited_asks(refs), loop).result(),
                _tells(refs, DISPATCHED_TELLS),
                asyncio.run_coroutine_threadsafe(
                    _loop_tells(refs, DISPATCHED_TELLS), loop
                ).result(),
            )
        finally:
            ActorRegistry.stop_all()


def _growth(start: Callable[[], ActorRef[Any]], count: int) -> float:
    """Bytes of resident memory for each actor, once each has handled a message."""
    process = psutil.Process()
    gc.collect()
    before: int = process.memory_info().rss
    refs = [start() for _ in range(count)]
    for ref in refs:
        ref.ask("awake")
    gc.collect()
    after: int = process.memory_info().rss
    ActorRegistry.stop_all()
    return (after - before) / count


def _threading_memory() -> float:
    return _growth(ThreadingEcho.start, THREADING_ACTORS)


def _dispatched_memory() -> float:
    with Dispatcher.in_thread() as dispatcher:
        return _growth(lambda: DispatchedEcho.start(dispatcher=dispatcher), DISPATCHED_ACTORS)


_ROWS = {
    "bytes_per_actor": ("memory of an idle actor", 1, "B"),
    "start": ("start", 1e6, "µs"),
    "blocking_ask_p50": ("blocking ask, p50", 1e6, "µs"),
    "blocking_ask_p99": ("blocking ask, p99", 1e6, "µs"),
    "awaited_ask_p50": ("awaited ask, p50", 1e6, "µs"),
    "awaited_ask_p99": ("awaited ask, p99", 1e6, "µs"),
    "tells": ("tells from a thread", 1e-3, "k/s"),
    "loop_tells": ("tells from a coroutine", 1e-3, "k/s"),
}


def _table(rounds: Sequence[tuple[Figures, Figures]]) -> Table:
    table = Table(title=f"{len(rounds)} rounds: median (lowest to highest)", box=box.SIMPLE_HEAD)
    table.add_column("")
    table.add_column(f"ThreadingActor\n{THREADING_ACTORS:,} live", justify="right")
    table.add_column(f"DispatchedActor\n{DISPATCHED_ACTORS:,} live", justify="right")
    table.add_column("better by", justify="right")
    for field in fields(Figures):
        title, scale, unit = _ROWS[field.name]
        threading = [getattr(first, field.name) * scale for first, _ in rounds]
        dispatched = [getattr(second, field.name) * scale for _, second in rounds]
        table.add_row(
            title,
            spread(threading, unit),
            spread(dispatched, unit),
            better_by(threading, dispatched, more_is_better=unit.endswith("/s")),
        )
    return table


def main() -> None:
    """Run the rounds and print the table."""
    count = rounds_from_arguments(__doc__)
    console = Console()
    with Progress(console=console, transient=True) as progress:
        rounds = [
            (_threading_round(), _dispatched_round())
            for _ in progress.track(range(count), description="rounds")
        ]
    console.print(_table(rounds))
    memory = in_fresh_process(bytes_per_idle_channel)
    console.print(
        f"a live, idle channel (connect actor, session, router's and journal's entries),"
        f" {CHANNELS:,} live: {memory:,.0f} B"
    )


if __name__ == "__main__":
    main()
