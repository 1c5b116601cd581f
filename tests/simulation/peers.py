"""The other ends of the channels: the real protocol, and some malice."""

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import lru_cache

from connect_actor.protocol.handshake import Initiation, connect_id_of
from connect_actor.protocol.keys import Identity
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.primitives import Random
from connect_actor.protocol.session import Session
from connect_actor.v1 import connect_pb2 as wire
from tests.simulation.storage import Spot
from tests.support.channels import NOW, seeded

__all__ = ["MAX_SKIP", "Peer", "spot_of"]

# More than one schedule's messages, so that a channel never dies of what its peer has missed.
MAX_SKIP = 1_000
_FAR_AHEAD = 1_000_000


@lru_cache(maxsize=64)
def _initiation(number: int) -> tuple[Initiation, int]:
    """Making keys is dear, and these need not differ between schedules."""
    source = seeded(number)
    initiation = Initiation.begin(Identity.generate(source), source, one_time_prekeys=1)
    return initiation, connect_id_of(initiation.request)


def spot_of(payload: Payload) -> Spot:
    """Return which key of which chain a message was encrypted with."""
    return Spot(payload.header.ratchet_key, payload.header.message_number)


@dataclass
class Peer:
    """One end of one channel, from before its handshake."""

    number: int
    random: Random
    session: Session | None = None
    response: bytes = b""
    unsent: list[Payload] = field(default_factory=list)
    """Sealed, and on their way: they may come in any order, or never."""
    sent: list[Payload] = field(default_factory=list)
    unopened: list[tuple[Payload, bytes]] = field(default_factory=list)
    """What the service sent, with what it must say."""
    plaintexts: dict[Spot, bytes] = field(default_factory=dict)
    decrypted: Counter[Spot] = field(default_factory=Counter)
    close_asked: bool = False

    def __post_init__(self) -> None:
        initiation, self.connect_id = _initiation(self.number)
        self._initiation = replace(initiation)
        self.request: wire.EstablishRequest = initiation.request

    def complete(self, response: bytes) -> None:
        """Make the session, once."""
        self.session = self._initiation.complete(
            wire.EstablishResponse.FromString(response),
            max_skip=MAX_SKIP,
            max_skipped_keys=MAX_SKIP,
        )
        self.response = response

    def seal(self) -> None:
        """Encrypt one more message."""
        if self.session is None:
            raise ValueError("the handshake is not done")
        plaintext = b"up %d" % len(self.plaintexts)
        payload, _ = self.session.encrypt(plaintext, now=NOW, random=self.random)
        self.plaintexts[spot_of(payload)] = plaintext
        self.unsent.append(payload)

    def take(self, position: int) -> Payload:
        """Send one of those on their way."""
        payload = self.unsent.pop(position % len(self.unsent))
        self.sent.append(payload)
        return payload

    def forge(self, position: int, how: int) -> Payload:
        """Return a message that was never sent, made of one that was."""
        genuine = (self.sent + self.unsent)[position % len(self.sent + self.unsent)]
        header = genuine.header
        match how % 4:
            case 0:
                flipped = bytes([genuine.ciphertext[0] ^ 1]) + genuine.ciphertext[1:]
                return genuine._replace(ciphertext=flipped)
            case 1:
                return genuine._replace(header=header._replace(message_number=_FAR_AHEAD))
            case 2:
                return genuine._replace(header=header._replace(ratchet_key=self.random(32)))
            case _:
                next_one = header._replace(message_number=header.message_number + 1)
                return genuine._replace(header=next_one)

    def open(self, position: int) -> str | None:
        """Decrypt one message that came; return what is wrong with it."""
        if self.session is None:
            return "a message without a channel"
        payload, expected = self.unopened.pop(position % len(self.unopened))
        plaintext, _ = self.session.decrypt(payload, now=NOW)
        return None if plaintext == expected else "a message says what nobody wrote"
