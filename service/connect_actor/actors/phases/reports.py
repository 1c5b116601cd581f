"""What phases report: each is the reason for the actor to become another phase."""

from typing import TYPE_CHECKING, NamedTuple

from connect_actor.actors.permits import Permit
from connect_actor.errors import ConnectError
from connect_actor.protocol.session import Session

if TYPE_CHECKING:
    from connect_actor.actors.phases.stash import Stash
    from connect_actor.actors.phases.writing import SessionWriter

__all__ = [
    "CannotLoad",
    "ClosingBegun",
    "Discarded",
    "Established",
    "Finished",
    "Loaded",
    "NothingStored",
    "Passivated",
    "Permitted",
    "SavingBegun",
]


class Permitted(NamedTuple):
    """The channel may be loaded now."""

    stash: "Stash"
    permit: Permit


class CannotLoad(NamedTuple):
    """The channel can't be loaded, or not for this owner."""

    error: ConnectError


class Loaded(NamedTuple):
    """The session is as it was after the channel's last record."""

    session: Session
    sequence_number: int
    snapshot_number: int
    """Of the newest snapshot; 0: there is none."""


class NothingStored(NamedTuple):
    """The journal knows no such channel."""

    sequence_number: int
    """The highest that the id has ever had."""


class Established(NamedTuple):
    """The channel has been made, and is to be written."""

    session: Session
    sequence_number: int


class Discarded(NamedTuple):
    """A commit failed: the session in memory is ahead of the journal for good."""


class ClosingBegun(NamedTuple):
    """The channel's end is on its way to the journal."""

    writer: "SessionWriter"


class SavingBegun(NamedTuple):
    """The last snapshot, or an expired channel's end, is on its way to the journal."""


class Passivated(NamedTuple):
    """The actor is idle, and the journal has all of the channel."""


class Finished(NamedTuple):
    """What was on its way to the journal is settled."""
