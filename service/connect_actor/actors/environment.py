"""What every connect actor of a process shares."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from connect_actor.actors.permits import RecoveryPermits
from connect_actor.observe.counting import Distribution
from connect_actor.observe.tracing import tracing
from connect_actor.persistence.committer import Committer
from connect_actor.persistence.strategies import Strategy
from connect_actor.protocol.handshake import ChannelLimits
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.primitives import KeyPairs, Random

if TYPE_CHECKING:
    from connect_actor.actors.connect import ConnectActor

__all__ = ["ActorStatistics", "ConnectEnvironment", "Guardian"]


@dataclass(slots=True)
class ActorStatistics:
    """Counts since the start, for whoever publishes them."""

    started: int = 0
    recovered: int = 0
    """Loads from the journal that ended with a channel."""
    recovery_failures: int = 0
    recovered_records: int = 0
    """Records behind the snapshot that those loads had to read."""
    recovery_duration: Distribution = field(default_factory=Distribution)
    """Seconds that each of those loads took, from the permit to the session."""
    discarded: int = 0
    """Sessions thrown away because a commit failed."""
    crashed: int = 0
    passivated: int = 0
    established: int = 0
    closed: int = 0
    expired: int = 0
    """Channels ended since nobody had closed them in their lifetime."""
    changes: int = 0
    """Operations that changed a session, durable or not."""
    change_bytes: int = 0
    """Size of those changes alone, whatever the strategy wrote for them."""
    forged_work: int = 0
    """Chain steps derived for messages that failed to authenticate."""
    redelivered: int = 0
    """Answers that were given again."""


class Guardian(Protocol):
    """Whoever looks after an actor (the router). Called on the event loop's thread."""

    def idle(self, actor: "ConnectActor") -> None:
        """Passivate the actor: it serves no channel."""

    def stopped(self, actor: "ConnectActor") -> None:
        """Take note that the actor takes no more messages; may come twice."""

    def crashed(self, actor: "ConnectActor") -> None:
        """Take note that the actor met a defect; ``stopped`` follows."""


@dataclass(frozen=True, slots=True)
class ConnectEnvironment:
    """Collaborators and settings of connect actors."""

    committer: Committer
    """On the event loop that the dispatcher uses, so that it answers between two turns."""
    permits: RecoveryPermits
    strategy: Callable[[], Strategy]
    snapshot_interval: int
    """Records between two snapshots."""
    identity: Identity
    limits: ChannelLimits
    clock: Callable[[], int]
    """Microseconds since the epoch, by the wall clock: for what can be undone."""
    settled: Callable[[], int]
    """The same by settled time (``clock``): for what can't be undone."""
    monotonic: Callable[[], float]
    """Seconds on the clock that commands' deadlines are set on."""
    random: Random
    key_pairs: KeyPairs | None = None
    """Fresh key pairs; by default they are made of ``random``."""
    statistics: ActorStatistics = field(default_factory=ActorStatistics)
    tracing: bool = field(default_factory=tracing)
    """Whether steps of messages are told."""
