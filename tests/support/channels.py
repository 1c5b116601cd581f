"""Channels made in memory, from seeded randomness, for tests."""

import random
from dataclasses import dataclass

from connect_actor.protocol.handshake import ChannelLimits, Initiation, respond
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.primitives import Random
from connect_actor.protocol.session import Session
from connect_actor.v1 import connect_pb2 as wire

NOW = 1_700_000_000_000_000


def seeded(seed: int) -> Random:
    """Return a source of bytes that is the same for the same seed."""
    return random.Random(seed).randbytes


@dataclass
class Ends:
    """Both ends of a channel."""

    peer: Session
    service: Session
    random: Random

    def up(self, plaintext: bytes = b"up") -> Payload:
        """Encrypt a message of the peer."""
        return self.peer.encrypt(plaintext, now=NOW, random=self.random)[0]

    def down(self, plaintext: bytes = b"down") -> Payload:
        """Encrypt a message of the service."""
        return self.service.encrypt(plaintext, now=NOW, random=self.random)[0]

    def at_service(self, payload: Payload) -> bytes:
        """Decrypt a message of the peer."""
        return self.service.decrypt(payload, now=NOW)[0]

    def at_peer(self, payload: Payload) -> bytes:
        """Decrypt a message of the service."""
        return self.peer.decrypt(payload, now=NOW)[0]

    def round_trip(self) -> None:
        """Carry a message each way, so that each end has a newer key of the other."""
        assert self.at_service(self.up(b"there")) == b"there"
        assert self.at_peer(self.down(b"and back")) == b"and back"


def begin_and_answer(source: Random, limits: ChannelLimits) -> tuple[Initiation, Session]:
    """Run a handshake up to the service's end."""
    initiation = Initiation.begin(Identity.generate(source), source)
    service = respond(
        initiation.request,
        identity=Identity.generate(source),
        limits=limits,
        now=NOW,
        random=source,
    )
    return initiation, service


def response_of(session: Session) -> wire.EstablishResponse:
    """Return the response that a session's handshake ended with."""
    return wire.EstablishResponse.FromString(session.handshake.response)


def make_ends(seed: int = 1, limits: ChannelLimits | None = None) -> Ends:
    """Run a handshake; the limits hold at both ends."""
    limits = limits or ChannelLimits()
    source = seeded(seed)
    initiation, service = begin_and_answer(source, limits)
    peer = initiation.complete(
        response_of(service),
        max_skip=limits.max_skip,
        max_skipped_keys=limits.max_skipped_keys,
    )
    return Ends(peer, service, source)


def establish_request(seed: int) -> tuple[Initiation, wire.EstablishRequest]:
    """Begin a handshake as a peer."""
    source = seeded(seed)
    initiation = Initiation.begin(Identity.generate(source), source)
    return initiation, initiation.request
