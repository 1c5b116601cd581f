"""The service as it is, but for gRPC, on a loop and a thread that are stepped."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from pykka import ActorRegistry

from connect_actor.actors.connect import ConnectActor
from connect_actor.actors.dispatcher import Dispatcher
from connect_actor.actors.environment import ConnectEnvironment
from connect_actor.actors.permits import RecoveryPermits
from connect_actor.actors.router import Router, RouterSettings
from connect_actor.errors import StorageError
from connect_actor.persistence.committer import Committer
from connect_actor.persistence.contract import Journal, JournalHangsError, Recovery
from connect_actor.persistence.gathering import Gathering
from connect_actor.protocol.handshake import ChannelLimits
from connect_actor.protocol.keys import Identity
from tests.simulation.peers import MAX_SKIP
from tests.simulation.stepping import Clock, SteppedLoop, SteppedThread
from tests.simulation.storage import AllStrategies
from tests.support.channels import NOW, seeded

__all__ = ["Process", "Shape", "Surroundings"]

_IDENTITY = Identity.generate(seeded(0))


@dataclass(frozen=True)
class Shape:
    """What stays the same for a schedule. Times are seconds."""

    strategy: str = "differential"
    awaiting: bool = False
    channels: int = 3
    snapshot_interval: int = 5
    turn_every: int = 2
    permits: int = 1
    max_waiting_recoveries: int = 2
    recovery_wait_timeout: float = 3.0
    journal_timeout: float = 2.0
    idle_timeout: float = 4.0
    max_waiting_writes: int = 20
    commit_delay: float = 0.0


class Surroundings(Protocol):
    """What a process finds, and what outlives it."""

    shape: Shape
    clock: Clock

    def pass_clock(self) -> float:
        """Tell dispatcher and gathering how long a pass has taken, in seconds."""

    def meet_defect(self, where: str) -> None:
        """Raise if there is a defect here."""

    def random_bytes(self, count: int) -> bytes:
        """Return what the service takes for randomness."""


class _Committer(Committer):
    """Counts the channels that are loading, for itself."""

    loading = 0

    def recover(
        self, channel: int, on_answer: Callable[[Recovery | None, StorageError | None], None]
    ) -> None:
        self.loading += 1

        def answered(recovery: Recovery | None, error: StorageError | None) -> None:
            self.loading -= 1
            on_answer(recovery, error)

        super().recover(channel, answered)


class Process:
    """All that is gone when the process dies."""

    def __init__(self, surroundings: Surroundings, journal: Journal) -> None:
        shape = surroundings.shape
        # The rest of an event loop's many methods is of no use here.
        self.loop = SteppedLoop(surroundings.clock)  # type: ignore[abstract]
        self.thread = SteppedThread()
        self.committer = _Committer(
            journal,
            self.loop,
            max_waiting=shape.max_waiting_writes,
            timeout=shape.journal_timeout,
            gathering=Gathering(shape.commit_delay, surroundings.pass_clock),
            thread=self.thread,
        )
        self.permits = RecoveryPermits(
            shape.permits,
            self.loop,
            max_waiting=shape.max_waiting_recoveries,
            timeout=shape.recovery_wait_timeout,
        )
        environment = ConnectEnvironment(
            committer=self.committer,
            permits=self.permits,
            strategy=partial(
                AllStrategies,
                shape.strategy,
                surroundings.meet_defect,
            ),
            snapshot_interval=shape.snapshot_interval,
            identity=_IDENTITY,
            limits=ChannelLimits(
                dh_ratchet_every=shape.turn_every,
                max_skip=MAX_SKIP,
                max_skipped_keys=MAX_SKIP,
                one_time_prekeys=1,
            ),
            clock=lambda: NOW,
            settled=lambda: NOW,
            monotonic=self.loop.time,
            random=surroundings.random_bytes,
        )
        self.router = Router(
            RouterSettings(
                awaiting=shape.awaiting,
                idle_timeout=shape.idle_timeout,
                max_live_actors=100,
                restart_backoff=0.2,
                max_restart_backoff=1.0,
            ),
            environment,
            Dispatcher(self.loop, surroundings.pass_clock),
            self.loop,
        )
        self._stopping: asyncio.Task[None] | None = None

    @property
    def stopping(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping is not None

    @property
    def stopped(self) -> bool:
        """Whether it has."""
        return self._stopping is not None and self._stopping.done() and not self.gave_up

    @property
    def gave_up(self) -> bool:
        """Whether it has ended without an answer of the journal, as if it were killed."""
        return (
            self._stopping is not None
            and self._stopping.done()
            and isinstance(self._stopping.exception(), JournalHangsError)
        )

    @property
    def slow(self) -> bool:
        """Whether someone waits for the journal."""
        return self.committer._round is not None or self.committer._scheduled

    def stop(self) -> None:
        """Begin to stop in order, as the service does at SIGTERM."""
        if self._stopping is None:
            self._stopping = self.loop.create_task(self._stop())

    async def _stop(self) -> None:
        await self.router.drain()
        await self.committer.close()

    def faults(self, shape: Shape) -> list[str]:
        """Return which rules are broken at this moment."""
        found = []
        if self.committer.loading > shape.permits:
            found.append(f"{self.committer.loading} channels load at a time")
        if self.permits.in_use > shape.permits:
            found.append(f"{self.permits.in_use} permits are in use")
        if self.permits.waiting > shape.max_waiting_recoveries:
            found.append(f"{self.permits.waiting} wait for a permit")
        if self.loop.failures:
            found.append(f"raised into the loop: {self.loop.failures}")
        if self.stopped and self.router.live:
            found.append("stopped while actors were alive")
        if self.stopped and ActorRegistry.get_by_class(ConnectActor):
            found.append("actors outlive the service")
        return found

    def kill(self) -> None:
        """Let go of what has no end of its own."""
        for ref in ActorRegistry.get_by_class(ConnectActor):
            ActorRegistry.unregister(ref)
        task = self._stopping
        if task is not None and not task.done():
            # Nobody will ever run it: no reason for asyncio to complain.
            task._log_destroy_pending = False  # type: ignore[attr-defined] # private
            task.get_coro().close()
