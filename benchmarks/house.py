"""A whole service but gRPC on an event loop of its own, for the benchmarks that touch it all."""

import gc
import os
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from loadgen.bench.sessions import now
from service.actors.commands import Command
from service.actors.dispatcher import Dispatcher
from service.actors.environment import ConnectEnvironment
from service.actors.future import LoopFuture
from service.actors.permits import RecoveryPermits
from service.actors.router import Router, RouterSettings
from service.persistence.committer import Committer
from service.persistence.keyring import KeyRing
from service.persistence.sqlite import SqliteJournal
from service.persistence.strategies import STRATEGIES
from service.protocol.handshake import ChannelLimits
from service.protocol.keys import Identity
from service.protocol.primitives import KeyPairs

__all__ = ["House", "open_journal"]

_PERMITS = 64
_MOST = 1_000_000
_PATIENCE = 120.0


def open_journal(path: Path) -> SqliteJournal:
    """Open, or make, a journal."""
    return SqliteJournal(path, keys=KeyRing.of(bytes(32)), strategy="differential")


class House:
    """Takes a journal over; ``close`` it."""

    def __init__(self, journal: SqliteJournal, key_pairs: KeyPairs | None = None) -> None:
        self._loop = uvloop.new_event_loop()
        self._committer = Committer(journal, self._loop, max_waiting=_MOST, timeout=_PATIENCE)
        self.environment = ConnectEnvironment(
            committer=self._committer,
            permits=RecoveryPermits(_PERMITS, self._loop, max_waiting=_MOST, timeout=_PATIENCE),
            strategy=STRATEGIES["differential"],
            snapshot_interval=100,
            identity=Identity.generate(os.urandom),
            limits=ChannelLimits(),
            clock=now,
            monotonic=self._loop.time,
            random=os.urandom,
            key_pairs=key_pairs,
        )
        self._router = Router(
            RouterSettings(
                awaiting=False,
                idle_timeout=600.0,
                max_live_actors=_MOST,
                restart_backoff=1.0,
                max_restart_backoff=1.0,
            ),
            self.environment,
            Dispatcher(self._loop),
            self._loop,
        )

    def ask(
        self, commands: Sequence[tuple[int, Command]], at_once: int
    ) -> tuple[list[object], float]:
        """Ask so many commands at once until all are answered.

        Returns:
            The answers, in order, and the seconds of CPU that the process took for them.
        """

        async def ask_all() -> list[object]:
            answers = []
            for first in range(0, len(commands), at_once):
                replies: list[LoopFuture[object]] = []
                for connect_id, command in commands[first : first + at_once]:
                    reply: LoopFuture[object] = LoopFuture()
                    self._router.route(connect_id, command, reply)
                    replies.append(reply)
                answers += [await reply for reply in replies]
            return answers

        # As the service does when it is ready.
        gc.collect()
        gc.freeze()
        begun = time.process_time()
        try:
            return self._loop.run_until_complete(ask_all()), time.process_time() - begun
        finally:
            gc.unfreeze()

    def close(self) -> None:
        """Release the journal, and leave the actors as a crash would."""
        self._loop.run_until_complete(self._committer.close())
        self._loop.close()
