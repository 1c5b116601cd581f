"""The peers: they hold the other end of each channel, and let no wrong answer pass.

``Peers`` turns planned operations into operations on the wire, remembers each until its answer
comes, and checks every byte of every answer. A message that is held back is sealed in its turn,
waits until later messages of its peer have gone out, and is never lost: ``release_held`` hands out
those that are still waiting.

Peers know no clock: times are passed in, in nanoseconds of one monotonic clock.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Protocol

import grpc

from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.workload import Kind, PlannedOperation

__all__ = [
    "Finished",
    "Outcome",
    "Peer",
    "PeerEnd",
    "Peers",
    "Pending",
    "RefusedByPeerError",
    "status_name",
]


_STATUS_NAMES = {status.value[0]: status.name for status in grpc.StatusCode}


def status_name(code: int) -> str:
    """Return the name of a gRPC status."""
    return _STATUS_NAMES.get(code, f"CODE_{code}")


class RefusedByPeerError(Exception):
    """The peer's end of a channel can't open what the service encrypted."""


class PeerEnd(Protocol):
    """The peer's end of one channel."""

    @property
    def connect_id(self) -> int:
        """Name of the channel."""

    def seal(self, plaintext: bytes) -> wire.CipherPayload:
        """Encrypt a message for the service's end."""

    def open(self, payload: wire.CipherPayload) -> bytes:
        """Decrypt a message of the service's end.

        Raises:
            RefusedByPeerError: it is not authentic, or came before.
        """


class Outcome(Enum):
    """How an operation ended."""

    RIGHT = auto()
    """Answered, and every byte is as it must be."""
    WRONG = auto()
    """Answered with something that the peer can't open, or that is not what was sent."""
    ERROR = auto()
    """Answered with an error status."""


@dataclass(slots=True, eq=False)
class Pending:
    """An operation between its plan and its last answer."""

    kind: Kind
    peer: "Peer"
    plaintext: bytes = field(repr=False)
    request: wire.Operation = field(repr=False)
    """What goes over the wire next."""
    messages: int = 0
    """Messages that the service encrypted or decrypted for it so far, with the right result."""
    intended_at: int = 0
    """When it was due; in a closed loop, when it was sent."""
    sent_at: int = 0
    """When it was first handed to the transport."""


@dataclass(frozen=True, slots=True)
class Finished:
    """An operation that has its last answer."""

    pending: Pending
    outcome: Outcome
    status: str = "OK"
    """Name of the gRPC status; other than ``OK`` only if the outcome is ``ERROR``."""


@dataclass(slots=True, eq=False)
class _Held:
    pending: Pending
    overtaken_by: int
    overtaken: int = 0


@dataclass(slots=True, eq=False)
class Peer:
    """One channel's peer."""

    end: PeerEnd
    held: list[_Held] = field(default_factory=list)
    unfinished: int = 0
    """Operations that were planned and have not finished."""
    when_idle: Callable[[], None] | None = None
    """Called once nothing is unfinished, of a peer that was replaced."""


