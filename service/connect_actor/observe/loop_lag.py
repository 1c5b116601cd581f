"""The event loop probe: how late the loop wakes, sampled. What is late for it is late for all."""

import asyncio
from time import perf_counter

from connect_actor.observe.counting import Distribution

__all__ = ["SAMPLE_SECONDS", "LoopLag"]

# Ten samples a second cost nothing that could be measured, and find what lasts.
SAMPLE_SECONDS = 0.1


class LoopLag:
    """Asks for a wake-up every so often, and counts by how much each comes late, in seconds.

    Timers have a resolution (1 ms under uvloop): what is less late than that means on time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Prepare to sample ``loop``."""
        self.lag = Distribution()
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def start(self) -> None:
        """Begin to sample, on the loop's thread."""
        self._due = perf_counter() + SAMPLE_SECONDS
        self._timer = self._loop.call_later(SAMPLE_SECONDS, self._wake)

    def stop(self) -> None:
        """Take no more samples."""
        if self._timer is not None:
            self._timer.cancel()

    def _wake(self) -> None:
        self.lag.add(max(perf_counter() - self._due, 0.0))
        self.start()
