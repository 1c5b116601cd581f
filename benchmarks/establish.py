"""``python -m benchmarks.establish``: what an Establish costs, beside the cryptography in it.

The limit is the sum of what one Establish can't do without at the service's end: 12 X25519 key
pairs (an exchange identity, a signed prekey, 10 one-time prekeys), 5 exchanges (4 of X3DH, the
first step of the ratchet), an Ed25519 verification and a signature, 2 times HKDF, by the same
functions. It is taken in turn with the Establishes, in the same process.

Everything of the service but gRPC is in the Establish, the durable commit included. *Pairs at hand*
is what it costs when the key pairs have been made ahead (``keys.pairs``): that is what a
caller waits for on an idle service; a saturated one has no time to make any.
"""

import gc
import os
import time
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.in_process import in_process
from benchmarks.rounds import require, rounds_from_arguments, spread
from connect_actor.actors.commands import Command, Establish
from connect_actor.protocol import primitives
from connect_actor.protocol.handshake import Initiation, connect_id_of
from connect_actor.protocol.keys import DEFAULT_ONE_TIME_PREKEYS, Identity
from connect_actor.protocol.primitives import KeyPair, KeyPairs
from connect_actor.v1 import connect_pb2 as wire

CHANNELS = 500
_AT_ONCE = 64
_PAIRS = 2 + DEFAULT_ONE_TIME_PREKEYS
_EXCHANGES = 5
_DERIVATIONS = 2
# Of the content that a bundle's signature covers.
_SIGNED_BYTES = 700
_MICROSECONDS = 1e6


def _requests() -> list[tuple[int, Command]]:
    begun = [Initiation.begin(Identity.generate(os.urandom), os.urandom) for _ in range(CHANNELS)]
    requests = [
        wire.EstablishRequest.FromString(initiation.request.SerializeToString())
        for initiation in begun
    ]
    return [(connect_id_of(request), Establish(request)) for request in requests]


def _establish(key_pairs: KeyPairs | None) -> float:
    """Return the CPU of an Establish, in µs."""
    requests = _requests()
    with in_process(key_pairs=key_pairs) as service:
        gc.collect()
        begun = time.process_time()
        for first in range(0, CHANNELS, _AT_ONCE):
            answers = service.ask_all(requests[first : first + _AT_ONCE])
            require(all(isinstance(answer, bytes) for answer in answers))
        seconds = time.process_time() - begun
        require(service.environment.statistics.established == CHANNELS)
    return seconds / CHANNELS * _MICROSECONDS


def _ready_pairs() -> KeyPairs:
    pairs = [KeyPair.generate(os.urandom) for _ in range(_PAIRS * CHANNELS)]
    for pair in pairs:
        pair.prepare()
    return pairs.pop


def _limit() -> float:
    """Return the CPU of the cryptography of an Establish, in µs."""
    message, peer = os.urandom(_SIGNED_BYTES), KeyPair.generate(os.urandom).public_key
    signing_key = primitives.SigningKey(os.urandom(primitives.KEY_SIZE))
    signature = signing_key.sign(message)
    begun = time.process_time()
    for _ in range(CHANNELS):
        for _ in range(_PAIRS):
            pair = KeyPair.generate(os.urandom)
            pair.prepare()
        for _ in range(_EXCHANGES):
            secret = pair.exchange(peer)
        for _ in range(_DERIVATIONS):
            primitives.step_root(secret, secret)
        signing_key.sign(message)
        require(primitives.verify(signing_key.public_key, signature, message))
    return (time.process_time() - begun) / CHANNELS * _MICROSECONDS


def _row(table: Table, name: str, costs: Sequence[float], limits: Sequence[float]) -> None:
    rates = [_MICROSECONDS / cost for cost in costs]
    shares = [limit / cost for limit, cost in zip(limits, costs, strict=True)]
    table.add_row(name, spread(costs, "µs"), spread(rates, "/s"), spread(shares, "x"))


def main() -> None:
    """Run the rounds and print the table."""
    count = rounds_from_arguments(__doc__)
    limits, costs, at_hand = [], [], []
    for _ in range(count):
        limits.append(_limit())
        costs.append(_establish(None))
        at_hand.append(_establish(_ready_pairs()))
    table = Table(title=f"{CHANNELS:,} channels, {count} rounds", box=box.SIMPLE_HEAD)
    table.add_column("one Establish")
    table.add_column("CPU", justify="right")
    table.add_column("a second of CPU", justify="right")
    table.add_column("of the limit", justify="right")
    _row(table, "the limit", limits, limits)
    _row(table, "pairs made on demand", costs, limits)
    _row(table, "pairs at hand", at_hand, limits)
    Console().print(table)


if __name__ == "__main__":
    main()
