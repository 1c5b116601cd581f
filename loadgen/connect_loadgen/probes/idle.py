"""What a channel of the service costs in memory: a live, idle one, and one that was passivated.

``python -m connect_loadgen.probes.idle CHANNELS`` measures in a process of its own, and prints
one line of JSON.
"""

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from connect_actor.actors.commands import Restore, Restored
from connect_actor.actors.dispatcher import Dispatcher
from connect_actor.actors.environment import ConnectEnvironment
from connect_actor.actors.permits import RecoveryPermits
from connect_actor.actors.router import Router, RouterSettings
from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.committer import Committer
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.persistence.strategies import STRATEGIES
from connect_actor.process.paths import journal_file
from connect_actor.protocol.handshake import ChannelLimits
from connect_actor.protocol.keys import Identity
from connect_actor.reply import AwaitedReply
from connect_loadgen.drive.load import Progress
from connect_loadgen.drive.salvo import MeasureError
from connect_loadgen.experiment.model import Probe
from connect_loadgen.experiment.results import Round
from connect_loadgen.probes.planting import Planted, plant
from connect_loadgen.program.child import how_ended, kill_child, start_child

__all__ = ["CHANNELS", "ChannelMemory", "bytes_per_idle_channel", "main", "memory_side"]

CHANNELS: Final = 10_000
_BATCH = 1_000
# The first stays live, the second takes its place and whatever passivation leaves behind once, the
# third does the same again: what is left of it is left of every channel.
_WAVES = 3


@dataclass(frozen=True, slots=True)
class ChannelMemory:
    """Bytes that the resident set grows by."""

    idle: float
    """For each channel that is brought to life."""
    passivated: float
    """For each that is brought to life and then passivated, as many others being live."""


def memory_side(name: str, channels: int) -> Probe:
    """Return the side that measures so many channels, in a fresh process."""

    async def measure(progress: Progress) -> Round:
        progress.step(f"bringing {_WAVES} times {channels} channels to life")
        process = await start_child(
            *(sys.executable, "-m", "connect_loadgen.probes.idle", str(channels)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            printed, said = await process.communicate()
        finally:
            kill_child(process)
        if process.returncode != 0:
            why = said.decode(errors="replace").strip().splitlines()[-1:]
            raise MeasureError(f"{how_ended(process.returncode or 0)}: {''.join(why)}")
        memory = ChannelMemory(**json.loads(printed))
        return Round(
            figures={"idle_kb": memory.idle / 1_000, "passivated_kb": memory.passivated / 1_000}
        )

    return Probe(name, measure)


def bytes_per_idle_channel() -> float:
    """Return what the resident set grows by for each of ``CHANNELS`` that are brought to life.

    They lie in a real journal and are recovered by real actors, as after a restart of the service;
    so nothing that only the handshake needs is counted.
    """
    before, after = asyncio.run(_resident(CHANNELS, waves=1))
    return (after - before) / CHANNELS


def _memory(channels: int) -> ChannelMemory:
    before, live, replaced, again = asyncio.run(_resident(channels, waves=_WAVES))
    return ChannelMemory((live - before) / channels, (again - replaced) / channels)


async def _resident(channels: int, *, waves: int) -> list[int]:
    """Return the resident set without channels, then after each wave of them, bytes."""
    with tempfile.TemporaryDirectory() as directory:
        planted = plant(Path(directory), channels * waves)
        return await _measure(Path(directory) / journal_file(0, 1), planted, channels, waves)


async def _measure(file: Path, planted: Planted, channels: int, waves: int) -> list[int]:
    process = psutil.Process()
    gc.collect()
    resident: list[int] = [process.memory_info().rss]
    loop = asyncio.get_running_loop()
    journal = SqliteJournal(file, keys=KeyRing.of(planted.key), strategy="differential")
    committer = Committer(journal, loop, max_waiting=channels, timeout=60.0)
    environment = ConnectEnvironment(
        committer=committer,
        permits=RecoveryPermits(64, loop, max_waiting=channels, timeout=60.0),
        strategy=STRATEGIES["differential"],
        snapshot_interval=50,
        identity=Identity.generate(os.urandom),
        limits=ChannelLimits(),
        clock=lambda: time.time_ns() // 1_000,
        settled=lambda: time.time_ns() // 1_000,
        monotonic=loop.time,
        random=os.urandom,
    )
    settings = RouterSettings(
        awaiting=False,
        idle_timeout=3_600.0,
        # Beyond them each new one passivates the least recently used.
        max_live_actors=channels,
        restart_backoff=1.0,
        max_restart_backoff=1.0,
    )
    router = Router(settings, environment, Dispatcher(loop), loop)
    for wave in range(waves):
        last = (wave + 1) * channels
        for first in range(wave * channels + 1, last + 1, _BATCH):
            await _bring_to_life(router, range(first, min(first + _BATCH, last + 1)))
        if router.live != channels:
            raise RuntimeError(f"{router.live} channels are live, expected {channels}")
        gc.collect()
        resident.append(process.memory_info().rss)
    await router.drain()
    await committer.close()
    return resident


async def _bring_to_life(router: Router, channels: Sequence[int]) -> None:
    replies = []
    for channel in channels:
        reply: AwaitedReply = AwaitedReply()
        router.route(channel, Restore(), reply)
        replies.append(reply)
    answers = [await reply for reply in replies]
    if not all(isinstance(answer, Restored) for answer in answers):
        raise RuntimeError("a wrong answer: these figures would mean nothing")


def main() -> None:
    """Measure so many channels as the argument says."""
    print(json.dumps(asdict(_memory(int(sys.argv[1])))))  # noqa: T201 - its output


if __name__ == "__main__":
    main()
