"""A whole service but gRPC, for benchmarks that touch all of it."""

import asyncio
import os
from collections.abc import Sequence

import uvloop

from connect_actor.actors.commands import Command
from connect_actor.actors.dispatcher import Dispatcher
from connect_actor.actors.environment import ConnectEnvironment
from connect_actor.actors.permits import RecoveryPermits
from connect_actor.actors.router import Router, RouterSettings
from connect_actor.persistence.committer import Committer
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.persistence.strategies import STRATEGIES
from connect_actor.protocol.handshake import ChannelLimits
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.primitives import KeyPairs
from connect_actor.reply import AwaitedReply
from connect_loadgen.bench.sessions import now

__all__ = ["House"]

_TICK_SECONDS = 0.01
_MOST = 100_000
# Ten thousand channels that are recovered at once on a busy machine take half a minute.
_PATIENCE = 120.0


class House:
    """A whole service but gRPC, on an event loop of its own."""

    def __init__(
        self, journal: SqliteJournal, strategy: str, key_pairs: KeyPairs | None = None
    ) -> None:
        """Take a journal over."""
        self.loop = uvloop.new_event_loop()
        self._committer = Committer(journal, self.loop, max_waiting=_MOST, timeout=_PATIENCE)
        self.environment = ConnectEnvironment(
            committer=self._committer,
            permits=RecoveryPermits(64, self.loop, max_waiting=_MOST, timeout=_PATIENCE),
            strategy=STRATEGIES[strategy],
            snapshot_interval=50,
            identity=Identity.generate(os.urandom),
            limits=ChannelLimits(),
            clock=now,
            settled=now,
            monotonic=self.loop.time,
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
            Dispatcher(self.loop),
            self.loop,
        )

    def ask_all(self, commands: Sequence[tuple[int, Command]]) -> list[object]:
        """Ask everything at once and return the answers, in order."""
        return self.loop.run_until_complete(self._ask_all(commands))

    async def _ask_all(self, commands: Sequence[tuple[int, Command]]) -> list[object]:
        replies: list[AwaitedReply] = []
        for connect_id, command in commands:
            reply: AwaitedReply = AwaitedReply()
            self._router.route(connect_id, command, reply)
            replies.append(reply)
        return [await reply for reply in replies]

    def ask_paced(self, commands: Sequence[tuple[int, Command]], rate: int) -> list[object]:
        """Ask at an even rate a second, whatever the answers do, and return these, in order."""
        return self.loop.run_until_complete(self._ask_paced(commands, rate))

    async def _ask_paced(self, commands: Sequence[tuple[int, Command]], rate: int) -> list[object]:
        due, step = self.loop.time(), int(rate * _TICK_SECONDS)
        asked = []
        for begin in range(0, len(commands), step):
            asked.append(self.loop.create_task(self._ask_all(commands[begin : begin + step])))
            due += _TICK_SECONDS
            await asyncio.sleep(due - self.loop.time())
        return [answer for answers in asked for answer in await answers]

    def close(self) -> None:
        """Stop every actor and release the journal."""
        self.loop.run_until_complete(self._router.drain())
        self.abandon()

    def abandon(self) -> None:
        """Release the journal, and leave the actors as a crash would."""
        self.loop.run_until_complete(self._committer.close())
        self.loop.close()
