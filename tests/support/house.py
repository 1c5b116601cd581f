"""A whole service but for gRPC, on the running event loop: journal, committer, actors, router."""

import asyncio
import itertools
import os
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

from connect_actor.actors.commands import Command, Decrypt, Encrypt, Establish
from connect_actor.actors.dispatcher import Dispatcher
from connect_actor.actors.environment import ActorStatistics, ConnectEnvironment
from connect_actor.actors.permits import RecoveryPermits
from connect_actor.actors.router import Router, RouterSettings, _Live
from connect_actor.client.channel import wall_clock as real_clock
from connect_actor.clock import ServiceClock
from connect_actor.persistence.committer import Committer
from connect_actor.persistence.contract import Journal
from connect_actor.persistence.strategies import STRATEGIES
from connect_actor.protocol.delivery import Delivered
from connect_actor.protocol.handshake import ChannelLimits, connect_id_of
from connect_actor.protocol.keys import DEFAULT_ONE_TIME_PREKEYS, Identity
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.primitives import KeyPairs
from connect_actor.protocol.session import Session
from connect_actor.reply import AwaitedReply
from connect_actor.v1 import connect_pb2 as wire
from tests.support.channels import NOW, establish_request, seeded
from tests.support.process import PATIENCE

__all__ = ["House", "PeerEnd"]


@dataclass
class PeerEnd:
    """A channel of the house, and the peer's end of it."""

    house: "House"
    connect_id: int
    session: Session
    owner: bytes = b""

    def ask(self, command: Command) -> AwaitedReply:
        return self.house.ask(self.connect_id, command, self.owner)

    def occupy(self) -> None:
        """Keep the channel's actor from serving at once: what comes next waits in its mailbox."""
        live = self.house.router._channels[self.connect_id]
        assert isinstance(live, _Live)
        live.mailbox.put_signal(object())

    def seal(self, plaintext: bytes) -> Payload:
        return self.session.encrypt(plaintext, now=NOW, random=os.urandom)[0]

    def open(self, payload: Payload) -> bytes:
        return self.session.decrypt(payload, now=NOW)[0]

    async def encrypt(self, plaintext: bytes) -> Payload:
        payload: Payload = await answer(self.ask(Encrypt(plaintext)))
        return payload

    async def decrypt(self, payload: Payload) -> bytes:
        answered: bytes | Delivered[bytes] = await answer(self.ask(Decrypt(payload)))
        return answered.result if isinstance(answered, Delivered) else answered


class House:
    """Made by ``make``; ``close`` it."""

    def __init__(
        self,
        journal: Journal,
        *,
        strategy: str = "differential",
        awaiting: bool = False,
        idle_timeout: float = 600.0,
        snapshot_interval: int = 50,
        max_live_actors: int = 1_000,
        max_channels: int = 0,
        max_waiting: int = 10_000,
        permits: int = 64,
        max_waiting_recoveries: int = 1_000,
        recovery_wait_timeout: float = 30.0,
        journal_timeout: float = 30.0,
        restart_backoff: float = 0.05,
        wall_clock: bool = False,
        redelivery_window: int = 0,
        one_time_prekeys: int = DEFAULT_ONE_TIME_PREKEYS,
        thread: Executor | None = None,
        monotonic: Callable[[], float] | None = None,
        key_pairs: KeyPairs | None = None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.journal = journal
        self.now = NOW
        self.settled: int | None = None  # by default as now
        self.service_clock = ServiceClock(0)
        self.committer = Committer(
            journal, loop, max_waiting=max_waiting, timeout=journal_timeout, thread=thread
        )
        self.environment = ConnectEnvironment(
            committer=self.committer,
            permits=RecoveryPermits(
                permits, loop, max_waiting=max_waiting_recoveries, timeout=recovery_wait_timeout
            ),
            strategy=STRATEGIES[strategy],
            snapshot_interval=snapshot_interval,
            identity=Identity.generate(seeded(0)),
            limits=ChannelLimits(
                redelivery_window=redelivery_window, one_time_prekeys=one_time_prekeys
            ),
            clock=real_clock if wall_clock else lambda: self.now,
            settled=lambda: self.now if self.settled is None else self.settled,
            monotonic=monotonic or loop.time,
            random=os.urandom,
            key_pairs=key_pairs,
        )
        self.dispatcher = Dispatcher(loop)
        self.router = Router(
            RouterSettings(
                awaiting=awaiting,
                idle_timeout=idle_timeout,
                max_live_actors=max_live_actors,
                restart_backoff=restart_backoff,
                max_restart_backoff=1.0,
                max_channels=max_channels,
            ),
            self.environment,
            self.dispatcher,
            loop,
        )

    @property
    def statistics(self) -> ActorStatistics:
        return self.environment.statistics

    def ask(self, connect_id: int, command: Command, owner: bytes = b"") -> AwaitedReply:
        reply: AwaitedReply = AwaitedReply()
        self.router.route(connect_id, command, reply, owner)
        return reply

    async def establish_in_step(self) -> PeerEnd:
        """Establish until a channel's first snapshot is a whole interval away."""
        interval = self.environment.snapshot_interval
        seed = next(
            seed
            for seed in itertools.count(1)
            if connect_id_of(establish_request(seed)[1]) % interval == 0
        )
        return await self.establish(seed)

    async def establish(self, seed: int = 1, owner: bytes = b"") -> PeerEnd:
        initiation, request = establish_request(seed)
        connect_id = connect_id_of(request)
        response = await answer(self.ask(connect_id, Establish(request), owner))
        session = initiation.complete(wire.EstablishResponse.FromString(response))
        return PeerEnd(self, connect_id, session, owner)

    async def owner(self, channel: int) -> bytes:
        """Ask the journal for a channel's owner, on its own thread as everything."""
        found: list[bytes] = []
        await self.committer.perform(lambda journal: found.append(journal.owner(channel)))
        return found[0]

    async def close(self) -> None:
        await asyncio.wait_for(self.router.drain(), PATIENCE)
        await asyncio.wait_for(self.committer.close(), PATIENCE)


async def answer(reply: AwaitedReply) -> Any:  # noqa: ANN401 - whatever was asked for
    """Wait for an answer, but not for ever."""

    async def wait() -> Any:  # noqa: ANN401 - whatever was asked for
        return await reply

    return await asyncio.wait_for(wait(), PATIENCE)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, but not for ever."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - of code that offers no event
            await asyncio.sleep(0.001)
