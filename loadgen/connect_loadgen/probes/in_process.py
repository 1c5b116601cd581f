"""What can be measured within one process: sizes, allocations and rates of serialising a message.

A message here is what the service does for it between wire and journal: encrypt or decrypt, and
make the strategy's record. A stretch is ten messages each way, so that the ratchet turns as often
as it does under load; the peer's share of the work is done between stretches. All is done in
rounds that interleave the strategies.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from connect_actor.persistence.strategies import STRATEGIES, Strategy
from connect_actor.protocol.changes import Change
from connect_actor.protocol.handshake import ChannelLimits, Initiation, respond
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.session import Session
from connect_actor.protocol.wire import payload_to_wire
from connect_actor.stored.v1 import session_pb2 as stored
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.probes.allocation import AllocationUnavailableError, measure
from connect_loadgen.probes.changed import changed_bytes

__all__ = ["MicroRound", "StrategyFigures", "measure_round"]

_MESSAGE = bytes(64)
_PAYLOAD_MESSAGE = bytes(1024)
_EACH_WAY = 10
_STRETCHES = 20
_REPEATS = 300


@dataclass(frozen=True, slots=True)
class Allocated:
    """What something asks of Python's allocators, in all domains."""

    bytes: float
    blocks: float


@dataclass(slots=True)
class StrategyFigures:
    """One strategy's figures of one round; allocations are missing without the counting hook."""

    message: Allocated | None
    """Of one message."""
    record: Allocated | None
    """Of making one record."""
    snapshot: Allocated | None
    """Of one snapshot."""
    record_bytes: float
    records_per_second: float
    """How often a record can be made, one after another."""


@dataclass(slots=True)
class MicroRound:
    """All figures of one round."""

    strategies: dict[str, StrategyFigures] = field(default_factory=dict)
    channel_keys_bytes: int = 0
    ratchet_bytes: float = 0.0
    """Stored form of the ratchet, mean over the messages."""
    changed_bytes: float = 0.0
    state_bytes: float = 0.0
    payload: Allocated | None = None
    """Of encrypting 1 KiB into a payload on the wire."""
    fresh: Allocated | None = None
    """Of the encryption alone, into fresh memory."""
    reused: Allocated | None = None
    """Of the encryption alone, into a reused buffer."""
    fresh_per_second: float = 0.0
    reused_per_second: float = 0.0


class _Talk:
    """Both ends of a channel, and the service's strategy."""

    def __init__(self, strategy: Strategy) -> None:
        self._strategy = strategy
        initiation = Initiation.begin(Identity.generate(os.urandom), os.urandom)
        self.service = respond(
            initiation.request,
            identity=Identity.generate(os.urandom),
            limits=ChannelLimits(),
            now=_now(),
            random=os.urandom,
        )
        response = wire.EstablishResponse.FromString(self.service.handshake.response)
        self._peer: Session = initiation.complete(response)
        self._sent: list[Payload] = []
        self._sealed: list[Payload] = []
        self.records: list[int] = []
        self.prepare()

    def prepare(self) -> None:
        """Do the peer's share: open what the service sent, seal what it will get."""
        for payload in self._sent:
            if self._peer.decrypt(payload, now=_now())[0] != _MESSAGE:
                raise ArithmeticError("the peer reads something else than the service wrote")
        self._sent.clear()
        self._sealed = [
            self._peer.encrypt(_MESSAGE, now=_now(), random=os.urandom)[0] for _ in range(_EACH_WAY)
        ]

    def stretch(self) -> None:
        """Do the service's share."""
        for payload in self._sealed:
            self._record(self.decrypt(payload))
        for _ in range(_EACH_WAY):
            self._record(self.encrypt())

    def decrypt(self, payload: Payload) -> Change:
        return self.service.decrypt(payload, now=_now())[1]

    def encrypt(self) -> Change:
        payload, change = self.service.encrypt(_MESSAGE, now=_now(), random=os.urandom)
        self._sent.append(payload)
        return change

    def _record(self, change: Change) -> None:
        _, record = self._strategy.record(self.service, change)
        self.records.append(len(record))

    def each_message(self) -> list[Callable[[], Change]]:
        """Return the messages of a stretch, one by one."""
        decrypts = [partial(self.decrypt, payload) for payload in self._sealed]
        return [*decrypts, *[self.encrypt] * _EACH_WAY]


