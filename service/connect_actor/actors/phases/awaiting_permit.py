"""Waiting for a permit to load the channel."""

from typing import TYPE_CHECKING

from connect_actor.actors.commands import PermitGranted, PermitRefused
from connect_actor.actors.permits import Permit
from connect_actor.actors.phases.reports import CannotLoad, Permitted
from connect_actor.actors.phases.stash import Kept, Stash
from connect_actor.errors import ActorCrashedError, OverloadedError

if TYPE_CHECKING:
    from connect_actor.actors.connect import ConnectActor

__all__ = ["AwaitingPermit"]


class AwaitingPermit:
    """First of the phases: waits for its turn to load the channel. Commands wait, in order."""

    __slots__ = ("_actor", "_permit", "_stash")

    def __init__(self, actor: "ConnectActor") -> None:
        self._actor = actor
        self._stash = Stash()
        # It calls this phase back, so holds it; held in turn only for as long as it is waited for.
        self._permit: Permit | None = None

    def enter(self) -> None:
        """Queue for a permit."""
        try:
            self._permit = self._actor.environment.permits.acquire(
                lambda: self._actor.signal(PermitGranted()), self._refused
            )
        except OverloadedError as error:
            self._refused(error)

    def _refused(self, error: OverloadedError) -> None:
        self._actor.signal(PermitRefused(error))

    def receive(self, message: object) -> object:
        """Stash commands; load when it is this channel's turn, stop when that does not come."""
        if isinstance(message, PermitGranted) and self._permit is not None:
            permit, self._permit = self._permit, None
            self._actor.report(Permitted(self._stash, permit))
            return None
        if isinstance(message, PermitRefused):
            self._permit = None
            self._stash.refuse(message.error)
            self._actor.report(CannotLoad(message.error))
            return None
        if isinstance(message, Kept):
            return self._stash.add(message, self._actor.sender)
        return None  # signals of an earlier life

    def leave(self) -> None:
        """Answer whoever waits, and pass the permit on, or leave the queue."""
        if self._permit is not None:
            self._permit.give_back()
            self._permit = None
        self._stash.refuse(ActorCrashedError("the actor was stopped while it waited: try again"))
