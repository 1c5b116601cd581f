"""The service in this process, without gRPC: what every benchmark of the whole service measures.

Journal, group commit, router, actors and strategies are the service's own, and so is the stream
(``open_stream``): frames go in as bytes and results come out as messages.
"""

import asyncio
import os
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import grpc
import uvloop

from benchmarks.rounds import require
from connect_actor.access.gate import Caller
from connect_actor.actors.commands import Command, Establish
from connect_actor.actors.dispatcher import Dispatcher
from connect_actor.actors.environment import ConnectEnvironment
from connect_actor.actors.permits import RecoveryPermits
from connect_actor.actors.router import Router, RouterSettings
from connect_actor.clock import ServiceClock
from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.committer import Committer
from connect_actor.persistence.contract import Journal
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.persistence.strategies import STRATEGIES
from connect_actor.protocol.handshake import ChannelLimits, Initiation, connect_id_of
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.primitives import KeyPairs
from connect_actor.protocol.session import Session
from connect_actor.reply import AwaitedReply
from connect_actor.rpc.admission import Admission, Bounds
from connect_actor.rpc.entrance import Visit
from connect_actor.rpc.exchange import Exchange, StreamLimits
from connect_actor.rpc.statistics import RequestStatistics
from connect_actor.v1 import connect_pb2 as wire

__all__ = [
    "Channel",
    "InProcess",
    "Stream",
    "encrypts",
    "in_process",
    "require_answered",
    "sqlite_journal",
]

_TICK_SECONDS = 0.01
_MOST = 100_000
# Ten thousand channels that are recovered at once on a busy machine take half a minute.
_PATIENCE = 120.0
# Operations of one stream that may be under way.
_IN_FLIGHT = 4_096
_MESSAGE_BYTES = 1 << 20
_FRAME_BYTES = 1 << 22

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel of the service, and its peer's end."""

    connect_id: int
    peer: Session


def sqlite_journal(
    path: Path, strategy: str = "differential", key: bytes | None = None
) -> SqliteJournal:
    """Open, or make, a journal, sealed under a key of its own by default."""
    return SqliteJournal(path, keys=KeyRing.of(key or os.urandom(32)), strategy=strategy)


class InProcess:
    """The service without gRPC, on an event loop of its own; ``close`` or ``abandon`` it."""

    def __init__(
        self,
        journal: Journal,
        strategy: str = "differential",
        *,
        key_pairs: KeyPairs | None = None,
        redelivery_window: int = 0,
        snapshot_interval: int = 50,
        max_live_actors: int = _MOST,
    ) -> None:
        """Take over a journal. Times and limits that are no argument are generous."""
        self.loop = uvloop.new_event_loop()
        clock = ServiceClock(0)
        self.committer = Committer(journal, self.loop, max_waiting=_MOST, timeout=_PATIENCE)
        self.environment = ConnectEnvironment(
            committer=self.committer,
            permits=RecoveryPermits(64, self.loop, max_waiting=_MOST, timeout=_PATIENCE),
            strategy=STRATEGIES[strategy],
            snapshot_interval=snapshot_interval,
            identity=Identity.generate(os.urandom),
            limits=ChannelLimits(redelivery_window=redelivery_window),
            clock=clock.wall,
            settled=clock.settled,
            monotonic=self.loop.time,
            random=os.urandom,
            key_pairs=key_pairs,
        )
        self.router = Router(
            RouterSettings(
                awaiting=False,
                idle_timeout=3_600.0,
                max_live_actors=max_live_actors,
                restart_backoff=1.0,
                max_restart_backoff=1.0,
            ),
            self.environment,
            Dispatcher(self.loop),
            self.loop,
        )

    def run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine on the service's loop."""
        return self.loop.run_until_complete(coroutine)

    def ask_all(self, commands: Sequence[tuple[int, Command]]) -> list[object]:
        """Ask everything at once and return the answers, in order."""
        return self.run(self._ask_all(commands))

    async def _ask_all(self, commands: Sequence[tuple[int, Command]]) -> list[object]:
        replies: list[AwaitedReply] = []
        for connect_id, command in commands:
            reply = AwaitedReply()
            self.router.route(connect_id, command, reply)
            replies.append(reply)
        return [await reply for reply in replies]

    def ask_paced(self, commands: Sequence[tuple[int, Command]], rate: int) -> list[object]:
        """Ask at an even rate a second, whatever the answers do, and return these, in order."""
        return self.run(self._ask_paced(commands, rate))

    async def _ask_paced(self, commands: Sequence[tuple[int, Command]], rate: int) -> list[object]:
        due, step = self.loop.time(), int(rate * _TICK_SECONDS)
        asked = []
        for begin in range(0, len(commands), step):
            asked.append(self.loop.create_task(self._ask_all(commands[begin : begin + step])))
            due += _TICK_SECONDS
            await asyncio.sleep(due - self.loop.time())
        return [answer for answers in asked for answer in await answers]

    def establish(self, channels: int) -> list[Channel]:
        """Make so many channels."""
        begun = [
            Initiation.begin(Identity.generate(os.urandom), os.urandom) for _ in range(channels)
        ]
        ids = [connect_id_of(initiation.request) for initiation in begun]
        commands = [Establish(initiation.request) for initiation in begun]
        answers = self.ask_all(list(zip(ids, commands, strict=True)))
        return [
            Channel(
                connect_id,
                initiation.complete(wire.EstablishResponse.FromString(cast("bytes", answer))),
            )
            for connect_id, initiation, answer in zip(ids, begun, answers, strict=True)
        ]

    def open_stream(self, statistics: RequestStatistics | None = None) -> "Stream":
        """Return a stream, as a caller without a name has it."""
        return Stream(self, RequestStatistics() if statistics is None else statistics)

    def close(self) -> None:
        """Stop every actor and release the journal."""
        self.run(self.router.drain())
        self.abandon()

    def abandon(self) -> None:
        """Release the journal, and leave the actors as a crash would."""
        self.run(self.committer.close())
        self.loop.close()


