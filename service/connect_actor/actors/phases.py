"""The phases of a connect actor, one class each: what a message means in it.

A phase is entered once, receives every message until the actor becomes another, and is left when
the actor stops or crashes in it. All of it runs on the dispatcher's thread.
"""

import logging
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple, Protocol

from connect_actor.access.quotas import TokenBucket
from connect_actor.actors.actor import ANSWER_LATER
from connect_actor.actors.commands import (
    ID_TAKEN,
    NO_SUCH_CHANNEL,
    Acknowledge,
    Close,
    Command,
    CommitFailed,
    Decrypt,
    Encrypt,
    Ended,
    Establish,
    Passivate,
    PermitGranted,
    PermitRefused,
    Recovered,
    RecoveryFailed,
    Restore,
    Restored,
    refusal_to_others,
)
from connect_actor.actors.permits import Permit
from connect_actor.actors.work import FREE_WORK, REFUSED_WORK, charge, payer_of
from connect_actor.errors import (
    ActorCrashedError,
    AuthenticationFailedError,
    CallerError,
    ChannelDamagedError,
    ChannelExistsError,
    ChannelNotFoundError,
    ConnectError,
    DeadlineExceededError,
    HandshakeRefusedError,
    OverloadedError,
    PeerError,
    RateLimitedError,
    ShuttingDownError,
    StorageError,
)
from connect_actor.observe.tracing import id_of, note
from connect_actor.persistence.committer import CallbackWrite, Write
from connect_actor.persistence.contract import (
    CorruptRecordError,
    Record,
    RecordKind,
    Recovery,
    Snapshot,
)
from connect_actor.persistence.recovery import rebuild
from connect_actor.protocol.changes import Change, encode_change
from connect_actor.protocol.delivery import Delivered
from connect_actor.protocol.handshake import encode_request, respond
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.session import Session
from connect_actor.reply import Payer, Reply

if TYPE_CHECKING:
    from connect_actor.actors.connect import ConnectActor

__all__ = [
    "EXPIRED_IS_KEPT",
    "AwaitingPermit",
    "Crashed",
    "Phase",
    "Recovering",
    "Running",
    "Stopping",
    "Vacant",
]

# Microseconds that an expired channel is kept beyond its time: the peer's clock may be behind.
EXPIRED_IS_KEPT = 3_600_000_000

_log = logging.getLogger(__name__)

# Work that forged messages may cause on one channel, at once and for each second: a few that
# demand all that they can, then one in two seconds. An honest peer's next message is not affected.
_FORGED_WORK_AT_ONCE = 4_000
_FORGED_WORK_PER_SECOND = 500

# Commands that may wait for a recovery; the mailbox is bounded on its own.
_MAX_STASHED = 4_096


class Phase(Protocol):
    """What an actor is doing, and so what a message means to it."""

    def enter(self) -> None:
        """Begin."""

    def receive(self, message: object) -> object:
        """Handle a message; as Pykka's ``on_receive``, or ``ANSWER_LATER``."""

    def leave(self) -> None:
        """Give back what the phase holds, because the actor stops in it."""


_Kept = Command | Passivate


class _Stash:
    """What waits for the session, in order of arrival: commands, and the order to passivate."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: deque[tuple[_Kept, Reply | None]] = deque()

    def add(self, command: _Kept, sender: Reply | None) -> object:
        if len(self._waiting) >= _MAX_STASHED:
            raise OverloadedError(
                f"{_MAX_STASHED} commands are waiting for this channel to load: try again later"
            )
        self._waiting.append((command, sender))
        return ANSWER_LATER

    @property
    def payer(self) -> Payer | None:
        """Who pays for what was done for the first."""
        return payer_of(self._waiting[0][1]) if self._waiting else None

    def replay(self, actor: "ConnectActor") -> None:
        """Hand everything to the actor's current phase, ahead of what is in its mailbox."""
        while self._waiting:
            command, sender = self._waiting.popleft()
            actor.handle(command, sender)

    def refuse(self, error: Exception) -> None:
        self.refuse_each(lambda _: error)

    def refuse_each(self, error_of: Callable[[_Kept], Exception]) -> None:
        while self._waiting:
            command, sender = self._waiting.popleft()
            _fail(sender, error_of(command))


def _fail(sender: Reply | None, error: Exception) -> None:
    if sender is not None:
        sender.refuse(error)


