"""Storms as they are written: ``restore@5,reconnect@8.5``, kinds and seconds into the load."""

from dataclasses import dataclass
from typing import Literal, cast, get_args

__all__ = ["Storm", "parse_storms"]

StormKind = Literal["restore", "reconnect"]


@dataclass(frozen=True, slots=True)
class Storm:
    """A moment at which the peers of all channels come back."""

    kind: StormKind
    at: float
    """Seconds into the measured time."""


def parse_storms(text: str) -> tuple[Storm, ...]:
    """Read storms as they are written, and return them in the order of time; none in empty text.

    Raises:
        ValueError: they are not written so.
    """
    storms = []
    for part in text.split(",") if text else []:
        kind, _, at = part.strip().partition("@")
        try:
            seconds = float(at)
        except ValueError:
            seconds = -1.0
        if kind not in get_args(StormKind) or not 0 <= seconds < float("inf"):
            raise ValueError("expected storms as in restore@5,reconnect@8.5 (seconds)")
        storms.append(Storm(cast("StormKind", kind), seconds))
    return tuple(sorted(storms, key=lambda storm: storm.at))
