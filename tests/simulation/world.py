"""The world of one schedule: a service in a process that can die, its journal, and the peers.

Whoever drives it chooses every step; each is checked at once. All that happens goes into a trace,
the same for the same steps.
"""

import logging
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, Self

from pykka import ActorDeadError, ActorRegistry

from service.actors.commands import (
    Close,
    Command,
    Decrypt,
    Encrypt,
    Establish,
    Restore,
    Restored,
)
from service.actors.connect import ConnectActor
from service.actors.dispatcher import PASS_SECONDS, Dispatcher
from service.actors.environment import ConnectEnvironment
from service.actors.future import ExcInfo, LoopFuture
from service.actors.permits import RecoveryPermits
from service.actors.router import Router, RouterSettings
from service.errors import (
    ActorCrashedError,
    ChannelDamagedError,
    ChannelNotFoundError,
    ConnectError,
    MessageReplayedError,
    PeerError,
    ReadFailedError,
    StorageError,
    WriteRejectedError,
    WriteUncertainError,
)
from service.persistence.committer import Committer
from service.persistence.contract import Batch, Record, Recovery
from service.protocol.handshake import ChannelLimits
from service.protocol.keys import Identity
from service.protocol.payload import Payload
from service.protocol.session import Session
from tests.simulation.peers import MAX_SKIP, Peer, spot_of
from tests.simulation.stepping import Clock, SteppedLoop, SteppedThread
from tests.simulation.storage import (
    NO_FAULT,
    AllStrategies,
    Place,
    Plan,
    ProcessCrash,
    SimulatedJournal,
    Spot,
)
from tests.support.channels import NOW, seeded

__all__ = ["DEFECTS", "Asked", "Shape", "Violation", "World"]

DEFECTS = ("strategy", "record", "state", "random")
"""Places where a defect can be put: it raises there, once."""

# Steps, and virtual seconds, within which all that was asked for must be answered.
_PATIENCE_STEPS = 20_000
_PATIENCE_SECONDS = 300.0

_IDENTITY = Identity.generate(seeded(0))


_LOGGERS = ("service", "pykka")
# By the fault that may be behind them.
_EXPECTED_LOGS = {
    "defect": ("%s met a defect", "Unhandled exception in"),
    "slow journal": (
        "the journal does not answer",
        "the journal failed unexpectedly",
        "journal upkeep failed",
    ),
}


class _LogWatch(logging.Handler):
    """An error in the log is one that the service has noticed and nobody else would."""

    def __init__(self, world: "World") -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        self._world.hear(str(record.msg))


class Violation(AssertionError):
    """A rule was broken."""


@dataclass(frozen=True)
class Shape:
    """What stays the same for a schedule."""

    strategy: str = "differential"
    awaiting: bool = False
    channels: int = 3
    snapshot_interval: int = 5
    turn_every: int = 2
    permits: int = 1
    max_waiting_recoveries: int = 2
    recovery_wait_timeout: float = 3.0
    journal_timeout: float = 2.0
    idle_timeout: float = 4.0
    max_waiting_writes: int = 20


class Asked(LoopFuture[Any]):
    """One command, and its one answer."""

    __slots__ = ("after", "channel", "command", "error", "established", "number", "peer", "value")

    def __init__(
        self, number: int, channel: int, command: Command, peer: Peer, after: Callable[..., None]
    ) -> None:
        super().__init__()
        self.number = number
        self.channel = channel
        self.command = command
        self.peer = peer
        self.after = after
        self.established = bool(peer.response)
        """Whether the peer knew, when it asked, that the channel is there."""
        self.value: Any = None
        self.error: BaseException | None = None

    def set(self, value: Any = None) -> None:  # noqa: ANN401 - whatever was asked for
        self.value = value
        self.after(self)

    def set_exception(self, exc_info: ExcInfo | None = None) -> None:
        self.error = (exc_info or sys.exc_info())[1]
        self.after(self)


class _Committer(Committer):
    """Counts the channels that are loading, for itself."""

    loading = 0

    def recover(
        self, channel: int, on_answer: Callable[[Recovery | None, StorageError | None], None]
    ) -> None:
        self.loading += 1

        def answered(recovery: Recovery | None, error: StorageError | None) -> None:
            self.loading -= 1
            on_answer(recovery, error)

        super().recover(channel, answered)


