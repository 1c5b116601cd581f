"""Serving the channel."""

import logging
from typing import TYPE_CHECKING

from connect_actor.access.quotas import TokenBucket
from connect_actor.actors.actor import ANSWER_LATER
from connect_actor.actors.commands import (
    ID_TAKEN,
    Acknowledge,
    Close,
    CommitFailed,
    Decrypt,
    Encrypt,
    Ended,
    Establish,
    Passivate,
    Restore,
    Restored,
)
from connect_actor.actors.phases.phase import require_time
from connect_actor.actors.phases.reports import (
    ClosingBegun,
    Discarded,
    Passivated,
    SavingBegun,
)
from connect_actor.actors.phases.writing import Refusal, SessionWriter
from connect_actor.actors.work import FREE_WORK, REFUSED_WORK, charge, payer_of
from connect_actor.errors import (
    AuthenticationFailedError,
    CallerError,
    ChannelExistsError,
    PeerError,
    RateLimitedError,
    StorageError,
)
from connect_actor.persistence.committer import CallbackWrite
from connect_actor.persistence.contract import RecordKind
from connect_actor.protocol.changes import Change
from connect_actor.protocol.delivery import Delivered
from connect_actor.protocol.handshake import encode_request
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.session import Session
from connect_actor.reply import Payer

if TYPE_CHECKING:
    from connect_actor.actors.connect import ConnectActor

__all__ = ["EXPIRED_IS_KEPT", "Running"]

# Microseconds that an expired channel is kept beyond its time: the peer's clock may be behind.
EXPIRED_IS_KEPT = 3_600_000_000

_log = logging.getLogger(__name__)

# Work that forged messages may cause on one channel, at once and for each second: a few that
# demand all that they can, then one in two seconds. An honest peer's next message is not affected.
_FORGED_WORK_AT_ONCE = 4_000
_FORGED_WORK_PER_SECOND = 500


