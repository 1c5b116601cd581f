"""Loading the channel: its snapshot and records are on their way from the journal."""

import logging
from time import perf_counter
from typing import TYPE_CHECKING

from connect_actor.actors.commands import (
    NO_SUCH_CHANNEL,
    Recovered,
    RecoveryFailed,
    refusal_to_others,
)
from connect_actor.actors.permits import Permit
from connect_actor.actors.phases.reports import CannotLoad, Loaded, NothingStored
from connect_actor.actors.phases.stash import Kept, Stash
from connect_actor.actors.work import charge
from connect_actor.errors import (
    ActorCrashedError,
    ChannelDamagedError,
    ChannelNotFoundError,
    StorageError,
)
from connect_actor.persistence.contract import CorruptRecordError, Recovery
from connect_actor.persistence.recovery import rebuild

if TYPE_CHECKING:
    from connect_actor.actors.connect import ConnectActor

__all__ = ["Recovering"]

_log = logging.getLogger(__name__)


class Recovering:
    """Second: snapshot and records are on their way (one request). Commands wait, in order."""

    __slots__ = ("_actor", "_begun", "_permit", "_stash")

    def __init__(self, actor: "ConnectActor", stash: Stash, permit: Permit) -> None:
        self._actor = actor
        self._stash = stash
        self._permit = permit
        self._begun = perf_counter()

    def enter(self) -> None:
        """Ask the journal."""
        self._actor.environment.committer.recover(self._actor.connect_id, self._answered)

    def _answered(self, recovery: Recovery | None, error: StorageError | None) -> None:
        if recovery is not None:
            self._actor.signal(Recovered(recovery))
        elif error is not None:
            self._actor.signal(RecoveryFailed(error))

    def receive(self, message: object) -> object:
        """Stash commands; go on when the journal has answered."""
        match message:
            case Recovered(recovery):
                self._rebuild(recovery)
            case RecoveryFailed(error):
                self._give_up(error)
            case _ if isinstance(message, Kept):
                return self._stash.add(message, self._actor.sender)
        return None

    def _rebuild(self, recovery: Recovery) -> None:
        actor = self._actor
        try:
            session = rebuild(recovery)
        except CorruptRecordError as error:
            self._give_up(ChannelDamagedError(f"the channel can't be recovered: {error}"))
            return
        if session is not None and recovery.owner != actor.owner:
            self._withdraw()
            return
        self._permit.give_back()
        if session is None:
            actor.report(NothingStored(recovery.highest_sequence_number))
        else:
            # Of a channel's state all but these has a bounded size.
            charge(self._stash.payer, session.ratchet.skipped_keys)
            statistics = actor.environment.statistics
            statistics.recovered += 1
            statistics.recovered_records += len(recovery.records)
            statistics.recovery_duration.add(perf_counter() - self._begun)
            snapshot = recovery.snapshot
            actor.report(
                Loaded(
                    session,
                    recovery.highest_sequence_number,
                    0 if snapshot is None else snapshot.sequence_number,
                )
            )
        self._stash.replay(actor)

    def _give_up(self, error: StorageError) -> None:
        """No half-recovered channel is ever served: whoever waits is told, and the actor stops."""
        _log.error(
            "the channel can't be loaded: %s", error, extra={"connect_id": self._actor.connect_id}
        )
        self._actor.environment.statistics.recovery_failures += 1
        self._permit.give_back()
        self._stash.refuse(error)
        self._actor.report(CannotLoad(error))

    def _withdraw(self) -> None:
        """The channel is another's: answer as for a channel that doesn't exist."""
        self._permit.give_back()
        self._stash.refuse_each(refusal_to_others)
        self._actor.report(CannotLoad(ChannelNotFoundError(NO_SUCH_CHANNEL)))

    def leave(self) -> None:
        """Answer whoever waits, and give the permit back."""
        self._permit.give_back()
        self._stash.refuse(ActorCrashedError("the actor was stopped while it loaded: try again"))
