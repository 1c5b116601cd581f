"""What every phase is."""

from typing import TYPE_CHECKING, Protocol

from connect_actor.errors import DeadlineExceededError

if TYPE_CHECKING:
    from connect_actor.actors.connect import ConnectActor

__all__ = ["Phase", "require_time"]


class Phase(Protocol):
    """What an actor is doing, and so what a message means to it."""

    def enter(self) -> None:
        """Begin."""

    def receive(self, message: object) -> object:
        """Handle a message; as Pykka's ``on_receive``, or ``ANSWER_LATER``."""

    def leave(self) -> None:
        """Give back what the phase holds, because the actor stops in it."""


def require_time(actor: "ConnectActor", deadline: float | None) -> None:
    """Check that a command's deadline has not passed.

    Raises:
        DeadlineExceededError: it has.
    """
    if deadline is not None and actor.environment.monotonic() >= deadline:
        raise DeadlineExceededError("the deadline passed before work began: nothing was changed")
