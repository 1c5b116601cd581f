"""The service's clock: wall time for what can be undone, settled time for what can't.

The wall clock may be wrong, and jump when it is set. What only refuses or dates something goes by
it, and is right again when it is. What can't be undone (an expired channel is erased, its
deliveries are forgotten) goes by *settled* time, which

- begins with the newest time that the journal knows, or in a new journal with the wall clock's;
- goes on with the machine's monotonic clock, and is never ahead of the wall clock;
- becomes the wall clock's once the two have agreed for ``CONFIRMED_AFTER`` seconds.

So a clock that is ahead, after a jump or from the start, ends nothing for as long as that. A
service that was off for days ends its channels so much later. The times that the journal knows are
settled ones: those of snapshots. A wrong clock does not get there, so a restart confirms nothing.
"""

import logging
import time
from collections.abc import Callable

__all__ = ["CONFIRMED_AFTER", "TOLERATED", "ServiceClock"]

CONFIRMED_AFTER = 3_600.0
"""Seconds for which the wall clock has to agree with the monotonic one before it is believed."""
TOLERATED = 60.0
"""Seconds that the two may drift apart in that time: a clock that is slewed makes 1.8."""

_MICROS = 1_000_000

_log = logging.getLogger(__name__)


def _wall() -> int:
    return time.time_ns() // 1_000


def _boot_time() -> int:
    # Unlike CLOCK_MONOTONIC it goes on while the machine is suspended.
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000


class ServiceClock:
    """Tells both times, in microseconds since the epoch. For one thread, but for the figures."""

    def __init__(
        self,
        known: int,
        *,
        wall: Callable[[], int] = _wall,
        monotonic: Callable[[], int] = _boot_time,
    ) -> None:
        """Begin with the newest time that the journal knows; 0 if it knows none."""
        self.wall = wall
        self._monotonic = monotonic
        now, ticks = wall(), monotonic()
        self.jumps = 0
        """Times that the wall clock has jumped."""
        self.unsettled = 0.0
        """Seconds by which settled time was behind the wall clock at the last look."""
        self._ahead = now - ticks
        """Wall clock less monotonic clock, as they agree."""
        self._agree_since = ticks
        known = known or now
        self._settled = min(known, now) - ticks
        """Settled time less monotonic clock."""
        if now - known > CONFIRMED_AFTER * _MICROS:
            _log.info(
                "the newest time in the journal is %.0f s ago: if the clock is right, expired"
                " channels are ended from %.0f s after the start on",
                (now - known) / _MICROS,
                CONFIRMED_AFTER,
            )
        elif known - now > TOLERATED * _MICROS:
            self._jumped(now - known)

    def settled(self) -> int:
        """Return settled time. To be asked every few seconds, so that no jump is missed."""
        now, ticks = self.wall(), self._monotonic()
        drift = now - ticks - self._ahead
        if abs(drift) > TOLERATED * _MICROS:
            self._jumped(drift)
            self._ahead, self._agree_since = now - ticks, ticks
        elif ticks - self._agree_since >= CONFIRMED_AFTER * _MICROS:
            self._ahead = self._settled = now - ticks
            self._agree_since = ticks
        settled = min(now, ticks + self._settled)
        self.unsettled = (now - settled) / _MICROS
        return settled

    def _jumped(self, drift: int) -> None:
        self.jumps += 1
        _log.warning(
            "the clock has jumped by %.0f s: expired channels are not ended until it has been"
            " steady for %.0f s",
            drift / _MICROS,
            CONFIRMED_AFTER,
        )
