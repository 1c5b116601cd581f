"""Gathering: whether a commit of few writes waits for more, so that they share it.

A commit costs the same for one write as for ten: a sync, and waking the journal's thread and the
loop. Calls that come one by one are worked off one by one, so while the event loop is busy, what it
has in hand may be calls that bring more. Once it has nothing left to do, waiting gains nobody
anything.
"""

from collections.abc import Callable
from time import perf_counter

__all__ = ["Gathering"]

# A round that has so many is worth its commit.
_MANY_WRITES = 32
# A pass of the loop that took fewer seconds had nothing to do; after so many of them in a row
# nothing is about to come. The journal's thread rests meanwhile, so that it holds up no pass.
_IDLE_PASS = 30e-6
_IDLE_PASSES = 3


class Gathering:
    """One wait after the other; asked once in each pass of the loop."""

    def __init__(self, at_most: float = 0.0, clock: Callable[[], float] = perf_counter) -> None:
        """Wait at most so many seconds, by this clock."""
        self._at_most = at_most
        self._clock = clock
        self._until = self._last_pass = 0.0
        self._idle_passes = 0

    def begin(self) -> None:
        """Begin a wait."""
        self._last_pass = self._clock()
        self._until = self._last_pass + self._at_most
        self._idle_passes = 0

    def goes_on(self, writes: int) -> bool:
        """Tell whether to wait for another pass, with so many writes at hand."""
        now = self._clock()
        idle = now - self._last_pass < _IDLE_PASS
        self._idle_passes = self._idle_passes + 1 if idle else 0
        self._last_pass = now
        return 0 < writes < _MANY_WRITES and self._idle_passes < _IDLE_PASSES and now < self._until
