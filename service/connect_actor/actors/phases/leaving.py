"""The last phases of an actor: commands are refused."""

from typing import TYPE_CHECKING

from connect_actor.actors.commands import Command, CommitFailed, Ended, Passivate
from connect_actor.actors.phases.reports import Discarded, Finished
from connect_actor.actors.phases.writing import SessionWriter
from connect_actor.errors import (
    ActorCrashedError,
    ChannelNotFoundError,
    ConnectError,
    ShuttingDownError,
)

if TYPE_CHECKING:
    from connect_actor.actors.connect import ConnectActor

__all__ = ["BEING_CLOSED", "Closing", "Crashed", "Saving", "Stopping"]

BEING_CLOSED = "the channel is being closed: establish a new one"


class _Leaving:
    """Common to the last phases: whoever still comes is refused."""

    __slots__ = ("_actor", "_refusal")

    def __init__(self, actor: "ConnectActor", refusal: ConnectError | None = None) -> None:
        self._actor = actor
        self._refusal = refusal or ShuttingDownError("the channel's actor is stopping: try again")

    def enter(self) -> None:
        """Wait for what was begun before."""

    def receive(self, message: object) -> object:
        """Refuse commands; signals are of no more interest."""
        if isinstance(message, Command):
            raise self._refusal
        return None

    def leave(self) -> None:
        """Nothing is held."""


class Saving(_Leaving):
    """Fourth: the final snapshot, or an expired channel's end, is on its way to the journal."""

    __slots__ = ()

    def receive(self, message: object) -> object:
        """Stop once it is settled."""
        if isinstance(message, Ended):
            self._actor.report(Finished())
            return None
        return super().receive(message)


class Closing(_Leaving):
    """Fourth, after Close: the end is on its way to the journal, all before it is void."""

    __slots__ = ("_passivate", "_writer")

    def __init__(self, actor: "ConnectActor", writer: SessionWriter) -> None:
        super().__init__(actor, ChannelNotFoundError(BEING_CLOSED))
        self._writer = writer
        self._passivate = False

    def receive(self, message: object) -> object:
        """Refuse commands; if the end does not become durable, the channel is not closed."""
        statistics = self._actor.environment.statistics
        if isinstance(message, CommitFailed) and message.writer is self._writer:
            statistics.discarded += 1
            self._actor.report(Discarded())
            if self._passivate:
                self._actor.signal(Passivate())
        elif isinstance(message, Passivate):
            self._passivate = True
        elif isinstance(message, Ended):
            statistics.closed += 1
            self._actor.report(Finished())
        else:
            return super().receive(message)
        return None


class Stopping(_Leaving):
    """Last: nothing is left to do."""

    __slots__ = ()

    def enter(self) -> None:
        """Stop; the router may start the channel anew at once."""
        self._actor.stop()
        self._actor.guardian.stopped(self._actor)


class Crashed(_Leaving):
    """Last, after a defect: the state is gone, and the actor is about to stop."""

    __slots__ = ()

    def __init__(self, actor: "ConnectActor") -> None:
        super().__init__(
            actor, ActorCrashedError("the channel's actor failed: try again after a pause")
        )

    def leave(self) -> None:
        """Refuse whoever came behind the order to stop, too: Pykka would say less of why."""
        self._actor.actor_inbox.refuse_all(self._refusal)