def measure_round() -> MicroRound:
    """Measure everything once."""
    figures = MicroRound()
    for name, make in STRATEGIES.items():
        figures.strategies[name] = _measure_strategy(make())
    _measure_state(figures)
    _measure_payload(figures)
    return figures


def _measure_strategy(strategy: Strategy) -> StrategyFigures:
    talk = _Talk(strategy)
    talk.stretch()  # what is made once for a channel is made now
    talk.records.clear()
    stretches: list[Allocated | None] = []
    for _ in range(_STRETCHES):
        talk.prepare()
        stretches.append(_allocated(talk.stretch, calls=1, warm_up=0))
    change = talk.encrypt()
    return StrategyFigures(
        message=_mean(stretches, messages=_STRETCHES * 2 * _EACH_WAY),
        record=_allocated(lambda: strategy.record(talk.service, change)),
        snapshot=_allocated(lambda: strategy.state(talk.service)),
        record_bytes=sum(talk.records) / len(talk.records),
        records_per_second=_rate(lambda: strategy.record(talk.service, change)),
    )


def _allocated(
    call: Callable[[], object], *, calls: int = _REPEATS, warm_up: int = 10
) -> Allocated | None:
    try:
        counted = measure(call, calls=calls, warm_up=warm_up)
    except AllocationUnavailableError:
        for _ in range(calls):
            call()
        return None
    return Allocated(counted.bytes_per_call, counted.blocks_per_call)


def _mean(parts: list[Allocated | None], messages: int) -> Allocated | None:
    counted = [part for part in parts if part is not None]
    if len(counted) < len(parts):
        return None
    return Allocated(
        sum(part.bytes for part in counted) / messages,
        sum(part.blocks for part in counted) / messages,
    )


def _measure_state(figures: MicroRound) -> None:
    talk = _Talk(STRATEGIES["full"]())
    talk.stretch()
    changed, ratchet, state = [], [], []
    for _ in range(_STRETCHES):
        talk.prepare()
        for message in talk.each_message():
            before = stored.SessionState.FromString(talk.service.encode()).ratchet
            message()
            encoded = talk.service.encode()
            after = stored.SessionState.FromString(encoded).ratchet
            changed.append(changed_bytes(before, after))
            ratchet.append(after.ByteSize())
            state.append(len(encoded))
    static = stored.SessionState.FromString(talk.service.encode_static())
    figures.channel_keys_bytes = static.channel_keys.ByteSize()
    figures.changed_bytes = sum(changed) / len(changed)
    figures.ratchet_bytes = sum(ratchet) / len(ratchet)
    figures.state_bytes = sum(state) / len(state)


def _measure_payload(figures: MicroRound) -> None:
    session = _Talk(STRATEGIES["full"]()).service
    session.encrypt(_PAYLOAD_MESSAGE, now=_now(), random=os.urandom)  # the turn that is due

    def make_payload() -> bytes:
        payload, _ = session.encrypt(_PAYLOAD_MESSAGE, now=_now(), random=os.urandom)
        message = wire.CipherPayload()
        payload_to_wire(payload, message)
        return message.SerializeToString()

    key, nonce = AESGCM.generate_key(256), os.urandom(12)
    buffer = bytearray(len(_PAYLOAD_MESSAGE) + 16)
    # The same key and nonce each time: nothing of this leaves, and only its cost is wanted.
    cipher = AESGCM(key)

    def into_fresh() -> object:
        return cipher.encrypt(nonce, _PAYLOAD_MESSAGE, nonce)

    def into_reused() -> object:
        return cipher.encrypt_into(nonce, _PAYLOAD_MESSAGE, nonce, buffer)

    if into_fresh() != (into_reused(), bytes(buffer))[1]:
        raise ArithmeticError("the two ways to encrypt differ")
    figures.payload = _allocated(make_payload)
    figures.fresh = _allocated(into_fresh)
    figures.reused = _allocated(into_reused)
    figures.fresh_per_second = _rate(lambda: AESGCM(key).encrypt(nonce, _PAYLOAD_MESSAGE, nonce))
    figures.reused_per_second = _rate(
        lambda: AESGCM(key).encrypt_into(nonce, _PAYLOAD_MESSAGE, nonce, buffer)
    )


def _rate(operation: Callable[[], object]) -> float:
    """Return how often an operation can be done in a second: the best of five goes."""
    best = float("inf")
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(_REPEATS):
            operation()
        best = min(best, time.perf_counter() - begun)
    return _REPEATS / best


def _now() -> int:
    return time.time_ns() // 1_000
