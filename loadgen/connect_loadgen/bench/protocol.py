"""Benchmarks of the protocol: handshake, ratchet, encryption and decryption."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from connect_actor.protocol import primitives
from connect_actor.protocol.handshake import ChannelLimits, Initiation, respond
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.payload import Payload
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.bench.cases import Benchmark, Operation, Prepare
from connect_loadgen.bench.sessions import make_ends, now

__all__ = ["BENCHMARKS"]

# So many messages share a turn where turns are not what is measured.
_NEVER = 1_000_000


@contextmanager
def _handshake(_: int) -> Iterator[Operation]:
    peer, service = Identity.generate(os.urandom), Identity.generate(os.urandom)

    def operation() -> bool:
        initiation = Initiation.begin(peer, os.urandom)
        session = respond(
            initiation.request,
            identity=service,
            limits=ChannelLimits(),
            now=now(),
            random=os.urandom,
        )
        response = wire.EstablishResponse.FromString(session.handshake.response)
        own = initiation.complete(response, pinned_identity=service.public_key)
        return own.ratchet.associated_data == session.ratchet.associated_data

    yield operation


@contextmanager
def _chain_step(_: int) -> Iterator[Operation]:
    chain_key = os.urandom(32)
    yield partial(primitives.step_chain, chain_key)


@contextmanager
def _dh_turn(_: int) -> Iterator[Operation]:
    ends = make_ends(dh_ratchet_every=1)

    def operation() -> bytes:
        """A message each way, and so a turn of each end: two exchanges and two key pairs."""
        ends.peer.decrypt(ends.reply(b""), now=now())
        return ends.service.decrypt(ends.seal(b"turned"), now=now())[0]

    yield operation


@contextmanager
def _encrypt(size: int, _: int) -> Iterator[Operation]:
    session, plaintext = make_ends(dh_ratchet_every=_NEVER).service, bytes(size)

    def operation() -> Payload:
        return session.encrypt(plaintext, now=now(), random=os.urandom)[0]

    yield operation


@contextmanager
def _decrypt(size: int, calls: int) -> Iterator[Operation]:
    ends = make_ends(dh_ratchet_every=_NEVER)
    waiting = iter([ends.seal(bytes(size)) for _ in range(calls)])
    session = ends.service

    def operation() -> bytes:
        return session.decrypt(next(waiting), now=now())[0]

    yield operation


@contextmanager
def _decrypt_skipped(calls: int) -> Iterator[Operation]:
    """Every message comes before the one that was sent before it."""
    ends = make_ends(dh_ratchet_every=_NEVER)
    sealed = [ends.seal(bytes(64)) for _ in range(2 * calls)]
    pairs = iter(zip(sealed[1::2], sealed[::2], strict=True))
    session = ends.service

    def operation() -> bytes:
        later, earlier = next(pairs)
        session.decrypt(later, now=now())
        return session.decrypt(earlier, now=now())[0]

    yield operation


def _sized(size: int) -> str:
    return f"{size} B"


def _encrypts(size: int) -> Benchmark:
    prepare: Prepare = partial(_encrypt, size)
    return Benchmark(
        f"encrypt: {_sized(size)}",
        prepare,
        lambda made: isinstance(made, Payload) and len(made.ciphertext) == size + 16,
        is_baseline=size == 64,
    )


def _decrypts(size: int) -> Benchmark:
    prepare: Prepare = partial(_decrypt, size)
    return Benchmark(
        f"decrypt: {_sized(size)}",
        prepare,
        lambda read: read == bytes(size),
        is_baseline=size == 64,
    )


_SIZES = (64, 512, 2_048, 65_536)

BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark("handshake: X3DH of both ends", _handshake, lambda agreed: agreed is True),
    Benchmark(
        "ratchet: symmetric step",
        _chain_step,
        lambda keys: isinstance(keys, tuple) and len(set(keys)) == 2,
        is_baseline=True,
    ),
    Benchmark(
        "ratchet: DH turn of both ends", _dh_turn, lambda read: read == b"turned", operations=2
    ),
    *(_encrypts(size) for size in _SIZES),
    *(_decrypts(size) for size in _SIZES),
    Benchmark(
        "decrypt: 64 B with every other one late",
        _decrypt_skipped,
        lambda read: read == bytes(64),
        operations=2,
    ),
)
