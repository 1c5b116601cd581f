"""Key pairs made ahead, while the event loop has nothing better to do.

An Establish takes a dozen fresh key pairs, a turn of the ratchet one, and each costs a scalar
multiplication. None of that depends on the request, so it can be done before it comes: no message
waits for it then. It is not less work; when the loop is busy nothing is made ahead, and who finds
no pair makes one.

Private keys are in memory only, and each pair is given out once. So a stock must never be there
twice: make it in the process that uses it, not before a fork.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

from connect_actor.protocol.primitives import KeyPair, Random

__all__ = ["AT_A_TIME", "KEPT", "PreparedKeyPairs"]

KEPT = 1_024
"""Enough for 80 channels or 1,000 turns at once; some 250 bytes each."""
AT_A_TIME = 16
"""0.3 ms of work, for which a message may have to wait."""
_PAUSE = 0.01
# The loop is idle enough if its thread has worked for less than this share of the time.
_BUSY_SHARE = 0.5


class PreparedKeyPairs:
    """A stock of fresh key pairs; callable as ``KeyPairs``, on the event loop's thread."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        random: Random,
        *,
        working_time: Callable[[], float] = time.thread_time,
    ) -> None:
        """Begin to make pairs.

        Args:
            loop: makes them when it has time.
            random: source of the private halves.
            working_time: seconds of CPU that the loop's thread has spent.
        """
        self._loop = loop
        self._random = random
        self._working_time = working_time
        self._pairs: deque[KeyPair] = deque()
        self._looked_at = self._worked = 0.0
        self._timer: asyncio.TimerHandle | None = None
        loop.call_soon(self._watch)

    def __len__(self) -> int:
        """Return how many pairs there are."""
        return len(self._pairs)

    def __call__(self) -> KeyPair:
        """Return a pair that nobody has had: one made ahead, or else a new one."""
        if self._timer is None:
            self._watch()
        return self._pairs.popleft() if self._pairs else KeyPair.generate(self._random)

    def stop(self) -> None:
        """Make none ahead any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self) -> None:
        self._looked_at, self._worked = self._loop.time(), self._working_time()
        self._timer = self._loop.call_later(_PAUSE, self._look)

    def _look(self) -> None:
        passed = self._loop.time() - self._looked_at
        if self._working_time() - self._worked < passed * _BUSY_SHARE:
            for _ in range(min(AT_A_TIME, KEPT - len(self._pairs))):
                pair = KeyPair.generate(self._random)
                pair.prepare()
                self._pairs.append(pair)
        self._timer = None
        if len(self._pairs) < KEPT:
            self._watch()