class _Process:
    """All that is gone when the process dies."""

    def __init__(self, world: "World") -> None:
        shape = world.shape
        self.loop = SteppedLoop(world.clock)
        self.thread = SteppedThread()
        self.committer = _Committer(
            world.journal,
            self.loop,
            max_waiting=shape.max_waiting_writes,
            timeout=shape.journal_timeout,
            thread=self.thread,
        )
        self.permits = RecoveryPermits(
            shape.permits,
            self.loop,
            max_waiting=shape.max_waiting_recoveries,
            timeout=shape.recovery_wait_timeout,
        )
        self.environment = ConnectEnvironment(
            committer=self.committer,
            permits=self.permits,
            strategy=partial(AllStrategies, shape.strategy, world.meet_defect),
            snapshot_interval=shape.snapshot_interval,
            identity=_IDENTITY,
            limits=ChannelLimits(
                dh_ratchet_every=shape.turn_every,
                max_skip=MAX_SKIP,
                max_skipped_keys=MAX_SKIP,
                one_time_prekeys=1,
            ),
            clock=lambda: NOW,
            monotonic=self.loop.time,
            random=world.random_bytes,
        )
        self.router = Router(
            RouterSettings(
                awaiting=shape.awaiting,
                idle_timeout=shape.idle_timeout,
                max_live_actors=100,
                restart_backoff=0.2,
                max_restart_backoff=1.0,
            ),
            self.environment,
            Dispatcher(self.loop, world.pass_clock),
            self.loop,
        )
        self.stopping: Any = None
        """The task that stops the service, if that has begun."""

    async def stop(self) -> None:
        await self.router.drain()
        await self.committer.close()


