"""Persistence strategies: what is written for one change. The seam that the lab measures.

A strategy sees the session *after* the change and the change itself, and returns a record's kind
and payload. Records say what they are, so recovery needs no strategy, and a journal that one
strategy began any other can continue.

A fourth strategy is one class here and one line in ``STRATEGIES``.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from connect_actor.persistence.contract import RecordKind
from connect_actor.protocol.changes import Change, encode_change
from connect_actor.protocol.session import Session

__all__ = ["STRATEGIES", "Cached", "Differential", "Full", "Strategy"]


class Strategy(Protocol):
    """One channel's strategy; made when its actor has a session, and dropped with it."""

    def record(self, session: Session, change: Change) -> tuple[RecordKind, bytes]:
        """Return what makes ``change`` durable; ``session`` already has it."""

    def state(self, session: Session) -> bytes:
        """Return the whole session, for its first record and for snapshots."""


class Full:
    """The whole session with every change, built and serialised anew: the audited server's way."""

    __slots__ = ()

    def record(self, session: Session, change: Change) -> tuple[RecordKind, bytes]:
        """See ``Strategy``."""
        del change  # the state says it all
        return RecordKind.STATE, session.encode()

    def state(self, session: Session) -> bytes:
        """See ``Strategy``."""
        return session.encode()


class Cached:
    """The whole session with every change, but what never changes is serialised only once."""

    __slots__ = ("_static",)

    def __init__(self) -> None:
        self._static: bytes | None = None

    def record(self, session: Session, change: Change) -> tuple[RecordKind, bytes]:
        """See ``Strategy``."""
        del change  # the state says it all
        return RecordKind.STATE, self.state(session)

    def state(self, session: Session) -> bytes:
        """See ``Strategy``."""
        if self._static is None:
            self._static = session.encode_static()
        return self._static + session.encode_ratchet()


class Differential:
    """The change alone; recovery derives again what follows from it."""

    __slots__ = ()

    def record(self, session: Session, change: Change) -> tuple[RecordKind, bytes]:
        """See ``Strategy``."""
        del session  # recovery has the one before the change
        return RecordKind.CHANGE, encode_change(change)

    def state(self, session: Session) -> bytes:
        """See ``Strategy``."""
        return session.encode_static() + session.encode_ratchet()


STRATEGIES: Mapping[str, Callable[[], Strategy]] = {
    "full": Full,
    "cached": Cached,
    "differential": Differential,
}
