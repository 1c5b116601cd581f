"""The world of one schedule: a service in a process that can die, its journal, and the peers.

Whoever drives it chooses every step; each is checked at once. All that happens goes into a trace,
the same for the same steps.
"""

import logging
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Self
from unittest.mock import patch

from connect_actor.actors.commands import Close, Command, Decrypt, Encrypt, Establish, Restore
from connect_actor.actors.dispatcher import PASS_SECONDS
from connect_actor.actors.phases import running
from connect_actor.errors import ConnectError
from connect_actor.persistence.contract import Batch, Record
from connect_actor.protocol.session import Session
from tests.simulation.ledger import Asked, Ledger
from tests.simulation.peers import Peer, spot_of
from tests.simulation.process import Process, Shape
from tests.simulation.stepping import Clock
from tests.simulation.storage import (
    NO_FAULT,
    AllStrategies,
    Plan,
    ProcessCrash,
    SimulatedJournal,
)
from tests.support.channels import NOW

__all__ = ["DEFECTS", "Violation", "World"]

DEFECTS = ("strategy", "record", "state", "random")
"""Places where a defect can be put: it raises there, once."""

# Steps, and virtual seconds, within which all that was asked for must be answered.
_PATIENCE_STEPS = 20_000
_PATIENCE_SECONDS = 300.0
# Longer than any back-off.
_PAUSE = 2.0
# How often a turn takes so long that the dispatcher's pass ends behind it.
_LONG_TURNS = 0.2

_LOGGERS = ("connect_actor", "pykka")
# What may be logged as an error, by the fault that must be behind it.
_EXPECTED_LOGS = {
    "a channel is damaged": ("the channel can't be loaded",),
    "defect": ("%s met a defect", "Unhandled exception in"),
    "slow journal": (
        "the journal does not answer",
        "the journal failed unexpectedly",
        "journal upkeep failed",
    ),
}


class Violation(AssertionError):  # noqa: N818 - of a rule; the error is the service's
    """A rule was broken."""


class _LogWatch(logging.Handler):
    """An error in the log is one that the service has noticed, and perhaps nobody else would."""

    def __init__(self, hear: Callable[[str], None]) -> None:
        super().__init__(logging.ERROR)
        self._hear = hear

    def emit(self, record: logging.LogRecord) -> None:
        self._hear(str(record.msg))


