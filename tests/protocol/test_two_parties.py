"""Two parties over a channel that loses, delays, duplicates and reorders, against a plain model.

The model knows no keys: it counts turns, indexes and which messages are still missing, and says of
every delivery whether it must decrypt, or else how it must be refused. Beside each session runs a
shadow that is only ever given the session's stored form and its stored changes.
"""

import copy
from dataclasses import dataclass, field
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from connect_actor.errors import (
    AuthenticationFailedError,
    ConnectError,
    MessageReplayedError,
    SkipLimitExceededError,
)
from connect_actor.protocol.changes import decode_change, encode_change
from connect_actor.protocol.handshake import ChannelLimits
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.ratchet import MAX_SKIPPED_CHAINS
from connect_actor.protocol.session import Session
from tests.support.channels import NOW, make_ends, seeded

MAX_SKIP = 4
MAX_SKIPPED_KEYS = 7


@dataclass(frozen=True)
class Message:
    """What was sent: by whom, where on its chains, and its encrypted form."""

    chain: int
    index: int
    previous: int
    plaintext: bytes
    payload: Payload


@dataclass
class Party:
    """One end: the real session, its shadow, and the model of it."""

    session: Session
    shadow: Session
    sending_chain: int
    """0 before the first."""
    receiving_chain: int
    """0 before the first."""
    may_turn: bool
    """Whether the other end's newest key has not been turned against."""
    peer_may_turn: bool
    """Whether the other end has yet to turn against the own newest key."""
    sent: int = 0
    previous: int = 0
    received: int = 0
    missing: list[tuple[int, int]] = field(default_factory=list)
    """Chain and index of what may still come late, oldest first."""

    def send(self, every: int) -> tuple[int, int, int]:
        """Return chain, index and previous length that the next message must have."""
        if self.may_turn and (self.sending_chain == 0 or self.sent >= every):
            self.previous, self.sent = self.sent, 0
            self.sending_chain += 1
            self.may_turn, self.peer_may_turn = False, True
        self.sent += 1
        return self.sending_chain, self.sent - 1, self.previous

    def receive(self, message: Message) -> type[ConnectError] | None:
        """Return how a delivery must be refused, or None and take note of it."""
        place = (message.chain, message.index)
        if message.chain == self.receiving_chain and message.index >= self.received:
            if message.index - self.received > MAX_SKIP:
                return SkipLimitExceededError
            self._skip(message.index)
            self.received = message.index + 1
            return None
        if message.chain == self.receiving_chain or message.chain in {c for c, _ in self.missing}:
            if place not in self.missing:
                return MessageReplayedError
            self.missing.remove(place)
            return None
        return self._receive_unknown_key(message)

    def _receive_unknown_key(self, message: Message) -> type[ConnectError] | None:
        """The same, for a key that this end has not seen, or has forgotten."""
        if not self.peer_may_turn:
            return AuthenticationFailedError
        left_behind = message.previous - self.received if self.receiving_chain else 0
        if left_behind > MAX_SKIP or message.index > MAX_SKIP:
            return SkipLimitExceededError
        if message.chain != self.receiving_chain + 1:
            return AuthenticationFailedError
        if self.receiving_chain:
            self._skip(message.previous)
        self.receiving_chain += 1
        self.received = 0
        self.may_turn, self.peer_may_turn = True, False
        oldest = self.receiving_chain - MAX_SKIPPED_CHAINS + 1
        self.missing = [place for place in self.missing if place[0] >= oldest]
        self._skip(message.index)
        self.received = message.index + 1
        return None

    def _skip(self, index: int) -> None:
        missing = [(self.receiving_chain, number) for number in range(self.received, index)]
        self.missing = (self.missing + missing)[-MAX_SKIPPED_KEYS:]