class Running:
    """Third: serves the channel.

    The session in memory is ahead of the journal by the records that are on their way to it;
    their results wait with them (``writing``), and later commands may go on meanwhile.
    """

    __slots__ = ("_actor", "_environment", "_forged", "_session", "_writer", "connect_id")

    def __init__(self, actor: "ConnectActor", session: Session, writer: SessionWriter) -> None:
        self._actor = actor
        self._environment = actor.environment
        self.connect_id = actor.connect_id
        self._session = session
        self._writer = writer
        self._forged: TokenBucket | None = None  # work that forged messages may cause, once one has

    def enter(self) -> None:
        """Everything is at hand."""

    def receive(self, message: object) -> object:
        """Carry a command out; its answer waits for its commit, and those before it."""
        kind = type(message)
        try:
            if kind is Encrypt:
                return self._encrypt(message)  # type: ignore[arg-type] # narrowed by its exact type
            if kind is Decrypt:
                return self._decrypt(message)  # type: ignore[arg-type] # narrowed by its exact type
            return self._receive(message)
        except (CallerError, PeerError) as refusal:
            # It may rest on what is not durable yet: a replay of a message that will be lost.
            if not self._writer.unsettled or self._actor.sender is None:
                raise
            return self._writer.answer_when_durable(Refusal(refusal))

    def _receive(self, message: object) -> object:
        answer: object = None
        match message:
            case Acknowledge():
                answer = self._acknowledge(message)
            case Restore(deadline):
                answer = self._restore(deadline)
            case Establish():
                answer = self._establish_again(message)
            case Close(deadline):
                answer = self._close(deadline)
            case CommitFailed(writer):
                # A failure of an earlier life has been dealt with.
                if writer is self._writer:
                    self._discard()
            case Passivate():
                self._passivate()
        return answer

    def leave(self) -> None:
        """Nothing is held; what is on its way to the journal is answered all the same."""

    # --- Commands ---------------------------------------------------------------------------------

    def _encrypt(self, command: Encrypt) -> object:
        environment = self._environment
        plaintext, request_id, deadline, idempotency_key = command
        if deadline is not None:
            require_time(self._actor, deadline)
        environment.committer.require_room()
        if idempotency_key:
            return self._encrypt_once(command)
        payload, change = self._session.encrypt(
            plaintext,
            now=environment.clock(),
            random=environment.random,
            key_pairs=environment.key_pairs,
            request_id=request_id,
        )
        return self._writer.persist(change, payload)

    def _encrypt_once(self, command: Encrypt) -> object:
        environment, session = self._environment, self._session
        plaintext, request_id, _, key = command
        now = environment.clock()
        again = session.encrypted_before(
            plaintext, now=now, idempotency_key=key, request_id=request_id
        )
        if again is not None:
            return self._redeliver(again)
        payload, change = session.encrypt(
            plaintext,
            now=now,
            random=environment.random,
            key_pairs=environment.key_pairs,
            request_id=request_id,
            idempotency_key=key,
        )
        return self._writer.persist(change, Delivered(payload, session.last_delivery_number))

    def _decrypt(self, command: Decrypt) -> object:
        environment = self._environment
        payload, deadline = command
        if deadline is not None:
            require_time(self._actor, deadline)
        environment.committer.require_room()
        session = self._session
        work = session.ratchet.work_of(payload.header)
        if work > FREE_WORK and self._actor.postpone(command) is ANSWER_LATER:
            return ANSWER_LATER
        now = environment.clock()
        if session.deliveries is None:
            plaintext, change = self._decrypt_charged(payload, work, now)
            return self._writer.persist(change, plaintext)
        again = session.decrypted_before(payload, now=now)
        if again is not None:
            return self._redeliver(again)
        plaintext, change = self._decrypt_charged(payload, work, now)
        return self._writer.persist(change, Delivered(plaintext, session.last_delivery_number))

    def _decrypt_charged(self, payload: Payload, work: int, now: int) -> tuple[bytes, Change]:
        """Decrypt a message, and charge whoever sent it with what it costs beyond an ordinary one.

        Raises:
            RateLimitedError: it demands more than is done for its caller, or on its channel, now.
            ConnectError: as ``Session.decrypt`` says.
        """
        payer = payer_of(self._actor.sender)
        if work > FREE_WORK:
            self._require_credit(work, payer)
        try:
            decrypted = self._session.decrypt(payload, now=now)
        except AuthenticationFailedError:
            self._environment.statistics.forged_work += work
            if work > FREE_WORK:
                self._charge_channel(work)
            charge(payer, work + REFUSED_WORK)
            raise
        if work:
            charge(payer, work)
        return decrypted

    def _require_credit(self, work: int, payer: Payer | None) -> None:
        """Check that a message which demands so much work may do so before it is authenticated."""
        forged = self._forged
        pause = 0.0 if forged is None else forged.wait_for(work, self._environment.monotonic())
        reason = "messages of this channel have failed to authenticate"
        if payer is not None and payer.debt > pause:
            pause = payer.debt
            reason = "your messages have skipped, or failed, too many others"
        if pause:
            charge(payer, REFUSED_WORK)
            raise RateLimitedError(
                f"{reason}, so one that skips {work} is refused for now: try again after"
                f" {pause:.3f} s, or send those in between first",
                pause,
            )

    def _charge_channel(self, work: int) -> None:
        now = self._environment.monotonic()
        if self._forged is None:
            self._forged = TokenBucket(_FORGED_WORK_PER_SECOND, _FORGED_WORK_AT_ONCE, now)
        self._forged.wait_for(0, now)
        self._forged.take(work)

    def _redeliver(self, again: Delivered[Payload] | Delivered[bytes]) -> object:
        """Give an answer again, once the commit that let it out the first time is durable."""
        self._environment.statistics.redelivered += 1
        return self._writer.answer_when_durable(again)

    def _acknowledge(self, command: Acknowledge) -> object:
        environment = self._environment
        require_time(self._actor, command.deadline)
        environment.committer.require_room()
        change = self._session.acknowledge(command.up_to_delivery_number, now=environment.clock())
        if change is None:
            return self._writer.answer_when_durable(None)
        return self._writer.persist(change, None)

    def _restore(self, deadline: float | None) -> object:
        require_time(self._actor, deadline)
        session = self._session
        session.require_alive(self._environment.clock())
        ratchet = session.ratchet
        restored = Restored(
            0 if ratchet.sending is None else ratchet.sending.next_index,
            0 if ratchet.receiving is None else ratchet.receiving.next_index,
            ratchet.skipped_keys,
            session.expires_at,
        )
        return self._writer.answer_when_durable(restored)

    def _establish_again(self, command: Establish) -> object:
        require_time(self._actor, command.deadline)
        handshake = self._session.handshake
        if encode_request(command.request) != handshake.request:
            raise ChannelExistsError(ID_TAKEN)
        return self._writer.answer_when_durable(handshake.response)

    def _close(self, deadline: float | None) -> object:
        require_time(self._actor, deadline)
        self._environment.committer.require_room()
        self._writer.append(RecordKind.CLOSED, b"", None)
        self._actor.report(ClosingBegun(self._writer))
        # Settled right behind the end itself.
        self._environment.committer.write(
            CallbackWrite(self.connect_id, lambda _: self._actor.signal(Ended()))
        )
        return ANSWER_LATER

    # --- Leaving ----------------------------------------------------------------------------------

    def _discard(self) -> None:
        """Throw the session away, since it is ahead of the journal for good; load it anew."""
        _log.warning(
            "a commit failed: the channel goes on from what is durable",
            extra={"connect_id": self.connect_id},
        )
        self._environment.statistics.discarded += 1
        self._actor.report(Discarded())

    def _passivate(self) -> None:
        actor = self._actor
        if actor.environment.settled() >= self._session.expires_at + EXPIRED_IS_KEPT:
            self._bury()
            return
        if self._writer.is_saved:
            actor.report(Passivated())
            return
        actor.report(SavingBegun())
        # Saved or not, the actor may stop: the records are durable.
        actor.environment.committer.write(
            CallbackWrite(
                actor.connect_id, lambda _: actor.signal(Ended()), snapshot=self._writer.snapshot()
            )
        )

    def _bury(self) -> None:
        """End a channel that nobody can use any more, so that it does not stay on disk for ever."""
        actor = self._actor
        # Should it not become durable, the channel is buried the next time that it is loaded.
        self._writer.append(RecordKind.CLOSED, b"", None)
        actor.report(SavingBegun())
        actor.environment.committer.write(CallbackWrite(actor.connect_id, self._buried))

    def _buried(self, error: StorageError | None) -> None:
        if error is None:
            self._environment.statistics.expired += 1
            _log.info(
                "the channel had expired and was ended", extra={"connect_id": self.connect_id}
            )
        self._actor.signal(Ended())
