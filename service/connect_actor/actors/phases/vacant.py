"""There is no such channel: all that can be done is to establish one."""

from typing import TYPE_CHECKING

from connect_actor.actors.actor import ANSWER_LATER
from connect_actor.actors.commands import NO_SUCH_CHANNEL, Command, Establish, Passivate
from connect_actor.actors.phases.phase import require_time
from connect_actor.actors.phases.reports import Established, Passivated
from connect_actor.actors.work import REFUSED_WORK, charge, payer_of
from connect_actor.errors import ChannelNotFoundError, HandshakeRefusedError
from connect_actor.protocol.handshake import respond

if TYPE_CHECKING:
    from connect_actor.actors.connect import ConnectActor

__all__ = ["Vacant"]


class Vacant:
    """Third, if the journal knows no such channel: all that can be done is to establish one."""

    __slots__ = ("_actor", "_sequence_number")

    def __init__(self, actor: "ConnectActor", sequence_number: int) -> None:
        self._actor = actor
        self._sequence_number = sequence_number

    def enter(self) -> None:
        """Wait for an Establish."""

    def receive(self, message: object) -> object:
        """Establish the channel, refuse everything else."""
        if isinstance(message, Passivate):
            self._actor.report(Passivated())
            return None
        if not isinstance(message, Command):
            return None
        try:
            return self._establish(message)
        except Exception:
            # An actor without a channel is of no further use.
            self._actor.guardian.idle(self._actor)
            raise

    def _establish(self, command: Command) -> object:
        actor = self._actor
        environment = actor.environment
        if not isinstance(command, Establish):
            raise ChannelNotFoundError(NO_SUCH_CHANNEL)
        require_time(actor, command.deadline)
        environment.committer.require_room()
        try:
            session = respond(
                command.request,
                identity=environment.identity,
                limits=environment.limits,
                now=environment.clock(),
                random=environment.random,
                key_pairs=environment.key_pairs,
            )
        except HandshakeRefusedError:
            charge(payer_of(actor.sender), REFUSED_WORK)
            raise
        environment.statistics.established += 1
        # The phase that follows answers, once the channel is durable.
        actor.report(Established(session, self._sequence_number))
        return ANSWER_LATER

    def leave(self) -> None:
        """Nothing is held."""
