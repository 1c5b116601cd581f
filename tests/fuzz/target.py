"""What a fuzz target is, and how the work that it does for an input is counted."""

import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import ClassVar, Protocol
from unittest.mock import patch

from connect_actor.protocol import message_step, primitives

__all__ = ["FaultError", "Target", "Work", "require", "traced_peak"]


class FaultError(Exception):
    """A promise is broken; the message says which."""


def require(promise: bool, what: str) -> None:  # noqa: FBT001 - reads as an assertion
    """Check a promise; unlike ``assert`` it is no exception that code under test might catch."""
    if not promise:
        raise FaultError(what)


class Target(Protocol):
    """One parser, or one way into the service."""

    name: ClassVar[str]
    style: ClassVar[str]
    """What mutations know of its inputs: see ``Mutator``."""
    max_steps: ClassVar[int]
    """Steps of a symmetric-key chain that one input may cost."""
    base_bytes: ClassVar[int]
    """Bytes that it may hold for any input, beside what all targets may."""

    def seeds(self) -> Mapping[str, bytes]:
        """Return the corpus's inputs by name, made from real messages, always the same."""

    def run(self, data: bytes) -> bool:
        """Feed it with an input; return whether it was accepted.

        Raises:
            FaultError: a promise is broken.
            Exception: anything that is not documented is a fault, too.
        """

    def close(self) -> None:
        """Free what it holds; check what can only be checked at the end."""


class Work:
    """Counts what one input costs, instead of seconds."""

    def __init__(self) -> None:
        self.steps = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count while in this context."""
        step, skip = primitives.step_chain, primitives.skip_chain

        def step_chain(chain_key: bytes) -> tuple[bytes, bytes]:
            self.steps += 1
            return step(chain_key)

        def skip_chain(chain_key: bytes, messages: int) -> bytes:
            self.steps += messages
            return skip(chain_key, messages)

        with (
            # Nothing can look into a native call.
            patch.object(message_step, "_active", message_step.PYTHON),
            patch.object(primitives, "step_chain", step_chain),
            patch.object(primitives, "skip_chain", skip_chain),
        ):
            yield


def traced_peak(run: Callable[[], object]) -> int:
    """Return the bytes that Python held at most while something ran."""
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
