"""The connect actor: the one owner of one channel's session.

It is always in exactly one phase (``actors.phases``), which says what a message means. A phase
reports what has happened, and ``TRANSITIONS`` says which one follows.

Rules that hold in every phase:

1. A command gets exactly one answer, at once or later.
2. A refused command (``ConnectError``) has changed nothing, and the actor goes on.
3. Anything else that is raised is a defect. Pykka would answer the caller and go on with whatever
   state there is; this actor throws its state away, answers with ``ActorCrashedError`` and stops.
   The router starts it anew, from the journal and after a pause, when the channel is next used.
4. It serves one owner. If the journal says that the channel is another's, it serves nobody.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from connect_actor.actors.actor import ANSWER_LATER, DispatchedActor
from connect_actor.actors.commands import Command, CommitFailed, Passivate
from connect_actor.actors.environment import ConnectEnvironment, Guardian
from connect_actor.actors.phases.awaiting_permit import AwaitingPermit
from connect_actor.actors.phases.leaving import BEING_CLOSED, Closing, Crashed, Saving, Stopping
from connect_actor.actors.phases.phase import Phase
from connect_actor.actors.phases.recovering import Recovering
from connect_actor.actors.phases.reports import (
    CannotLoad,
    ClosingBegun,
    Discarded,
    Established,
    Finished,
    Loaded,
    NothingStored,
    Passivated,
    Permitted,
    SavingBegun,
)
from connect_actor.actors.phases.running import Running
from connect_actor.actors.phases.vacant import Vacant
from connect_actor.actors.phases.writing import SessionWriter
from connect_actor.errors import ActorCrashedError, ChannelNotFoundError, ConnectError
from connect_actor.observe.tracing import id_of
from connect_actor.reply import Reply

__all__ = ["TRANSITIONS", "ConnectActor"]

_log = logging.getLogger(__name__)


class ConnectActor(DispatchedActor):
    """Serves ``actors.commands``; see the module's text for what it promises."""

    def __init__(
        self, connect_id: int, owner: bytes, environment: ConnectEnvironment, guardian: Guardian
    ) -> None:
        """Prepare the actor of an owner's channel; it loads the channel once it runs."""
        super().__init__()
        self.connect_id = connect_id
        self.owner = owner
        self.environment = environment
        self.guardian = guardian
        self._phase: Phase = AwaitingPermit(self)

    @property
    def persistence_id(self) -> str:
        """The channel's name in the journal's terms."""
        return f"connect-{self.connect_id}"

    @property
    def phase(self) -> str:
        """The name of the current phase."""
        return type(self._phase).__name__

    def report(self, report: object) -> None:
        """Take a phase's report, and go on in the phase that follows."""
        _, make = TRANSITIONS[type(self._phase), type(report)]
        self._phase = phase = make(self, report)
        phase.enter()

    def on_start(self) -> None:
        """Ask for a permit to load the channel. Runs on the dispatcher's thread."""
        self.environment.statistics.started += 1
        self._phase.enter()

    def on_receive(self, message: Any) -> Any:  # noqa: ANN401 - Pykka's signature
        """Handle a command or a signal. Runs on the dispatcher's thread."""
        try:
            return self._phase.receive(message)
        except ConnectError:
            if self.sender is not None:
                raise
            # Nobody asked; Pykka would stop the actor for a refused command that was only told.
            _log.warning("a %s without a sender was refused", type(message).__name__)
            return None
        except Exception as error:
            refusal = self.crash(error)
            if self.sender is None:
                # Raised from here, it would end the actor at once: without ``on_stop``, so that the
                # router kept it, and whoever waits in the mailbox not told what has happened.
                return None
            raise refusal from error

    def handle(self, command: Command | Passivate, sender: Reply | None) -> None:
        """Handle what had to wait, as if it came from the mailbox now."""
        self.sender = sender
        try:
            answer = self.on_receive(command)
        except ConnectError as error:
            if sender is not None:
                sender.refuse(error)
        else:
            if sender is not None and answer is not ANSWER_LATER:
                sender.answer(answer)
        finally:
            self.sender = None

    def interrupt(self, failure: CommitFailed) -> None:
        """Take a failed commit in ahead of the mailbox: no message may meet what is not durable.

        On the dispatcher's thread, between two turns.
        """
        if not self.actor_stopped.is_set():
            self._phase.receive(failure)

    def on_stop(self) -> None:
        """Tell the router, whoever stopped the actor. Runs on the dispatcher's thread."""
        self._phase.leave()
        self.guardian.stopped(self)
        # It holds this actor, too: nothing is to keep the two until the collector runs.
        del self._phase

    def crash(self, defect: Exception) -> ActorCrashedError:
        """Throw the state away and stop; return what whoever is concerned is to hear."""
        _log.error(
            "%s met a defect and stops",
            self.persistence_id,
            exc_info=defect,
            extra={"connect_id": self.connect_id, "request_id": id_of(self.sender)},
        )
        self._phase.leave()
        self._phase = Crashed(self)
        self.environment.statistics.crashed += 1
        self.guardian.crashed(self)
        self.stop()
        return ActorCrashedError(
            "the channel's actor failed and restarts from the journal: try again after a pause"
        )


def _load(actor: ConnectActor, loaded: Loaded) -> Phase:
    session = loaded.session
    numbers = loaded.sequence_number, loaded.snapshot_number
    return Running(actor, session, SessionWriter(actor, session, *numbers))


def _establish(actor: ConnectActor, established: Established) -> Phase:
    session = established.session
    writer = SessionWriter(actor, session, established.sequence_number, 0)
    writer.begin()
    return Running(actor, session, writer)


def _stop(actor: ConnectActor, _: object) -> Phase:
    return Stopping(actor)


def _load_again(actor: ConnectActor, _: object) -> Phase:
    return AwaitingPermit(actor)


def _refuse(actor: ConnectActor, failure: CannotLoad) -> Phase:
    return Stopping(actor, failure.error)


TRANSITIONS: Mapping[
    tuple[type[Phase], type], tuple[type[Phase], Callable[[ConnectActor, Any], Phase]]
] = {
    (AwaitingPermit, Permitted): (
        Recovering,
        lambda actor, given: Recovering(actor, given.stash, given.permit),
    ),
    (AwaitingPermit, CannotLoad): (Stopping, _refuse),
    (Recovering, Loaded): (Running, _load),
    (Recovering, NothingStored): (
        Vacant,
        lambda actor, nothing: Vacant(actor, nothing.sequence_number),
    ),
    (Recovering, CannotLoad): (Stopping, _refuse),
    (Vacant, Established): (Running, _establish),
    (Vacant, Passivated): (Stopping, _stop),
    (Running, Discarded): (AwaitingPermit, _load_again),
    (Running, ClosingBegun): (Closing, lambda actor, begun: Closing(actor, begun.writer)),
    (Running, SavingBegun): (Saving, lambda actor, _: Saving(actor)),
    (Running, Passivated): (Stopping, _stop),
    (Saving, Finished): (Stopping, _stop),
    (Closing, Finished): (
        Stopping,
        lambda actor, _: Stopping(actor, ChannelNotFoundError(BEING_CLOSED)),
    ),
    (Closing, Discarded): (AwaitingPermit, _load_again),
}
"""By phase and report: the phase that follows, and what makes it. A crash leads to ``Crashed``
from each of them."""
