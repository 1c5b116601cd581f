"""Benchmarks of actors and channels: everything of the service but gRPC, on a journal on disk."""

import asyncio
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
from service.persistence.keyring import KeyRing
from service.persistence.sqlite import SqliteJournal
from service.persistence.strategies import STRATEGIES
from service.protocol.handshake import ChannelLimits, Initiation, connect_id_of
from service.protocol.keys import Identity
from service.protocol.payload import Payload

__all__ = ["BENCHMARKS"]

_PIPELINED = 64
_ACTORS = 100
_CHANNELS = 100
_PACED = 400
_RATE = 2_000
_TICK_SECONDS = 0.01
_MESSAGE = bytes(64)


class _House:
    """A whole service but gRPC, on an event loop of its own."""

    def __init__(self, journal: SqliteJournal, strategy: str) -> None:
        self.loop = uvloop.new_event_loop()
        self._committer = Committer(journal, self.loop, max_waiting=100_000, timeout=30.0)
        environment = ConnectEnvironment(
            committer=self._committer,
            permits=RecoveryPermits(64, self.loop, max_waiting=100_000, timeout=30.0),
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

    def ask_paced(self, commands: Sequence[tuple[int, Command]]) -> list[object]:
        """Ask at an even rate, whatever the answers do, and return these, in order."""
        return self.loop.run_until_complete(self._ask_paced(commands))

    async def _ask_paced(self, commands: Sequence[tuple[int, Command]]) -> list[object]:
        due, step = self.loop.time(), int(_RATE * _TICK_SECONDS)
        asked = []
        for begin in range(0, len(commands), step):
            asked.append(self.loop.create_task(self._ask_all(commands[begin : begin + step])))
            due += _TICK_SECONDS
            await asyncio.sleep(due - self.loop.time())
        return [answer for answers in asked for answer in await answers]

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
            Path(directory, "journal.db"), keys=KeyRing.of(os.urandom(32)), strategy=strategy
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
def _encrypt(
    strategy: str, channels: int, messages: int, _: int, *, paced: bool
) -> Iterator[Operation]:
    with _house(strategy) as house:
        ids = itertools.cycle(house.establish(channels))
        ask = house.ask_paced if paced else house.ask_all

        def operation() -> list[object]:
            chosen = itertools.islice(ids, messages)
            return ask([(connect_id, Encrypt(_MESSAGE)) for connect_id in chosen])

        yield operation


def _is_opened_and_closed(answers: object) -> bool:
    match answers:
        case [bytes() as response, None]:
            return wire.EstablishResponse.FromString(response).HasField("bundle")
    return False


def _all_payloads(messages: int, answers: object) -> bool:
    return (
        isinstance(answers, list)
        and len(answers) == messages
        and all(isinstance(answer, Payload) for answer in answers)
    )


def _encrypts(group: str, channels: int, messages: int, *, paced: bool) -> Iterator[Benchmark]:
    for strategy in STRATEGIES:
        prepare: Prepare = partial(_encrypt, strategy, channels, messages, paced=paced)
        yield Benchmark(
            f"{group}: {strategy}",
            prepare,
            partial(_all_payloads, messages),
            operations=messages,
            is_baseline=strategy == "full",
        )


BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        "actor: start and one ask and stop",
        _start_and_stop,
        lambda total: total == sum(range(1, _ACTORS + 1)),
        operations=_ACTORS,
    ),
    Benchmark(
        "channel: create and close",
        _create_and_close,
        _is_opened_and_closed,
    ),
    *_encrypts(f"one channel with {_PIPELINED} pipelined", 1, _PIPELINED, paced=False),
    *_encrypts(f"{_PIPELINED} parallel channels", _PIPELINED, _PIPELINED, paced=False),
    *_encrypts(f"GC pressure at {_RATE}/s on {_CHANNELS} channels", _CHANNELS, _PACED, paced=True),
)
