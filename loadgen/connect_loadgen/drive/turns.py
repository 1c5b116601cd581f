"""Loops in turn on the same channels, such as an equal rate for all and then the limit of each.

Which loop runs follows from the wall clock alone, so the generators of several services change
over together without knowing each other.
"""

import time
from collections.abc import Awaitable, Callable, Sequence

from connect_loadgen.drive.pacing import SECOND, Line

__all__ = ["take_turns"]


async def take_turns(
    line: Line,
    seconds: float,
    loops: Sequence[Callable[[float], Awaitable[None]]],
    wall_clock: Callable[[], float] = time.time,
) -> None:
    """Run loops in turn until the phase ends.

    Args:
        line: the way to the service.
        seconds: how long a turn lasts; turns begin at multiples of it since the epoch.
        loops: each is given the seconds that are left of its turn, and ends with the turn.
        wall_clock: returns seconds since the epoch.

    Raises:
        TransportError: the transport has failed.
    """
    while (now := line.now()) < line.recorder.ends_at:
        turn, passed = divmod(wall_clock(), seconds)
        line.turn_ends_at = now + int((seconds - passed) * SECOND)
        await loops[int(turn) % len(loops)](seconds - passed)
