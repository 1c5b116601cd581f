"""Sides of the row about handshakes: channels established over a stream, and the limit of that.

The limit is what the X25519, Ed25519 and HKDF of the service's end alone would take on one core:
counted while one handshake is answered in this process, and timed here, both in the same round.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

from nacl import bindings as sodium

from connect_actor.client import ConnectClient, Identity
from connect_actor.errors import ConnectError
from connect_actor.protocol import primitives
from connect_actor.protocol.handshake import ChannelLimits, Initiation, respond
from connect_actor.protocol.primitives import KeyPair, SigningKey
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.load import Progress
from connect_loadgen.drive.salvo import MeasureError
from connect_loadgen.drive.self_check import SelfCheck, verdict_on
from connect_loadgen.drive.transport import Transport, ask_all, open_transport
from connect_loadgen.experiment.model import Probe
from connect_loadgen.experiment.results import Round
from connect_loadgen.probes.trial import Variant, on_fresh_service
from connect_loadgen.service.process import ServiceProcess
from connect_loadgen.service.sampling import cpu_seconds_of
from connect_loadgen.settings.load import LoadSettings

__all__ = ["OPERATIONS", "costs_of_operations", "count_operations", "handshakes_side", "limit_side"]

OPERATIONS = (
    "X25519 key pairs",
    "X25519 exchanges",
    "Ed25519 signatures",
    "Ed25519 verifications",
    "HKDFs",
)
_WARM_UP = 100
# A fifth of a second for all of them: long enough for a mean, short beside a round.
_TIMED_CALLS = 500


# --- What the service does ------------------------------------------------------------------------


def handshakes_side(name: str, variant: Variant, load: LoadSettings) -> Probe:
    """Return the side that establishes the load's channels, all asked for at once on a stream."""

    async def measure(progress: Progress) -> Round:
        return await on_fresh_service(
            variant, load, lambda service: _establish_all(service, load, progress), progress
        )

    return Probe(name, measure)


async def _establish_all(service: ServiceProcess, load: LoadSettings, progress: Progress) -> Round:
    identity = Identity.generate(os.urandom)
    async with (
        open_transport(service.endpoint, load) as transport,
        service.endpoint.client() as client,
    ):
        progress.step(f"making {load.channels} requests")
        numbers = count(1)
        warm_up, initiations = (
            [client.begin(identity, load.one_time_prekeys) for _ in range(size)]
            for size in (_WARM_UP, load.channels)
        )
        await _ask(transport, warm_up, numbers, load)
        progress.step(f"establishing {load.channels} channels")
        before, begun = await cpu_seconds_of(service.metrics), time.perf_counter()
        async with SelfCheck() as check:
            answers = await _ask(transport, initiations, numbers, load)
        seconds = time.perf_counter() - begun
        cpu_seconds = await cpu_seconds_of(service.metrics) - before
        for initiation, answer in zip(initiations, answers, strict=True):
            _complete(client, initiation, answer)
    generator = verdict_on(check.cpu_share, check.loop_lag, None, 0, cpu_seconds / seconds)
    return Round(
        figures={
            "per_second": load.channels / seconds,
            "cpu_us": cpu_seconds / load.channels * 1e6,
            "generator_cpu_share": check.cpu_share,
        },
        generator_bound=bool(generator.warnings),
    )


async def _ask(
    transport: Transport,
    initiations: Sequence[Initiation],
    numbers: Iterator[int],
    load: LoadSettings,
) -> list[wire.OperationResult]:
    return await ask_all(
        transport,
        [
            wire.Operation(operation_id=next(numbers), establish=initiation.request)
            for initiation in initiations
        ],
        patience=load.timeout_seconds,
    )


def _complete(client: ConnectClient, initiation: Initiation, answer: wire.OperationResult) -> None:
    if answer.WhichOneof("outcome") != "establish":
        raise MeasureError(f"a handshake was refused: {answer.error.message}")
    try:
        client.complete(initiation, answer.establish)
    except ConnectError as error:
        raise MeasureError(f"a handshake's answer is WRONG: {error}") from error


# --- What it can't do without ---------------------------------------------------------------------


def limit_side(name: str) -> Probe:
    """Return the side that measures what cryptography alone leaves room for, in this process."""

    async def measure(progress: Progress) -> Round:
        progress.step("counting and timing the cryptography of a handshake")
        counted, costs = count_operations(), costs_of_operations()
        microseconds = sum(counted[operation] * costs[operation] for operation in OPERATIONS)
        return Round(
            figures={
                "per_second": 1e6 / microseconds,
                "cpu_us": microseconds,
                **{operation: float(counted[operation]) for operation in OPERATIONS},
            }
        )

    return Probe(name, measure)


def count_operations() -> Counter[str]:
    """Count what the service's end of one handshake does, by doing one.

    Raises:
        MeasureError: an operation was not seen at all: it is done in some other way by now.
    """
    request = Initiation.begin(Identity.generate(os.urandom), os.urandom).request
    identity = Identity.generate(os.urandom)
    counted: Counter[str] = Counter()
    with (
        _counting(sodium, "crypto_scalarmult_base", counted, "X25519 key pairs"),
        _counting(KeyPair, "exchange", counted, "X25519 exchanges"),
        _counting(SigningKey, "sign", counted, "Ed25519 signatures"),
        _counting(primitives, "verify", counted, "Ed25519 verifications"),
        _counting(primitives, "hkdf", counted, "HKDFs"),
    ):
        respond(
            request,
            identity=identity,
            limits=ChannelLimits(),
            now=time.time_ns() // 1_000,
            random=os.urandom,
        )
    if missed := [operation for operation in OPERATIONS if not counted[operation]]:
        raise MeasureError(f"no {' and no '.join(missed)} seen in a handshake")
    return counted


@contextmanager
def _counting(owner: Any, name: str, counted: Counter[str], what: str) -> Iterator[None]:  # noqa: ANN401 - a class or a module
    """Count the calls of one function of a class or module while this lasts."""
    counted_one = getattr(owner, name)

    def count_and_call(*given: Any, **named: Any) -> Any:  # noqa: ANN401 - whatever it takes
        counted[what] += 1
        return counted_one(*given, **named)

    setattr(owner, name, count_and_call)
    try:
        yield
    finally:
        setattr(owner, name, counted_one)


def costs_of_operations(calls: int = _TIMED_CALLS) -> dict[str, float]:
    """Return the CPU time of each operation in this process, microseconds."""
    pair, peer = KeyPair.generate(os.urandom), KeyPair.generate(os.urandom).public_key
    identity = Identity.generate(os.urandom)
    message = os.urandom(512)
    signature = identity.sign(message)
    secret = os.urandom(primitives.KEY_SIZE)
    timed: dict[str, Callable[[], object]] = {
        "X25519 key pairs": lambda: KeyPair.generate(os.urandom).public_key,
        "X25519 exchanges": lambda: pair.exchange(peer),
        "Ed25519 signatures": lambda: identity.sign(message),
        "Ed25519 verifications": lambda: primitives.verify(identity.public_key, signature, message),
        "HKDFs": lambda: primitives.hkdf(
            secret, salt=secret, info=b"reach", length=2 * primitives.KEY_SIZE
        ),
    }
    return {operation: _cpu_us(timed[operation], calls) for operation in OPERATIONS}


def _cpu_us(call: Callable[[], object], calls: int) -> float:
    call()
    begun = time.thread_time_ns()
    for _ in range(calls):
        call()
    return (time.thread_time_ns() - begun) / calls / 1_000
