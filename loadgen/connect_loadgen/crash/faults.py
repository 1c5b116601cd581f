"""What a ledger can find wrong with the service; an empty list is the proof."""

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Fault", "FaultKind", "Faults"]

# Enough to see a pattern. Beyond, faults are counted and not kept.
_KEPT = 200


class FaultKind(StrEnum):
    """Promises, by how they are broken."""

    LOST = "lost"
    """What was acknowledged is gone."""
    REUSED = "reused"
    """A place on a chain, or a nonce, bears two messages."""
    DECRYPTED_TWICE = "decrypted twice"
    """A message was decrypted again, and not as a redelivery."""
    WRONG = "wrong answer"
    """An answer of another kind or content than there can be, or that the peer can't open."""
    REFUSED = "refused"
    """What the service has to carry out was refused."""
    REVIVED = "revived"
    """A closed channel answers."""
    HUNG = "hung"
    """No answer within the limit, and no broken connection either."""
    UNASKED = "unasked"
    """An answer to nothing that waits for one, or a second answer."""
    DOWN = "down"
    """The service did not come back, died unbidden, or came back as another."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken promise."""

    kind: FaultKind
    connect_id: int | None
    life: int
    """Which start of the service it was found in, from 1."""
    text: str


class Faults:
    """All that was found, each kind once for each channel."""

    def __init__(self) -> None:
        self.kept: list[Fault] = []
        self.counts: Counter[FaultKind] = Counter()
        self.channels: set[int] = set()
        """Channels that have one: what else they do proves nothing more."""
        self._known: set[tuple[FaultKind, int]] = set()

    def add(self, fault: Fault) -> None:
        """Take note of a fault."""
        if fault.connect_id is not None:
            if (fault.kind, fault.connect_id) in self._known:
                return
            self._known.add((fault.kind, fault.connect_id))
            self.channels.add(fault.connect_id)
        self.counts[fault.kind] += 1
        if len(self.kept) < _KEPT:
            self.kept.append(fault)