@contextmanager
def in_process(
    strategy: str = "differential",
    *,
    key_pairs: KeyPairs | None = None,
    redelivery_window: int = 0,
    snapshot_interval: int = 50,
) -> Iterator[InProcess]:
    """Serve on a fresh SQLite journal, durable as in production, until this ends."""
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        service = InProcess(
            sqlite_journal(Path(directory, "journal.db"), strategy),
            strategy,
            key_pairs=key_pairs,
            redelivery_window=redelivery_window,
            snapshot_interval=snapshot_interval,
        )
        try:
            yield service
        finally:
            service.close()


def encrypts(channels: Sequence[Channel], operations: int, plaintext: bytes) -> bytes:
    """Return a frame of Encrypts, of the channels in turn."""
    return wire.OperationFrame(
        operations=[
            wire.Operation(
                operation_id=number + 1,
                encrypt=wire.EncryptRequest(
                    connect_id=channels[number % len(channels)].connect_id, plaintext=plaintext
                ),
            )
            for number in range(operations)
        ]
    ).SerializeToString()


class Stream:
    """An Exchange without gRPC, as a context manager; leaving it ends the stream."""

    def __init__(self, service: InProcess, statistics: RequestStatistics) -> None:
        """Prepare a stream of a service."""
        self._service = service
        self._call = _Call()
        self._exchange = Exchange(
            service.router,
            statistics,
            Admission(Bounds(max_operations=2 * _IN_FLIGHT)),
            Caller(b"", None, None),
            StreamLimits(_MESSAGE_BYTES, _FRAME_BYTES, _IN_FLIGHT),
            cast("Visit", self._call),
            deadline=None,
            stream_id="benchmark",
        )
        self._results: list[wire.OperationResult] = []
        self._expected = 0
        self._answered = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        """Open it."""
        self._serving = self._service.loop.create_task(self._serve())
        return self

    def __exit__(self, *_: object) -> None:
        """End it, as a peer that has finished sending."""
        self._call.context.frames.put_nowait(grpc.aio.EOF)
        if self._serving is not None:
            self._service.run(_done(self._serving))

    async def _serve(self) -> None:
        async for frame in self._exchange.serve():
            self._results += frame.results
            if len(self._results) == self._expected:
                self._answered.set()

    def exchange(self, frames: Sequence[bytes], operations: int) -> list[wire.OperationResult]:
        """Send frames at once and return what all of their operations are answered with.

        Args:
            frames: serialised; together not more operations than a stream may have under way.
            operations: how many there are in them.
        """
        self._results, self._expected = [], operations
        self._service.run(self._exchange_all(frames))
        return self._results

    async def _exchange_all(self, frames: Sequence[bytes]) -> None:
        self._answered.clear()
        for frame in frames:
            self._call.context.frames.put_nowait(frame)
        await self._answered.wait()


async def _done(task: asyncio.Task[None]) -> None:
    await task


class _Frames:
    """The call's own side: frames from a queue."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[object] = asyncio.Queue()

    async def read(self) -> object:
        """Return the next frame, in a pass of the loop of its own, as gRPC does."""
        await asyncio.sleep(0)
        return await self.frames.get()


class _Call:
    """What an exchange asks of its call: frames, and room without limits."""

    def __init__(self) -> None:
        self.context = _Frames()

    def reading(self, _: object) -> None:
        """Reserve room to wait for a frame."""

    def read(self, _: object) -> None:
        """Release that room."""

    def when_over(self, _: Callable[[], object]) -> None:
        """Do nothing: the call outlives the measurement."""


def require_answered(results: Sequence[wire.OperationResult], outcome: str) -> None:
    """Refuse results that are anything but the outcome."""
    require(all(result.WhichOneof("outcome") == outcome for result in results))