class Conversation(RuleBasedStateMachine):
    """See the module."""

    every: ClassVar[int]
    _ends: ClassVar[dict[int, tuple[Session, Session]]] = {}

    @initialize(seed=st.integers(0, 3))
    def establish(self, seed: int) -> None:
        if seed not in self._ends:
            # Deliveries at the service's end only; at neither do they change what is accepted.
            limits = ChannelLimits(self.every, MAX_SKIP, MAX_SKIPPED_KEYS, redelivery_window=3)
            ends = make_ends(seed, limits)
            self._ends[seed] = (ends.peer, ends.service)
        peer, service = copy.deepcopy(self._ends[seed])
        self.random = seeded(seed + 100)
        self.parties = (
            Party(peer, copy.deepcopy(peer), 1, 0, may_turn=False, peer_may_turn=True),
            Party(service, copy.deepcopy(service), 0, 1, may_turn=True, peer_may_turn=False),
        )
        # To each party: what is on its way, and what it has been given.
        self.in_flight: tuple[list[Message], list[Message]] = ([], [])
        self.delivered: tuple[list[Message], list[Message]] = ([], [])
        self.said = 0

    @rule(end=st.integers(0, 1), count=st.integers(1, 7))
    def send(self, end: int, count: int) -> None:
        party = self.parties[end]
        for _ in range(count):
            plaintext = b"%d" % self.said
            self.said += 1
            payload, change = party.session.encrypt(
                plaintext, now=NOW, random=self.random, request_id=self.said
            )
            chain, index, previous = party.send(self.every)
            assert payload.header.message_number == index
            assert payload.header.previous_chain_length == previous
            party.shadow.apply(decode_change(encode_change(change)))
            self.in_flight[1 - end].append(Message(chain, index, previous, plaintext, payload))

    @rule(end=st.integers(0, 1), choice=st.integers(0, 9), count=st.integers(1, 5))
    def deliver(self, end: int, choice: int, count: int) -> None:
        for _ in range(count):
            if self.in_flight[end]:
                message = self.in_flight[end].pop(choice % len(self.in_flight[end]))
                self.delivered[end].append(message)
                self._receive(end, message)

    @rule(end=st.integers(0, 1), choice=st.integers(0, 99))
    def duplicate(self, end: int, choice: int) -> None:
        if self.in_flight[end]:
            self._receive(end, self.in_flight[end][choice % len(self.in_flight[end])])

    @rule(end=st.integers(0, 1), choice=st.integers(0, 99))
    def replay(self, end: int, choice: int) -> None:
        if self.delivered[end]:
            self._receive(end, self.delivered[end][choice % len(self.delivered[end])])

    @rule(end=st.integers(0, 1), choice=st.integers(0, 9))
    def lose(self, end: int, choice: int) -> None:
        if self.in_flight[end]:
            self.in_flight[end].pop(choice % len(self.in_flight[end]))

    @rule(end=st.integers(0, 1), choice=st.integers(0, 99))
    def reflect(self, end: int, choice: int) -> None:
        """Give an end one of its own messages."""
        if self.in_flight[1 - end]:
            message = self.in_flight[1 - end][choice % len(self.in_flight[1 - end])]
            party = self.parties[end]
            with pytest.raises((AuthenticationFailedError, SkipLimitExceededError)):
                party.session.decrypt(message.payload, now=NOW)

    @rule(end=st.integers(0, 1))
    def recover(self, end: int) -> None:
        """Go on with what was stored, as after a crash."""
        party = self.parties[end]
        party.session = Session.decode(party.session.encode())

    @rule(end=st.integers(0, 1))
    def snapshot(self, end: int) -> None:
        party = self.parties[end]
        party.shadow = Session.decode(
            party.session.encode_static() + party.session.encode_ratchet()
        )

    @precondition(lambda self: not any(self.in_flight))
    @rule()
    def talk(self) -> None:
        """With nothing in flight, both ends understand each other, unless too much was lost."""
        for end in (0, 1):
            self.send(end, 1)
            self.deliver(1 - end, 0, 1)

    def _receive(self, end: int, message: Message) -> None:
        party = self.parties[end]
        expected = party.receive(message)
        if expected is None:
            plaintext, change = party.session.decrypt(message.payload, now=NOW)
            assert plaintext == message.plaintext
            party.shadow.apply(decode_change(encode_change(change)))
        else:
            with pytest.raises(expected):
                party.session.decrypt(message.payload, now=NOW)

    @invariant()
    def shadows_and_models_agree_with_the_sessions(self) -> None:
        # Hypothesis checks invariants before ``establish`` too.
        for party in getattr(self, "parties", ()):
            assert party.shadow == party.session
            assert party.shadow.encode() == party.session.encode()
            kept = [
                (chain.number, index)
                for chain in party.session.ratchet.skipped
                for index in chain.keys
            ]
            assert kept == party.missing


class _Classic(Conversation):
    every = 1
    _ends: ClassVar[dict[int, tuple[Session, Session]]] = {}


class _EverySecond(Conversation):
    every = 2
    _ends: ClassVar[dict[int, tuple[Session, Session]]] = {}


class _Default(Conversation):
    every = 10
    _ends: ClassVar[dict[int, tuple[Session, Session]]] = {}


_SETTINGS = settings(max_examples=80, stateful_step_count=50)

TestClassic = _Classic.TestCase
TestClassic.settings = _SETTINGS
TestEverySecond = _EverySecond.TestCase
TestEverySecond.settings = _SETTINGS
TestDefault = _Default.TestCase
TestDefault.settings = _SETTINGS
