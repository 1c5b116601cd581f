"""Benchmarks of actors and channels: everything of the service but gRPC, on a journal on disk."""

import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import uvloop

from loadgen.bench.cases import Benchmark, Operation, Prepare
from loadgen.bench.sessions import now
from protos.connect_actor.v1 import connect_pb2 as wire
from service.actors.actor import DispatchedActor
from service.actors.commands import Close, Command, Encrypt, Establish
from service.actors.dispatcher import Dispatcher
from service.actors.environment import ConnectEnvironment
from service.actors.future import LoopFuture
from service.actors.permits import RecoveryPermits
from service.actors.router import Router, RouterSettings
from service.persistence.committer import Committer
from service.persistence.sqlite import SqliteJournal
from service.persistence.strategies import STRATEGIES
from service.protocol.handshake import ChannelLimits, Initiation, connect_id_of
from service.protocol.keys import Identity
from service.protocol.payload import Payload

__all__ = ["BENCHMARKS"]

_PIPELINED = 64
_ACTORS = 100
_CHANNELS = 100
_SUSTAINED = 1_000
_MESSAGE = bytes(64)


class _House:
    """A whole service but gRPC, on an event loop of its own."""

    def __init__(self, journal: SqliteJournal, strategy: str) -> None:
        self.loop = uvloop.new_event_loop()
        self._committer = Committer(journal, self.loop, max_waiting=100_000, timeout=30.0)
        environment = ConnectEnvironment(
            committer=self._committer,
            permits=RecoveryPermits(64),
            strategy=STRATEGIES[strategy],
            snapshot_interval=50,
            identity=Identity.generate(os.urandom),
            limits=ChannelLimits(),
            clock=now,
            monotonic=self.loop.time,
            random=os.urandom,
        )
        self._router = Router(
            RouterSettings(
                awaiting=False,
                idle_timeout=600.0,
                max_live_actors=100_000,
                restart_backoff=1.0,
                max_restart_backoff=1.0,
            ),
            environment,
            Dispatcher(self.loop),
            self.loop,
        )

    def ask_all(self, commands: Sequence[tuple[int, Command]]) -> list[object]:
        """Ask everything at once and return the answers, in order."""
        return self.loop.run_until_complete(self._ask_all(commands))

    async def _ask_all(self, commands: Sequence[tuple[int, Command]]) -> list[object]:
        replies: list[LoopFuture[object]] = []
        for connect_id, command in commands:
            reply: LoopFuture[object] = LoopFuture()
            self._router.route(connect_id, command, reply)
            replies.append(reply)
        return [await reply for reply in replies]

    def establish(self, channels: int) -> list[int]:
        """Make so many channels and return their ids."""
        requests = [_request() for _ in range(channels)]
        self.ask_all([(connect_id_of(request), Establish(request)) for request in requests])
        return [connect_id_of(request) for request in requests]

    def close(self) -> None:
        """Stop every actor and release the journal."""
        self.loop.run_until_complete(self._router.drain())
        self.loop.run_until_complete(self._committer.close())
        self.loop.close()


@contextmanager
def _house(strategy: str = "differential") -> Iterator[_House]:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        journal = SqliteJournal(
            Path(directory, "journal.db"), master_key=os.urandom(32), strategy=strategy
        )
        house = _House(journal, strategy)
        try:
            yield house
        finally:
            house.close()


def _request() -> wire.EstablishRequest:
    return Initiation.begin(Identity.generate(os.urandom), os.urandom).request


class _Counter(DispatchedActor):
    """An actor that says that it was there."""

    def on_receive(self, message: int) -> int:
        return message + 1


@contextmanager
def _start_and_stop(_: int) -> Iterator[Operation]:
    loop = uvloop.new_event_loop()
    dispatcher = Dispatcher(loop)

    async def live() -> int:
        refs = [_Counter.start(dispatcher=dispatcher) for _ in range(_ACTORS)]
        answers = [await ref.ask(number, block=False) for number, ref in enumerate(refs)]
        stops = [ref.stop(block=False) for ref in refs]
        for stop in stops:
            await stop
        return sum(answers)

    try:
        yield lambda: loop.run_until_complete(live())
    finally:
        dispatcher.close()
        loop.close()


@contextmanager
def _create_and_close(calls: int) -> Iterator[Operation]:
    requests = iter([_request() for _ in range(calls)])
    with _house() as house:

        def operation() -> list[object]:
            request = next(requests)
            connect_id = connect_id_of(request)
            return house.ask_all([(connect_id, Establish(request)), (connect_id, Close())])

        yield operation


@contextmanager
def _encrypt(strategy: str, channels: int, messages: int, _: int) -> Iterator[Operation]:
    with _house(strategy) as house:
        ids = itertools.cycle(house.establish(channels))

        def operation() -> list[object]:
            chosen = itertools.islice(ids, messages)
            return house.ask_all([(connect_id, Encrypt(_MESSAGE)) for connect_id in chosen])

        yield operation


def _all_payloads(answers: object) -> bool:
    return isinstance(answers, list) and all(isinstance(answer, Payload) for answer in answers)


def _encrypts(group: str, strategy: str, channels: int, messages: int) -> Benchmark:
    prepare: Prepare = partial(_encrypt, strategy, channels, messages)
    return Benchmark(
        f"{group}: {strategy}",
        prepare,
        _all_payloads,
        operations=messages,
        is_baseline=strategy == "full",
    )


BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        "actor: start, one ask, stop",
        _start_and_stop,
        lambda total: total == sum(range(1, _ACTORS + 1)),
        operations=_ACTORS,
    ),
    Benchmark(
        "channel: create and close",
        _create_and_close,
        lambda answers: isinstance(answers, list) and isinstance(answers[0], bytes),
    ),
    *(
        _encrypts(group, strategy, channels, messages)
        for group, channels, messages in (
            (f"one channel, {_PIPELINED} pipelined", 1, _PIPELINED),
            (f"{_PIPELINED} parallel channels", _PIPELINED, _PIPELINED),
            (f"GC pressure, {_SUSTAINED:,} on {_CHANNELS} channels", _CHANNELS, _SUSTAINED),
        )
        for strategy in STRATEGIES
    ),
)
