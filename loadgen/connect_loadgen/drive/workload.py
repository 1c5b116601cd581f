"""What is asked of the service: an endless sequence of operations, the same for the same seed.

The sequence says which operation comes next, on which channel, with which payload, and which of
the peers' messages are held back. It knows no clock and no connection, so pacing can't change it.
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from connect_loadgen.settings.draws import Draws
from connect_loadgen.settings.load import LoadSettings
from connect_loadgen.settings.types import MAX_PAYLOAD_BYTES

__all__ = ["Kind", "PlannedOperation", "Workload"]

# Payloads are slices of one pseudo-random pool: making them costs a copy, and two of them are as
# good as never equal, so an answer that belongs to another message can't pass for the right one.
_POOL_SPREAD = 1 << 20

# Operations are drawn in blocks, which is several times cheaper than one by one.
_BLOCK = 1024


class Kind(Enum):
    """What an operation does, seen from the peer."""

    ENCRYPT = "encrypt"
    """The service encrypts, the peer opens and compares."""
    DECRYPT = "decrypt"
    """The peer seals, the service decrypts, the generator compares."""
    ROUND_TRIP = "round_trip"
    """The service encrypts, the peer opens, seals the same bytes anew, the service decrypts."""


class PlannedOperation(NamedTuple):
    """One element of the sequence."""

    kind: Kind
    channel: int
    """Index of the channel, from 0."""
    payload: bytes
    overtaken_by: int
    """How many later messages of this channel's peer are sent before this one; 0: sent in order."""


@dataclass(frozen=True, slots=True)
class Workload:
    """The shape of a sequence of operations."""

    channels: int
    channel_skew: float
    """Exponent of Zipf's law: the n-th channel is chosen as often as ``n ** -skew`` says."""
    payload_bytes: Draws
    weights: tuple[tuple[Kind, float], ...]
    out_of_order: float
    """Share of ``DECRYPT`` operations that are held back, 0 to 1."""
    hold_back: int
    """A held message is overtaken by 1 to so many later ones, each number as likely."""
    seed: int

    @classmethod
    def of(cls, settings: LoadSettings) -> "Workload":
        """Return the workload that the settings describe."""
        return cls(
            channels=settings.channels,
            channel_skew=settings.channel_skew,
            payload_bytes=Draws.parse(settings.payload_bytes, MAX_PAYLOAD_BYTES),
            weights=(
                (Kind.ENCRYPT, settings.encrypt_weight),
                (Kind.DECRYPT, settings.decrypt_weight),
                (Kind.ROUND_TRIP, settings.round_trip_weight),
            ),
            out_of_order=settings.out_of_order,
            hold_back=settings.hold_back,
            seed=settings.seed,
        )

    def operations(self) -> Iterator[PlannedOperation]:
        """Return the sequence, from its beginning."""
        draw = random.Random(self.seed)  # noqa: S311 - a workload to be repeated, not a secret
        pool = draw.randbytes(_POOL_SPREAD + int(self.payload_bytes.highest))
        kinds = [kind for kind, _ in self.weights]
        cumulative = list(itertools.accumulate(weight for _, weight in self.weights))
        channels = range(self.channels)
        popularity = list(itertools.accumulate((n + 1) ** -self.channel_skew for n in channels))
        uniform = draw.random
        while True:
            for kind, channel, size in zip(
                draw.choices(kinds, cum_weights=cumulative, k=_BLOCK),
                draw.choices(channels, cum_weights=popularity, k=_BLOCK),
                self.payload_bytes.take(draw, _BLOCK),
                strict=True,
            ):
                start = int(uniform() * _POOL_SPREAD)
                held = kind is Kind.DECRYPT and uniform() < self.out_of_order
                yield PlannedOperation(
                    kind,
                    channel,
                    pool[start : start + int(size)],
                    draw.randint(1, self.hold_back) if held else 0,
                )
