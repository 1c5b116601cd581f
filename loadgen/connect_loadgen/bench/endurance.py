"""Benchmark of a session that goes on and on: its memory must stay flat, told by a count of blocks.

Blocks, not bytes and not time: as many are alive after a stretch of messages as before it, on any
machine.
"""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from connect_loadgen.bench.cases import Benchmark, Operation
from connect_loadgen.bench.sessions import Ends, make_ends, now

__all__ = ["BENCHMARKS", "blocks_by_stretch", "converse"]

_MESSAGES = 500
# Until every cache and free list is full.
_WARM_UP = 1_000
# A fraction of what a single object left behind by every tenth message would add up to.
_NOISE = 10


def converse(ends: Ends, messages: int) -> None:
    """Send so many messages each way, with the turns of the DH ratchet that fall due."""
    for _ in range(messages):
        ends.peer.decrypt(ends.reply(b"there"), now=now())
        ends.service.decrypt(ends.seal(b"and back"), now=now())


def blocks_by_stretch(ends: Ends, stretches: int, messages: int) -> list[int]:
    """Return the blocks alive after each stretch of messages each way on one channel."""
    alive = []
    for _ in range(stretches):
        converse(ends, messages)
        alive.append(_alive())
    return alive


def _alive() -> int:
    gc.collect()
    return sys.getallocatedblocks()


@contextmanager
def _long_session(_: int) -> Iterator[Operation]:
    ends = make_ends()
    converse(ends, _WARM_UP)
    before = _alive()

    def operation() -> int:
        converse(ends, _MESSAGES)
        return before

    yield operation


def _is_flat(before: object) -> bool:
    return isinstance(before, int) and _alive() - before <= _NOISE


BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        f"long session: {_MESSAGES} messages each way and memory flat",
        _long_session,
        _is_flat,
        operations=2 * _MESSAGES,
    ),
)