class World:
    """See the module's text. Enter it; then every public method is a step."""

    def __init__(self, shape: Shape, seed: int, watch: Callable[[str], None] | None = None) -> None:
        """Begin with an empty journal and peers that have yet to establish their channels.

        Args:
            shape: what stays the same.
            seed: of keys, nonces and the lengths of dispatcher passes.
            watch: is told each line of the trace.
        """
        self.shape = shape
        self.clock = Clock()
        self.faults: Counter[str] = Counter()
        self.steps = 0
        self._random = random.Random(seed)
        self._watch = watch
        self._digest = sha256()
        self._violations: list[str] = []
        self._defect: str | None = None
        self._pass_time = 0.0
        self._peers_made = 0
        self._logs = _LogWatch(self._hear)
        # So that messages which take a turn of their own, since they skip many, are no rarity.
        self._free_work = patch.object(running, "FREE_WORK", 0)
        self.journal = SimulatedJournal(self._violations.append)
        self.ledger = Ledger(self.journal, self.faults, self._violations.append, self._note)
        self.peers = [self._new_peer() for _ in range(shape.channels)]
        self.retired: list[Peer] = []
        self.process = Process(self, self.journal)

    def __enter__(self) -> Self:
        self.process.kill()
        self._free_work.start()
        for name in _LOGGERS:
            logging.getLogger(name).addHandler(self._logs)
            logging.getLogger(name).propagate = False
        return self

    def __exit__(self, *_: object) -> None:
        self._free_work.stop()
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self._logs)
            logging.getLogger(name).propagate = True
        self.process.kill()

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
        if self.process.slow:
            self.faults["slow journal"] += 1
        self.process.loop.pass_time()
        self._note("time", round(self.clock.now, 6))
        self._check()

    def crash(self) -> None:
        """Kill the process, and start it anew."""
        self.faults["the process dies between rounds"] += 1
        self._note("crash")
        self._restart()
        self._check()

    def stop(self) -> None:
        """Begin to stop the service in order; when it has stopped, another one starts."""
        if not self.process.stopping:
            self.faults["the service is stopped"] += 1
            self._note("stop")
            self.process.stop()

    def plant_defect(self, where: str) -> None:
        """Have the next use of something raise what it must not."""
        self._note("defect", where)
        self._defect = where

    def damage(self, slot: int) -> None:
        """Make a channel's records unreadable for good; its peer begins another one."""
        self._note("damage", slot)
        self.faults["a channel is damaged"] += 1
        self.journal.damaged.add(self.peers[slot].connect_id)
        self._retire(slot)

    def write_from_elsewhere(self, slot: int) -> None:
        """Let a second service encrypt a message on a channel, and write it down."""
        peer = self.peers[slot]
        history = self.journal.alive.get(peer.connect_id)
        if history is None:
            return
        self._note("foreign", slot)
        self.faults["a foreign writer"] += 1
        self.journal.disturbed.add(peer.connect_id)
        session = Session.decode(history.session.encode())
        payload, change = session.encrypt(b"foreign", now=NOW, random=self._random.randbytes)
        kind, stored = AllStrategies(self.shape.strategy, lambda _: None).record(session, change)
        number = self.journal.highest_sequence_number(peer.connect_id) + 1
        self.journal.commit(Batch([Record(peer.connect_id, number, kind, stored)]))
        self.ledger.give_out_foreign(peer, payload, b"foreign")
        self._check()

    # --- Steps of the peers -----------------------------------------------------------------------

    def establish(self, slot: int) -> Asked:
        """Ask for a channel, perhaps once more."""
        peer = self.peers[slot]
        return self._ask(peer, Establish(peer.request))

    def encrypt(self, slot: int, *, late: bool = False) -> Asked:
        """Have the service encrypt a message, perhaps with a deadline that is over."""
        plaintext = b"down %d" % self.ledger.commands
        return self._ask(self.peers[slot], Encrypt(plaintext, deadline=self._deadline(late=late)))

    def seal(self, slot: int) -> None:
        """Let a peer encrypt a message, and send it later or never."""
        if self.peers[slot].session is not None:
            self._note("seal", slot)
            self.peers[slot].seal()

    def deliver(self, slot: int, position: int = -1, *, late: bool = False) -> Asked | None:
        """Let a peer's message arrive, perhaps not in order."""
        peer = self.peers[slot]
        if not peer.unsent:
            return None
        return self._ask(peer, Decrypt(peer.take(position), self._deadline(late=late)))

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
        self._run_until(lambda: not self.ledger.unanswered and not self.process.stopping)
        self._rest()
        self.journal.verify()
        for slot in range(len(self.peers)):
            self._talk(slot)
        self._rest()
        permits, process = self.process.permits, self.process
        if permits.in_use or permits.waiting:
            self._violations.append("permits were not given back")
        self.stop()
        self._run_until(lambda: self.process is not process)
        self.ledger.balance()
        self.journal.compare_strategies()
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
        last = peer.unsent[-1]
        self._insist(partial(self.deliver, slot))
        if peer.decrypted[spot_of(last)] != 1:
            self._violations.append(f"the last message of peer {peer.number} was not decrypted")
        self._check()

    def _insist(self, ask: Callable[[], Asked | None]) -> None:
        """Ask, and once more after a pause: an actor may have failed just before."""
        for _ in range(2):
            asked = ask()
            self._run_until(lambda: not self.ledger.unanswered)
            if asked is None or asked.error is None:
                return
            self._rest()
            self.clock.now += _PAUSE
        self._violations.append(f"a command fails in peace: {asked and asked.error!r}")
        self._check()

    def _rest(self) -> None:
        self._run_until(lambda: not self.ready and not self.jobs)

    def _run_until(self, done: Callable[[], bool]) -> None:
        latest = self.clock.now + _PATIENCE_SECONDS
        for _ in range(_PATIENCE_STEPS):
            if done():
                return
            if self.ready:
                self.run_callback(self._random.randrange(self.ready))
            elif self.jobs:
                self.run_journal()
            elif self.clock.now < latest:
                self.pass_time()
            else:
                break
        waiting = list(self.ledger.unanswered)
        self._violations.append(f"something hangs for ever; unanswered commands: {waiting}")
        self._check()

    # --- What the process finds around it ---------------------------------------------------------

    def pass_clock(self) -> float:
        """See ``Surroundings``."""
        if self._random.random() < _LONG_TURNS:
            self._pass_time += PASS_SECONDS
        return self._pass_time

    def meet_defect(self, where: str) -> None:
        """See ``Surroundings``."""
        if self._defect == where:
            self._defect = None
            self.faults["defect"] += 1
            raise ZeroDivisionError("on purpose")

    def random_bytes(self, count: int) -> bytes:
        """See ``Surroundings``."""
        self.meet_defect("random")
        return self._random.randbytes(count)

    # --- Within -----------------------------------------------------------------------------------

    def _ask(self, peer: Peer, command: Command) -> Asked:
        if isinstance(command, Close):
            peer.close_asked = True
        asked = self.ledger.ask(peer, command)
        self.process.router.route(peer.connect_id, command, asked)
        self._check()
        return asked

    def _deadline(self, *, late: bool) -> float | None:
        return self.clock.now if late else None

    def _open(self, peer: Peer, position: int) -> None:
        try:
            wrong = peer.open(position)
        except ConnectError as error:
            wrong = f"a peer refuses what it was sent: {error!r}"
        if wrong is not None:
            self._violations.append(wrong)

    def _new_peer(self) -> Peer:
        self._peers_made += 1
        return Peer(self._peers_made, self._random.randbytes)

    def _retire(self, slot: int) -> None:
        self.retired.append(self.peers[slot])
        self.peers[slot] = self._new_peer()

    def _restart(self) -> None:
        """Start a new process; what the old one has not answered, it never will."""
        self.process.kill()
        self.ledger.bury()
        self.journal.verify()
        self.process = Process(self, self.journal)

    def _check(self) -> None:
        """Raise if a rule was broken by now."""
        self.steps += 1
        process = self.process
        self._violations += process.faults(self.shape)
        if process.gave_up:
            self._note("gave up")
            self._restart()
        if process.stopped:
            self._note("stopped")
            if self.ledger.unanswered:
                self._violations.append("stopped without an answer to someone")
            self._restart()
        if self._violations:
            raise Violation("; ".join(self._violations))

    def _hear(self, message: str) -> None:
        for cause, texts in _EXPECTED_LOGS.items():
            if message.startswith(texts):
                slow = self.faults["slow journal"]
                if not (self.faults[cause] or slow or self.journal.faults):
                    self._violations.append(f"logged without a cause: {message}")
                return
        self._violations.append(f"logged: {message}")

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