def _require_time(actor: "ConnectActor", deadline: float | None) -> None:
    if deadline is not None and actor.environment.monotonic() >= deadline:
        raise DeadlineExceededError("the deadline passed before work began: nothing was changed")


class AwaitingPermit:
    """First of the phases: waits for its turn to load the channel. Commands wait, in order."""

    __slots__ = ("_actor", "_permit", "_stash")

    def __init__(self, actor: "ConnectActor") -> None:
        self._actor = actor
        self._stash = _Stash()
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
            self._actor.become(Recovering(self._actor, self._stash, permit))
            return None
        if isinstance(message, PermitRefused):
            self._permit = None
            self._stash.refuse(message.error)
            self._actor.become(Stopping(self._actor, message.error))
            return None
        if isinstance(message, _Kept):
            return self._stash.add(message, self._actor.sender)
        return None  # signals of an earlier life

    def leave(self) -> None:
        """Answer whoever waits, and pass the permit on, or leave the queue."""
        if self._permit is not None:
            self._permit.give_back()
            self._permit = None
        self._stash.refuse(ActorCrashedError("the actor was stopped while it waited: try again"))


class Recovering:
    """Second: snapshot and records are on their way (one request). Commands wait, in order."""

    __slots__ = ("_actor", "_begun", "_permit", "_stash")

    def __init__(self, actor: "ConnectActor", stash: _Stash, permit: Permit) -> None:
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
            case (
                Establish()
                | Encrypt()
                | Decrypt()
                | Acknowledge()
                | Restore()
                | Close()
                | Passivate()
            ):
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
            actor.become(Vacant(actor, recovery.highest_sequence_number))
        else:
            # Of a channel's state all but these has a bounded size.
            charge(self._stash.payer, session.ratchet.skipped_keys)
            statistics = actor.environment.statistics
            statistics.recovered += 1
            statistics.recovered_records += len(recovery.records)
            statistics.recovery_duration.add(perf_counter() - self._begun)
            snapshot = recovery.snapshot
            actor.become(
                Running(
                    actor,
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
        self._actor.become(Stopping(self._actor, error))

    def _withdraw(self) -> None:
        """The channel is another's: answer as for a channel that doesn't exist."""
        self._permit.give_back()
        self._stash.refuse_each(refusal_to_others)
        self._actor.become(Stopping(self._actor, ChannelNotFoundError(NO_SUCH_CHANNEL)))

    def leave(self) -> None:
        """Answer whoever waits, and give the permit back."""
        self._permit.give_back()
        self._stash.refuse(ActorCrashedError("the actor was stopped while it loaded: try again"))


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
            self._actor.become(Stopping(self._actor))
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
        _require_time(actor, command.deadline)
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
        running = Running(actor, session, self._sequence_number, 0)
        actor.become(running)
        environment.statistics.established += 1
        return running.begin()

    def leave(self) -> None:
        """Nothing is held."""


class _Refusal(NamedTuple):
    """A result that is an error."""

    error: ConnectError


class _Answer(Write):
    """What an operation has to write before its result may leave; nothing, for a barrier."""

    __slots__ = ("_result", "_running", "_sender")

    def __init__(
        self,
        running: "Running",
        sender: Reply | None,
        result: object,
        record: Record | None = None,
        snapshot: Snapshot | None = None,
        owner: bytes = b"",
    ) -> None:
        # As ``Write`` does; one is made for every message.
        self.channel = running.connect_id
        self.record = record
        self.snapshot = snapshot
        self.owner = owner
        self._running = running
        self._sender = sender
        self._result = result

    def settle(self, error: StorageError | None) -> None:
        """Let the result go, now that it is durable; or take note that it never may."""
        running, sender, result = self._running, self._sender, self._result
        running.settled(self.record, sender, error)
        if sender is None:
            return
        if error is not None:
            sender.refuse(error)
        elif type(result) is _Refusal:
            sender.refuse(result.error)
        else:
            sender.answer(result)


class Running:
    """Third: serves the channel.

    The session in memory is ahead of the journal by the records that are on their way to it;
    their results wait with them (``_settled``), and later commands may go on meanwhile.
    """

    __slots__ = (
        "_actor",
        "_changes_behind",
        "_environment",
        "_forged",
        "_sequence_number",
        "_session",
        "_snapshot_number",
        "_strategy",
        "_unsettled",
        "connect_id",
    )

    def __init__(
        self,
        actor: "ConnectActor",
        session: Session,
        sequence_number: int,
        snapshot_number: int,
    ) -> None:
        self._actor = actor
        self._environment = actor.environment
        self.connect_id = actor.connect_id
        self._session = session
        self._strategy = actor.environment.strategy()
        self._sequence_number = sequence_number
        self._snapshot_number = snapshot_number
        self._changes_behind = sequence_number - snapshot_number  # the newest snapshot
        self._forged: TokenBucket | None = None  # work that forged messages may cause, once one has
        self._unsettled = 0  # results that wait for the committer

    def enter(self) -> None:
        """Everything is at hand."""

    def begin(self) -> object:
        """Persist a session that has just been made; its answer is the handshake's response."""
        self._append(
            RecordKind.ESTABLISHED, b"", self._session.handshake.response, self._actor.owner
        )
        # Channels that march in step are not to take their snapshots all at once.
        self._changes_behind = self.connect_id % self._environment.snapshot_interval
        return ANSWER_LATER

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
            if not self._unsettled or self._actor.sender is None:
                raise
            return self._answer_when_durable(_Refusal(refusal))

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
            case CommitFailed(phase):
                # A failure of an earlier life has been dealt with.
                if phase is self:
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
            _require_time(self._actor, deadline)
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
        return self._persist(change, payload)

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
        return self._persist(change, Delivered(payload, session.last_delivery_number))

    def _decrypt(self, command: Decrypt) -> object:
        environment = self._environment
        payload, deadline = command
        if deadline is not None:
            _require_time(self._actor, deadline)
        environment.committer.require_room()
        session = self._session
        work = session.ratchet.work_of(payload.header)
        if work > FREE_WORK and self._actor.postpone(command) is ANSWER_LATER:
            return ANSWER_LATER
        now = environment.clock()
        if session.deliveries is None:
            plaintext, change = self._decrypt_charged(payload, work, now)
            return self._persist(change, plaintext)
        again = session.decrypted_before(payload, now=now)
        if again is not None:
            return self._redeliver(again)
        plaintext, change = self._decrypt_charged(payload, work, now)
        return self._persist(change, Delivered(plaintext, session.last_delivery_number))

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
        return self._answer_when_durable(again)

    def _acknowledge(self, command: Acknowledge) -> object:
        environment = self._environment
        _require_time(self._actor, command.deadline)
        environment.committer.require_room()
        change = self._session.acknowledge(command.up_to_delivery_number, now=environment.clock())
        if change is None:
            return self._answer_when_durable(None)
        return self._persist(change, None)

    def _restore(self, deadline: float | None) -> object:
        _require_time(self._actor, deadline)
        session = self._session
        session.require_alive(self._environment.clock())
        ratchet = session.ratchet
        restored = Restored(
            0 if ratchet.sending is None else ratchet.sending.next_index,
            0 if ratchet.receiving is None else ratchet.receiving.next_index,
            ratchet.skipped_keys,
            session.expires_at,
        )
        return self._answer_when_durable(restored)

    def _establish_again(self, command: Establish) -> object:
        _require_time(self._actor, command.deadline)
        handshake = self._session.handshake
        if encode_request(command.request) != handshake.request:
            raise ChannelExistsError(ID_TAKEN)
        return self._answer_when_durable(handshake.response)

    def _close(self, deadline: float | None) -> object:
        _require_time(self._actor, deadline)
        self._environment.committer.require_room()
        self._append(RecordKind.CLOSED, b"", None)
        self._actor.become(Closing(self._actor, self))
        # Settled right behind the end itself.
        self._environment.committer.write(
            CallbackWrite(self.connect_id, lambda _: self._actor.signal(Ended()))
        )
        return ANSWER_LATER

    # --- Persisting -------------------------------------------------------------------------------

    def _persist(self, change: Change, result: object) -> object:
        statistics = self._environment.statistics
        statistics.changes += 1
        kind, payload = self._strategy.record(self._session, change)
        # Such a record is the change and nothing else.
        is_change = kind is RecordKind.CHANGE
        statistics.change_bytes += len(payload if is_change else encode_change(change))
        self._append(kind, payload, result)
        return ANSWER_LATER

    def _append(self, kind: RecordKind, payload: bytes, result: object, owner: bytes = b"") -> None:
        environment = self._environment
        sender = self._actor.sender
        number = self._sequence_number = self._sequence_number + 1
        self._changes_behind += 1
        snapshot = None
        if kind is RecordKind.ESTABLISHED or (
            self._changes_behind >= environment.snapshot_interval and kind is not RecordKind.CLOSED
        ):
            snapshot = self._snapshot()
        self._unsettled += 1
        if environment.tracing:
            note("recorded", id_of(sender), **self._step(number))
        record = Record(self.connect_id, number, kind, payload)
        environment.committer.write(_Answer(self, sender, result, record, snapshot, owner))

    def _snapshot(self) -> Snapshot:
        self._snapshot_number = self._sequence_number
        self._changes_behind = 0
        now = self._environment.settled()
        if now >= self._session.expires_at:
            # Durable with this snapshot, and by a time that a wrong clock does not move.
            self._session.forget_deliveries()
        return Snapshot(
            self.connect_id,
            self._sequence_number,
            now,
            self._strategy.state(self._session),
        )

    def _answer_when_durable(self, result: object) -> object:
        """Answer with what the session shows, once all of it is durable."""
        self._unsettled += 1
        self._environment.committer.write(_Answer(self, self._actor.sender, result))
        return ANSWER_LATER

    def _step(self, number: int) -> dict[str, int]:
        return {"connect_id": self.connect_id, "sequence_number": number}

    def settled(
        self, record: Record | None, sender: Reply | None, error: StorageError | None
    ) -> None:
        """Take note that a write is durable; or, before anyone else is told, that it is not."""
        self._unsettled -= 1
        if error is not None:
            self._actor.interrupt(CommitFailed(self))
        elif self._environment.tracing and record is not None:
            round_number = self._environment.committer.statistics.rounds
            step = self._step(record.sequence_number)
            note("durable", id_of(sender), **step, round=round_number)

    def _discard(self) -> None:
        """Throw the session away, since it is ahead of the journal for good; load it anew."""
        _log.warning(
            "a commit failed: the channel goes on from what is durable",
            extra={"connect_id": self.connect_id},
        )
        self._environment.statistics.discarded += 1
        self._actor.become(AwaitingPermit(self._actor))

    def _passivate(self) -> None:
        actor = self._actor
        if actor.environment.settled() >= self._session.expires_at + EXPIRED_IS_KEPT:
            self._bury()
            return
        if self._snapshot_number == self._sequence_number:
            actor.become(Stopping(actor))
            return
        actor.become(Saving(actor))
        # Saved or not, the actor may stop: the records are durable.
        actor.environment.committer.write(
            CallbackWrite(
                actor.connect_id, lambda _: actor.signal(Ended()), snapshot=self._snapshot()
            )
        )

    def _bury(self) -> None:
        """End a channel that nobody can use any more, so that it does not stay on disk for ever."""
        actor = self._actor
        # Should it not become durable, the channel is buried the next time that it is loaded.
        self._append(RecordKind.CLOSED, b"", None)
        actor.become(Saving(actor))
        actor.environment.committer.write(CallbackWrite(actor.connect_id, self._buried))

    def _buried(self, error: StorageError | None) -> None:
        if error is None:
            self._environment.statistics.expired += 1
            _log.info(
                "the channel had expired and was ended", extra={"connect_id": self.connect_id}
            )
        self._actor.signal(Ended())


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
            self._actor.become(Stopping(self._actor))
            return None
        return super().receive(message)


class Closing(_Leaving):
    """Fourth, after Close: the end is on its way to the journal, all before it is void."""

    __slots__ = ("_passivate", "_running")

    def __init__(self, actor: "ConnectActor", running: Running) -> None:
        super().__init__(
            actor,
            ChannelNotFoundError("the channel is being closed: establish a new one"),
        )
        self._running = running
        self._passivate = False

    def receive(self, message: object) -> object:
        """Refuse commands; if the end does not become durable, the channel is not closed."""
        statistics = self._actor.environment.statistics
        if isinstance(message, CommitFailed) and message.phase is self._running:
            statistics.discarded += 1
            self._actor.become(AwaitingPermit(self._actor))
            if self._passivate:
                self._actor.signal(Passivate())
        elif isinstance(message, Passivate):
            self._passivate = True
        elif isinstance(message, Ended):
            statistics.closed += 1
            self._actor.become(Stopping(self._actor, self._refusal))
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