class Peers:
    """All peers of a run, and what they have in flight."""

    def __init__(self, ends: Sequence[PeerEnd], plan: Iterator[PlannedOperation]) -> None:
        self.peers = [Peer(end) for end in ends]
        self.reordered = 0
        """Messages that were sent after a later one of the same peer."""
        self._plan = plan
        self._ids = itertools.count(1)
        self._due: deque[Pending] = deque()
        self._follow_ups: deque[Pending] = deque()
        self._in_flight: dict[int, Pending] = {}
        self._asked: dict[int, Callable[[wire.OperationResult], None]] = {}
        self._given_up: set[int] = set()

    @property
    def unanswered(self) -> int:
        """Operations that were begun and have not finished, follow-ups included."""
        return len(self._in_flight) + len(self._follow_ups)

    @property
    def waiting_follow_ups(self) -> int:
        """Second halves of round trips that wait to be sent."""
        return len(self._follow_ups)

    # --- Sending ------------------------------------------------------------------------------

    def begin(self) -> Pending:
        """Return the next operation to send: a held one whose time has come, or the plan's next."""
        while not self._due:
            self._plan_next()
        return self._launch(self._due.popleft())

    def skip(self) -> None:
        """Pass over the plan's next operation, as if it had never been planned."""
        next(self._plan)

    def follow_up(self) -> Pending:
        """Return the second half of a round trip whose first half was answered.

        Raises:
            IndexError: none waits.
        """
        return self._launch(self._follow_ups.popleft())

    def release_held(self) -> list[Pending]:
        """Return all messages that are still held back, or due, to be sent now."""
        for peer in self.peers:
            for held in peer.held:
                self._release(held)
            peer.held.clear()
        late = list(self._due)
        self._due.clear()
        return [self._launch(pending) for pending in late]

    def ask(self, operation: wire.Operation, take: Callable[[wire.OperationResult], None]) -> None:
        """Number an operation that is no part of the workload; ``take`` is given its answer."""
        operation.operation_id = next(self._ids)
        self._asked[operation.operation_id] = take

    def forget(self, operation_id: int) -> None:
        """Give up what was asked: its answer, should it come, is late and not wrong."""
        del self._asked[operation_id]
        self._given_up.add(operation_id)

    def replace(self, channel: int, end: PeerEnd, when_idle: Callable[[], None]) -> None:
        """Let another end have this channel's place from now on.

        Args:
            channel: index of the place.
            end: what later operations use.
            when_idle: called as soon as all operations of the former end have finished.
        """
        former, self.peers[channel] = self.peers[channel], Peer(end)
        for held in former.held:
            self._release(held)
        former.held.clear()
        if former.unfinished:
            former.when_idle = when_idle
        else:
            when_idle()

    def _plan_next(self) -> None:
        kind, channel, payload, overtaken_by = next(self._plan)
        peer = self.peers[channel]
        peer.unfinished += 1
        if kind is not Kind.DECRYPT:
            request = wire.Operation(
                encrypt=wire.EncryptRequest(connect_id=peer.end.connect_id, plaintext=payload)
            )
            self._due.append(Pending(kind, peer, payload, request))
            return
        pending = Pending(kind, peer, payload, _decrypt(peer, payload))
        if overtaken_by:
            peer.held.append(_Held(pending, overtaken_by))
            return
        self._due.append(pending)
        if peer.held:
            self._let_overtake(peer)

    def _let_overtake(self, peer: Peer) -> None:
        for held in peer.held:
            held.overtaken += 1
            if held.overtaken == held.overtaken_by:
                self._release(held)
        peer.held = [held for held in peer.held if held.overtaken < held.overtaken_by]

    def _release(self, held: _Held) -> None:
        self._due.append(held.pending)
        if held.overtaken:
            self.reordered += 1

    def _launch(self, pending: Pending) -> Pending:
        operation_id = next(self._ids)
        pending.request.operation_id = operation_id
        self._in_flight[operation_id] = pending
        return pending

    # --- Receiving ----------------------------------------------------------------------------

    def settle(self, result: wire.OperationResult) -> Finished | None:
        """Take one answer.

        Returns:
            The operation it finishes, or nothing if the operation goes on with a follow-up, was
            given up before, or is no part of the workload.

        Raises:
            KeyError: no operation of this id waits for an answer.
        """
        if result.operation_id in self._given_up:
            # Late, not wrong: it was counted when it was given up.
            self._given_up.remove(result.operation_id)
            return None
        if (take := self._asked.pop(result.operation_id, None)) is not None:
            take(result)
            return None
        pending = self._in_flight.pop(result.operation_id)
        finished = self._judge(pending, result)
        if finished is not None:
            _let_go(pending.peer)
        return finished

    def _judge(self, pending: Pending, result: wire.OperationResult) -> Finished | None:
        outcome = result.WhichOneof("outcome")
        if outcome == "error":
            return Finished(pending, Outcome.ERROR, status_name(result.error.code))
        if _plaintext_in(result, pending) != pending.plaintext:
            return Finished(pending, Outcome.WRONG)
        pending.messages += 1
        if outcome == "encrypt" and pending.kind is Kind.ROUND_TRIP:
            pending.request = _decrypt(pending.peer, pending.plaintext)
            self._follow_ups.append(pending)
            return None
        return Finished(pending, Outcome.RIGHT)

    def give_up(self, status: str) -> list[Finished]:
        """Return all operations that have no answer, as failed with ``status``."""
        lost = [*self._in_flight.values(), *self._follow_ups]
        self._given_up.update(self._in_flight)
        self._in_flight.clear()
        self._follow_ups.clear()
        for pending in lost:
            _let_go(pending.peer)
        return [Finished(pending, Outcome.ERROR, status) for pending in lost]


def _let_go(peer: Peer) -> None:
    peer.unfinished -= 1
    if not peer.unfinished and peer.when_idle is not None:
        peer.when_idle()
        peer.when_idle = None


def _plaintext_in(result: wire.OperationResult, pending: Pending) -> bytes | None:
    """Return what an answer says; nothing if it answers something else or can't be opened."""
    outcome = result.WhichOneof("outcome")
    if outcome != pending.request.WhichOneof("request"):
        return None
    if outcome == "decrypt":
        return result.decrypt.plaintext
    try:
        return pending.peer.end.open(result.encrypt.payload)
    except RefusedByPeerError:
        return None


def _decrypt(peer: Peer, plaintext: bytes) -> wire.Operation:
    return wire.Operation(
        decrypt=wire.DecryptRequest(
            connect_id=peer.end.connect_id, payload=peer.end.seal(plaintext)
        )
    )
