"""Benchmarks of actors and channels: everything of the service but gRPC, on a journal on disk."""

import itertools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import uvloop
from pykka.messages import _ActorStop

from connect_actor.actors.actor import DispatchedActor, ask
from connect_actor.actors.commands import Close, Encrypt, Establish
from connect_actor.actors.dispatcher import Dispatcher
from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.persistence.strategies import STRATEGIES
from connect_actor.protocol.handshake import Initiation, connect_id_of
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.payload import Payload
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.bench.cases import Benchmark, Operation, Prepare
from connect_loadgen.bench.house import House

__all__ = ["BENCHMARKS"]

_PIPELINED = 64
_ACTORS = 100
_CHANNELS = 100
_PACED = 400
_RATE = 2_000
_MESSAGE = bytes(64)


@contextmanager
def _house(strategy: str = "differential") -> Iterator[House]:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        journal = SqliteJournal(
            Path(directory, "journal.db"), keys=KeyRing.of(os.urandom(32)), strategy=strategy
        )
        house = House(journal, strategy)
        try:
            yield house
        finally:
            house.close()


def _establish(house: House, channels: int) -> list[int]:
    """Make so many channels and return their ids."""
    requests = [_request() for _ in range(channels)]
    house.ask_all([(connect_id_of(request), Establish(request)) for request in requests])
    return [connect_id_of(request) for request in requests]


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
        answers = [await ask(ref, number) for number, ref in enumerate(refs)]
        for ref in refs:
            await ask(ref, _ActorStop())
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
        ids = itertools.cycle(_establish(house, channels))
        ask = partial(house.ask_paced, rate=_RATE) if paced else house.ask_all

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
