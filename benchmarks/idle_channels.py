"""What a live, idle channel of the service costs in memory, all that the process keeps of it.

Not a command: ``benchmarks.actors`` runs it in a process of its own.
"""

import asyncio
import gc
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from benchmarks.rounds import require
from service.actors.commands import Restore, Restored
from service.actors.dispatcher import Dispatcher
from service.actors.environment import ConnectEnvironment
from service.actors.future import LoopFuture
from service.actors.permits import RecoveryPermits
from service.actors.router import Router, RouterSettings
from service.persistence.committer import Committer
from service.persistence.contract import Batch, Record, RecordKind
from service.persistence.keyring import KeyRing
from service.persistence.sqlite import SqliteJournal
from service.persistence.strategies import STRATEGIES
from service.protocol.handshake import ChannelLimits, Initiation, respond
from service.protocol.keys import Identity

__all__ = ["CHANNELS", "bytes_per_idle_channel"]

CHANNELS: Final = 10_000
_BATCH = 1_000


def bytes_per_idle_channel() -> float:
    """Return what the resident set grows by for each of ``CHANNELS`` that are brought to life.

    They lie in a real journal and are recovered by real actors, as after a restart of the service;
    so nothing that only the handshake needs is counted.
    """
    return asyncio.run(_measure())


async def _measure() -> float:
    identity = Identity.generate(os.urandom)
    session = respond(
        Initiation.begin(identity, os.urandom).request,
        identity=identity,
        limits=ChannelLimits(),
        now=time.time_ns() // 1_000,
        random=os.urandom,
    ).encode()
    with tempfile.TemporaryDirectory() as directory:
        journal = SqliteJournal(
            Path(directory) / "journal.db", keys=KeyRing.of(bytes(32)), strategy="differential"
        )
        for first in range(1, CHANNELS + 1, _BATCH):
            records = [
                Record(channel, 1, RecordKind.STATE, session)
                for channel in range(first, first + _BATCH)
            ]
            require(not journal.commit(Batch(records)))
        journal.close()
        return await _growth(Path(directory) / "journal.db", identity)


async def _growth(file: Path, identity: Identity) -> float:
    process = psutil.Process()
    gc.collect()
    before: int = process.memory_info().rss
    loop = asyncio.get_running_loop()
    journal = SqliteJournal(file, keys=KeyRing.of(bytes(32)), strategy="differential")
    committer = Committer(journal, loop, max_waiting=CHANNELS, timeout=60.0)
    environment = ConnectEnvironment(
        committer=committer,
        permits=RecoveryPermits(64, loop, max_waiting=CHANNELS, timeout=60.0),
        strategy=STRATEGIES["differential"],
        snapshot_interval=50,
        identity=identity,
        limits=ChannelLimits(),
        clock=lambda: time.time_ns() // 1_000,
        monotonic=loop.time,
        random=os.urandom,
    )
    settings = RouterSettings(
        awaiting=False,
        idle_timeout=3_600.0,
        max_live_actors=CHANNELS,
        restart_backoff=1.0,
        max_restart_backoff=1.0,
    )
    router = Router(settings, environment, Dispatcher(loop), loop)
    for first in range(1, CHANNELS + 1, _BATCH):
        await _bring_to_life(router, range(first, first + _BATCH))
    require(router.live == CHANNELS)
    gc.collect()
    after: int = process.memory_info().rss
    await router.drain()
    await committer.close()
    return (after - before) / CHANNELS


async def _bring_to_life(router: Router, channels: Sequence[int]) -> None:
    replies = []
    for channel in channels:
        reply: LoopFuture[Restored] = LoopFuture()
        router.route(channel, Restore(), reply)
        replies.append(reply)
    for reply in replies:
        require(isinstance(await reply, Restored))
