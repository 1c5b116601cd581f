"""Channels for benchmarks: both ends in memory, in whatever state a benchmark wants."""

import os
import time
from dataclasses import dataclass

from connect_actor.protocol.handshake import ChannelLimits, Initiation, respond
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.session import Session
from connect_actor.v1 import connect_pb2 as wire

__all__ = ["Ends", "make_ends", "now"]


def now() -> int:
    """Return microseconds since the epoch."""
    return time.time_ns() // 1_000


@dataclass(slots=True)
class Ends:
    """Both ends of one channel."""

    peer: Session
    service: Session

    def seal(self, plaintext: bytes) -> Payload:
        """Encrypt as the peer."""
        return self.peer.encrypt(plaintext, now=now(), random=os.urandom)[0]

    def reply(self, plaintext: bytes) -> Payload:
        """Encrypt as the service."""
        return self.service.encrypt(plaintext, now=now(), random=os.urandom)[0]


def make_ends(
    *, dh_ratchet_every: int = 10, one_time_prekeys: int = 10, skipped_keys: int = 0
) -> Ends:
    """Return a channel on which each end has heard of the other once.

    Args:
        dh_ratchet_every: messages until a due turn.
        one_time_prekeys: in the peer's bundle.
        skipped_keys: how many message keys the service's end holds for messages that never come.
    """
    initiation = Initiation.begin(Identity.generate(os.urandom), os.urandom, one_time_prekeys)
    service = respond(
        initiation.request,
        identity=Identity.generate(os.urandom),
        limits=ChannelLimits(dh_ratchet_every=dh_ratchet_every),
        now=now(),
        random=os.urandom,
    )
    response = wire.EstablishResponse.FromString(service.handshake.response)
    ends = Ends(initiation.complete(response), service)
    for _ in range(skipped_keys):
        ends.seal(b"")
    ends.service.decrypt(ends.seal(b""), now=now())
    ends.peer.decrypt(ends.reply(b""), now=now())
    return ends
