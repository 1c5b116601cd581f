"""Channels made in memory, from seeded randomness, for tests."""

import random
from dataclasses import dataclass

from protos.connect_actor.v1 import connect_pb2 as wire
from service.protocol.handshake import ChannelLimits, Initiation, respond
from service.protocol.keys import Identity
from service.protocol.primitives import Random
from service.protocol.session import Session

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


def make_ends(seed: int = 1, limits: ChannelLimits | None = None) -> Ends:
    """Run a handshake."""
    source = seeded(seed)
    initiation = Initiation.begin(Identity.generate(source), source)
    service = respond(
        initiation.request,
        identity=Identity.generate(source),
        limits=limits or ChannelLimits(),
        now=NOW,
        random=source,
    )
    response = wire.EstablishResponse.FromString(service.handshake.response)
    return Ends(initiation.complete(response), service, source)


def establish_request(seed: int) -> tuple[Initiation, wire.EstablishRequest]:
    """Begin a handshake as a peer."""
    source = seeded(seed)
    initiation = Initiation.begin(Identity.generate(source), source)
    return initiation, initiation.request