class World:
    """See the module's text. Every public method but the properties is a step."""

    def __init__(self, shape: Shape, seed: int, watch: Callable[[str], None] | None = None) -> None:
        """Begin with an empty journal and peers that have yet to establish their channels.

        Args:
            shape: what stays the same.
            seed: of keys, nonces and the lengths of dispatcher passes.
            watch: is told each line of the trace.
        """
        self.shape = shape
        self.clock = Clock()
        self.random = random.Random(seed)
        self.faults: Counter[str] = Counter()
        self.steps = 0
        self.commands = 0
        self.answers: Counter[str] = Counter()
        self._watch = watch
        self._digest = sha256()
        self._violations: list[str] = []
        self._defect: str | None = None
        self._given: dict[Spot, bytes] = {}
        self._unanswered: dict[int, Asked] = {}
        self._answered_up_to: dict[int, int] = {}
        self._closes_answered: Counter[int] = Counter()
        self._foreign: set[Spot] = set()
        self._may_be_sent: Counter[int] = Counter()
        self._may_be_received: set[Spot] = set()
        self._peers_made = 0
        self._pass_time = 0.0
        self._logs = _LogWatch(self)
        self.journal = SimulatedJournal(self.blame)
        self.peers = [self._new_peer() for _ in range(shape.channels)]
        self.retired: list[Peer] = []
        self.process = _Process(self)

    def __enter__(self) -> Self:
        """Listen to what the service logs."""
        self._bury()
        for name in _LOGGERS:
            logging.getLogger(name).addHandler(self._logs)
            logging.getLogger(name).propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind."""
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self._logs)
            logging.getLogger(name).propagate = True
        self._bury()

    # --- What the driver looks at ---------------------------------------------------------------

    @property
    def ready(self) -> int:
        """Callbacks of the event loop that could run."""
        return self.process.loop.ready

    @property
    def jobs(self) -> int:
        """Rounds that wait in the journal's thread."""
        return len(self.process.thread.jobs)

    @property
    def digest(self) -> str:
        """Of the trace so far."""
        return self._digest.hexdigest()

    # --- Steps of the machine ---------------------------------------------------------------------

    def run_callback(self, position: int) -> None:
        """Let the event loop run one of what is ready."""
        self._note("run", position)
        self.process.loop.run(position)
        self._check()

    def run_journal(self, plan: Plan = NO_FAULT) -> None:
        """Let the journal's thread do its next round."""
        self._note("journal", plan.fault.name, plan.at)
        self.journal.expect(plan)
        try:
            self.process.thread.run()
        except ProcessCrash:
            self._restart()
        self.journal.expect(NO_FAULT)
        self._check()

    def pass_time(self) -> None:
        """Let time pass until the next timer."""
        committer = self.process.committer
        if committer._round is not None or committer._scheduled:
            self.faults["slow journal"] += 1
        self.process.loop.pass_time()
        self._note("time", round(self.clock.now, 6))
        self._check()

    def crash(self) -> None:
        """Kill the process, and start it anew."""
        self.faults["crash between rounds"] += 1
        self._note("crash")
        self._restart()
        self._check()

    def stop(self) -> None:
        """Begin to stop the service in order; when it has stopped, another one starts."""
        if self.process.stopping is None:
            self.faults["stop"] += 1
            self._note("stop")
            self.process.stopping = self.process.loop.create_task(self.process.stop())

    def plant_defect(self, where: str) -> None:
        """Have the next use of something raise what it must not."""
        self._note("defect", where)
        self._defect = where

    def damage(self, slot: int) -> None:
        """Make a channel's records unreadable for good; its peer begins another one."""
        self._note("damage", slot)
        self.faults["damaged channel"] += 1
        self.journal.damaged.add(self.peers[slot].connect_id)
        self._retire(slot)

    def write_from_elsewhere(self, slot: int) -> None:
        """Let a second service encrypt a message on a channel, and write it down."""
        peer = self.peers[slot]
        history = self.journal.alive.get(peer.connect_id)
        if history is None:
            return
        self._note("foreign", slot)
        self.faults["foreign writer"] += 1
        self.journal.disturbed.add(peer.connect_id)
        session = Session.decode(history.session.encode())
        payload, change = session.encrypt(b"foreign", now=NOW, random=self.random.randbytes)
        kind, stored = AllStrategies(self.shape.strategy, lambda _: None).record(session, change)
        number = self.journal.highest_sequence_number(peer.connect_id) + 1
        self.journal.commit(Batch([Record(peer.connect_id, number, kind, stored)]))
        self._foreign.add(spot_of(payload))
        self._give_out(peer, payload, b"foreign")
        self._check()

    # --- Steps of the peers -----------------------------------------------------------------------

    def establish(self, slot: int) -> Asked:
        """Ask for a channel, perhaps once more."""
        peer = self.peers[slot]
        return self._ask(peer, Establish(peer.request))

    def encrypt(self, slot: int, deadline: float | None = None) -> Asked:
        """Have the service encrypt a message."""
        return self._ask(
            self.peers[slot], Encrypt(b"down %d" % self.commands, deadline=self._by(deadline))
        )

    def seal(self, slot: int) -> None:
        """Let a peer encrypt a message, and send it later or never."""
        if self.peers[slot].session is not None:
            self._note("seal", slot)
            self.peers[slot].seal()

    def deliver(self, slot: int, position: int = -1, deadline: float | None = None) -> Asked | None:
        """Let a peer's message arrive, not in order."""
        peer = self.peers[slot]
        if not peer.unsent:
            return None
        return self._ask(peer, Decrypt(peer.take(position), self._by(deadline)))

    def deliver_again(self, slot: int, position: int) -> Asked | None:
        """Let a message arrive that was sent before."""
        peer = self.peers[slot]
        if not peer.sent:
            return None
        return self._ask(peer, Decrypt(peer.sent[position % len(peer.sent)]))

    def deliver_forged(self, slot: int, position: int, how: int) -> Asked | None:
        """Let a message arrive that the peer has not sent."""
        peer = self.peers[slot]
        if not peer.sent and not peer.unsent:
            return None
        return self._ask(peer, Decrypt(peer.forge(position, how)))

    def open(self, slot: int, position: int) -> None:
        """Let a peer decrypt what has come."""
        peer = self.peers[slot]
        if peer.session is not None and peer.unopened:
            self._note("open", slot, position)
            self._open(peer, position)
            self._check()

    def restore(self, slot: int) -> Asked:
        """Ask where a channel stands."""
        return self._ask(self.peers[slot], Restore())

    def close(self, slot: int) -> Asked:
        """Ask for a channel's end; its peer begins another one."""
        peer = self.peers[slot]
        peer.close_asked = True
        asked = self._ask(peer, Close())
        self._retire(slot)
        return asked

    def disturb(self, position: int, what: int) -> Asked | None:
        """Ask something of a channel that its peer has given up."""
        if not self.retired:
            return None
        peer = self.retired[position % len(self.retired)]
        commands: list[Command] = [Establish(peer.request), Encrypt(b"late"), Restore(), Close()]
        if peer.sent:
            commands.append(Decrypt(peer.sent[position % len(peer.sent)]))
        return self._ask(peer, commands[what % len(commands)])

    # --- The end ----------------------------------------------------------------------------------

    def settle(self) -> None:
        """Let all faults cease; then everything must be answered, whole, and go on."""
        self._note("settle")
        self._defect = None
        self._run_until(lambda: not self._unanswered and self.process.stopping is None)
        self.journal.verify()
        self._check()
        self._rest()
        for slot in range(len(self.peers)):
            self._talk(slot)
        self._rest()
        if self.process.permits.in_use or self.process.permits.waiting:
            self.blame(f"{self.process.permits.in_use} permits were not given back")
        process = self.process
        self.stop()
        self._run_until(lambda: self.process is not process)
        self._account()
        self._check()

    def _talk(self, slot: int) -> None:
        """A channel that is not damaged can go on talking, both ways."""
        peer = self.peers[slot]
        if peer.session is None:
            self._insist(partial(self.establish, slot))
        while peer.unopened:
            self._open(peer, 0)
        self._insist(partial(self.encrypt, slot))
        if peer.unopened:
            self._open(peer, 0)
        peer.seal()
        last = len(peer.unsent) - 1
        payload = peer.unsent[last]
        self._insist(partial(self.deliver, slot, last))
        if peer.decrypted[spot_of(payload)] != 1:
            self.blame(f"peer {slot}'s last message was not decrypted")
        self._check()

    def _insist(self, ask: Callable[[], Asked | None]) -> None:
        """Ask, and once more after a pause if an actor has failed."""
        for _ in range(2):
            asked = ask()
            self._run_until(lambda: not self._unanswered)
            if asked is None or asked.error is None:
                return
            self._rest()
            self.clock.now += 2.0
        self.blame(f"command {asked.number} fails in peace: {asked.error!r}")
        self._check()

    def _rest(self) -> None:
        self._run_until(lambda: not self.ready and not self.jobs)

    def _run_until(self, done: Callable[[], bool]) -> None:
        latest = self.clock.now + _PATIENCE_SECONDS
        for _ in range(_PATIENCE_STEPS):
            if done():
                return
            if self.ready:
                self.run_callback(self.random.randrange(self.ready))
            elif self.jobs:
                self.run_journal()
            elif self.clock.now < latest:
                self.process.loop.pass_time()
                self._note("time", round(self.clock.now, 6))
            else:
                break
        waiting = ", ".join(repr(asked.command) for asked in self._unanswered.values())
        self.blame(f"something hangs for ever: {waiting or 'no command'}")
        self._check()

    # --- Commands and their answers ---------------------------------------------------------------

    def _by(self, deadline: float | None) -> float | None:
        return None if deadline is None else self.clock.now + deadline

    def _ask(self, peer: Peer, command: Command) -> Asked:
        self.commands += 1
        asked = Asked(self.commands, peer.connect_id, command, peer, self._answered)
        self._note("ask", asked.number, peer.number, type(command).__name__)
        self._unanswered[asked.number] = asked
        if isinstance(command, Decrypt):
            # Until it is refused.
            self._may_be_received.add(spot_of(command.payload))
        elif isinstance(command, Encrypt):
            self._may_be_sent[peer.connect_id] += 1
        self.process.router.route(peer.connect_id, command, asked)
        self._check()
        return asked

    def _answered(self, asked: Asked) -> None:
        said = asked.value if asked.error is None else type(asked.error).__name__
        self._note("answer", asked.number, said)
        if self._unanswered.pop(asked.number, None) is None:
            self.blame(f"command {asked.number} has more than one answer")
            return
        self.answers[type(asked.command).__name__ if asked.error is None else str(said)] += 1
        if asked.error is None or isinstance(asked.error, PeerError):
            if asked.number < self._answered_up_to.get(asked.channel, 0):
                self.blame(f"command {asked.number} is answered after a later one")
            self._answered_up_to[asked.channel] = asked.number
        if asked.error is None:
            self._succeeded(asked)
        else:
            self._failed(asked, asked.error)

    def _succeeded(self, asked: Asked) -> None:
        journal, channel, peer = self.journal, asked.channel, asked.peer
        match asked.command:
            case Establish():
                if (channel, asked.value) not in journal.responses:
                    self.blame("a handshake is answered before it is durable")
                elif peer.session is None:
                    peer.complete(asked.value)
                elif peer.response != asked.value and not peer.close_asked:
                    self.blame("a handshake has two answers")
            case Encrypt(plaintext):
                if journal.sent.get(spot_of(asked.value)) != channel:
                    self.blame("a message is given out before it is durable")
                self._give_out(peer, asked.value, plaintext)
            case Decrypt(payload):
                spot = spot_of(payload)
                peer.decrypted[spot] += 1
                if journal.received.get(spot) != channel:
                    self.blame("a plaintext is given out before it is durable")
                if peer.plaintexts.get(spot) != asked.value:
                    self.blame("a plaintext says what nobody wrote")
                if peer.decrypted[spot] > 1:
                    self.blame("a message was decrypted twice")
            case Restore():
                place = Place(
                    asked.value.sending_chain_length,
                    asked.value.receiving_chain_length,
                    asked.value.skipped_message_keys,
                )
                if not isinstance(asked.value, Restored) or not any(
                    place in places for places in journal.places.get(channel, [])
                ):
                    self.blame("a channel is told to stand where it durably never stood")
            case Close():
                self._closes_answered[channel] += 1
                if self._closes_answered[channel] > journal.closings[channel]:
                    self.blame("a channel is said to be closed before that is durable")

    def _failed(self, asked: Asked, error: BaseException) -> None:
        if not isinstance(error, ConnectError | ActorDeadError):
            self.blame(f"{error!r} is no answer")
        cause = self._cause(asked, error)
        if cause is not None:
            self.blame(f"{error!r} for command {asked.number}, but {cause}")
        if isinstance(error, WriteUncertainError):
            return
        # Known not to have happened.
        if isinstance(asked.command, Encrypt):
            self._may_be_sent[asked.channel] -= 1

    def _cause(self, asked: Asked, error: BaseException) -> str | None:
        """Return why there should not have been this error, if so."""
        journal, channel = self.journal, asked.channel
        storage = journal.faults.total() + self.faults["slow journal"]
        match error:
            case MessageReplayedError():
                if not isinstance(asked.command, Decrypt):
                    return "it was no message"
                spot = spot_of(asked.command.payload)
                # A forged index may be one that no message ever had.
                if spot in asked.peer.plaintexts and journal.received.get(spot) != channel:
                    return "no such message has durably been received"
            case ChannelNotFoundError():
                if channel in journal.alive and not asked.peer.close_asked and asked.established:
                    return "the channel is there"
            case WriteRejectedError() if channel not in journal.disturbed | journal.damaged:
                return "nobody else has written"
            case WriteUncertainError() | ReadFailedError() if not storage:
                return "the journal has not failed"
            case ChannelDamagedError() if channel not in journal.damaged:
                return "it is not damaged"
            case ActorCrashedError() | ActorDeadError() if not self.faults["defect"]:
                return "there was no defect"
        return None

    def _give_out(self, peer: Peer, payload: Payload, plaintext: bytes) -> None:
        spot, sealed = spot_of(payload), payload.nonce + payload.ciphertext
        if self._given.setdefault(spot, sealed) != sealed:
            self.blame(f"index {spot.index} of a chain was given out twice with different bytes")
        peer.unopened.append((payload, plaintext))

    def _open(self, peer: Peer, position: int) -> None:
        try:
            wrong = peer.open(position)
        except ConnectError as error:
            wrong = f"a peer refuses what it was sent: {error!r}"
        if wrong is not None:
            self.blame(wrong)

    def _account(self) -> None:
        """What was refused has changed nothing; whatever strategy, the histories agree."""
        sent = Counter(
            channel for spot, channel in self.journal.sent.items() if spot not in self._foreign
        )
        for channel, count in sent.items():
            if count > self._may_be_sent[channel]:
                self.blame(f"{count} messages sent, {self._may_be_sent[channel]} asked for")
        if not self.journal.received.keys() <= self._may_be_received:
            self.blame("a message was received that nobody sent")
        self.journal.verify()
        for channel, history in self.journal.alive.items():
            for disagreement in history.disagreements():
                self.blame(f"channel {channel}: {disagreement}")

    # --- The process ------------------------------------------------------------------------------

    def pass_clock(self) -> float:
        """End a pass of the dispatcher behind any turn: to its clock, some turns take long."""
        if self.random.random() < 0.2:
            self._pass_time += PASS_SECONDS
        return self._pass_time

    def meet_defect(self, where: str) -> None:
        """Raise if there is a defect here."""
        if self._defect == where:
            self._defect = None
            self.faults["defect"] += 1
            raise ZeroDivisionError("on purpose")

    def random_bytes(self, count: int) -> bytes:
        """Give the service what it takes for randomness."""
        self.meet_defect("random")
        return self.random.randbytes(count)

    def _restart(self) -> None:
        """Start a new process; what the old one has not answered, it never will."""
        self._bury()
        for asked in self._unanswered.values():
            asked.after = self._answered_from_the_grave
        self._unanswered.clear()
        self._answered_up_to.clear()
        self.journal.verify()
        self.process = _Process(self)

    def _bury(self) -> None:
        """Let go of what has no end of its own, as the process was killed."""
        for ref in ActorRegistry.get_by_class(ConnectActor):
            ActorRegistry.unregister(ref)
        if self.process.stopping is not None and not self.process.stopping.done():
            self.process.stopping._log_destroy_pending = False
            self.process.stopping.get_coro().close()

    def hear(self, message: str) -> None:
        """Take note of what the service has logged as an error."""
        for cause, texts in _EXPECTED_LOGS.items():
            if message.startswith(texts):
                if not (self.faults[cause] or self.journal.faults.total()):
                    self.blame(f"logged without a cause: {message}")
                return
        self.blame(f"logged: {message}")

    def _answered_from_the_grave(self, asked: Asked) -> None:
        self.blame(f"command {asked.number} is answered by a dead process")

    def _new_peer(self) -> Peer:
        self._peers_made += 1
        return Peer(self._peers_made, self.random.randbytes)

    def _retire(self, slot: int) -> None:
        self.retired.append(self.peers[slot])
        self.peers[slot] = self._new_peer()

    # --- Rules ------------------------------------------------------------------------------------

    def blame(self, what: str) -> None:
        """Say that a rule was broken; the step that did it fails."""
        self._violations.append(what)

    def _check(self) -> None:
        self.steps += 1
        process = self.process
        permits = process.permits
        if process.committer.loading > self.shape.permits:
            self.blame(f"{process.committer.loading} channels load at a time")
        if not 0 <= permits.in_use <= self.shape.permits:
            self.blame(f"{permits.in_use} permits are in use")
        if permits.waiting > self.shape.max_waiting_recoveries:
            self.blame(f"{permits.waiting} wait for a permit")
        if process.loop.failures:
            self.blame(f"raised into the loop: {process.loop.failures}")
        if process.stopping is not None and process.stopping.done():
            self._stopped()
        if self._violations:
            raise Violation("; ".join(self._violations))

    def _stopped(self) -> None:
        if self._unanswered:
            self.blame(f"stopped without an answer to {list(self._unanswered)}")
        if self.process.router.live:
            self.blame("stopped while actors were alive")
        if actors := ActorRegistry.get_by_class(ConnectActor):
            self.blame(f"{len(actors)} actors outlive the service")
        self._note("stopped")
        self._restart()

    def _note(self, *what: object) -> None:
        line = " ".join(
            sha256(repr(each).encode()).hexdigest()[:12]
            if isinstance(each, bytes | tuple)
            else str(each)
            for each in what
        )
        self._digest.update(line.encode() + b"\n")
        if self._watch is not None:
            self._watch(line)
