"""Several changes of one channel as one record: runs of messages that differ in their index only.

A channel that is busy while a commit is under way has many changes for the next one. Most are
messages next to each other on a chain, so a run is told by its first change and how many follow.
"""

from collections.abc import Iterator
from typing import NamedTuple

from google.protobuf.message import DecodeError

from protos.connect_actor.stored.v1 import session_pb2 as stored
from service.protocol.changes import (
    Change,
    InconsistentChangeError,
    Received,
    Sent,
    change_from_stored,
    change_to_stored,
)

__all__ = ["MAX_CHANGES", "ChangeRuns", "decode_change_runs"]

MAX_CHANGES = 4_096
"""Changes in one record; bounds the work that a damaged one can ask for."""


class _Run(NamedTuple):
    first: Change
    further: int


class ChangeRuns:
    """Changes in order, as few runs as they make. For one thread."""

    __slots__ = ("_count", "_first", "_further", "_kind", "_next", "_runs")

    def __init__(self, change: Change) -> None:
        """Begin with a first change."""
        self._runs: list[_Run] = []
        self._count = 1
        self._begin(change)

    def _begin(self, change: Change) -> None:
        self._first = change
        self._further = 0
        repeatable = (type(change) is Sent and change.once is None) or (
            type(change) is Received and not change.digest
        )
        self._kind = type(change) if repeatable else None
        self._next = change[0] + 1

    def add(self, change: Change) -> None:
        """Add the next change, unless it is ``full``."""
        self._count += 1
        # A message with anything beside its number can't be told by that of the one before.
        if type(change) is self._kind and change[0] == self._next and not any(change[1:]):
            self._next += 1
            self._further += 1
            return
        self._runs.append(_Run(self._first, self._further))
        self._begin(change)

    @property
    def full(self) -> bool:
        """Whether the next change has to begin another record."""
        return self._count >= MAX_CHANGES

    @property
    def single(self) -> Change | None:
        """The change, if it is the only one."""
        return None if self._runs or self._further else self._first

    def encode(self) -> bytes:
        """Return the stored form: some 8 bytes for a run."""
        message = stored.ChangeRuns()
        for first, further in (*self._runs, _Run(self._first, self._further)):
            message.runs.add(first=change_to_stored(first), further=further)
        return message.SerializeToString()


def decode_change_runs(encoded: bytes) -> Iterator[Change]:
    """Yield the changes that were added, in order.

    Raises:
        InconsistentChangeError: the bytes are no runs of changes.
    """
    try:
        message = stored.ChangeRuns.FromString(encoded)
    except DecodeError as error:
        raise InconsistentChangeError("stored changes can't be parsed") from error
    count = len(message.runs) + sum(run.further for run in message.runs)
    if not 0 < count <= MAX_CHANGES:
        raise InconsistentChangeError(f"a record of changes holds {count}")
    for run in message.runs:
        first = change_from_stored(run.first)
        yield first
        if not run.further:
            continue
        if not isinstance(first, Sent | Received):
            raise InconsistentChangeError(f"a run of {run.further} changes that can't be one")
        kind = type(first)
        for number in range(run.further):
            yield kind(first.message_number + number + 1)
