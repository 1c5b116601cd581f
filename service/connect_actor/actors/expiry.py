"""Ends expired channels that nobody asks for again: without this they would stay for ever.

An actor that passivates ends its channel if that has expired (``actors.phases``), but a
channel that is left alone has no actor. So the journal is walked over from time to time, and
channels at rest that must have expired are loaded and passivated, by actors as all others.

Which ones is told by the time of their newest snapshot, which is there without loading or opening
anything: a channel has been established by then, so it has expired a lifetime later. That only
says what is worth loading. Whether the channel ends is decided by what is sealed, in its actor.

Time is settled time (``clock``), since an end can't be undone.

It takes nobody's turn: it is slow, loads one channel at a time, and none while others are loading,
while many writes wait, or where there is no room for another actor. What it could not do, the next
pass does.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from connect_actor.actors.environment import ConnectEnvironment
from connect_actor.actors.phases.running import EXPIRED_IS_KEPT
from connect_actor.actors.router import Router
from connect_actor.persistence.contract import CorruptRecordError, Journal, JournalError

__all__ = ["ending_expired_channels"]

_log = logging.getLogger(__name__)

# Seconds. A start has better things to do at first; a channel has been kept for an hour by then.
_BEFORE_THE_FIRST_PASS = 60.0
_BETWEEN_PASSES = 3_600.0
_BETWEEN_CLOCK_LOOKS = 10.0
# Looking at this many takes the journal a millisecond or two: 100,000 channels take 13 minutes.
_LOOKS = 128
_BETWEEN_LOOKS = 1.0
# 20 a second are 1.7 million a day, at one or two milliseconds of CPU time each.
_BETWEEN_LOADS = 0.05
# Writes that wait for their commit while the service is at work, but not hard.
_FEW_WRITES = 64


@asynccontextmanager
async def ending_expired_channels(
    router: Router, environment: ConnectEnvironment
) -> AsyncIterator[None]:
    """End what has expired, meanwhile; leave before the committer is closed."""
    sweep = asyncio.create_task(_Sweep(router, environment).run())
    watch = asyncio.create_task(_watch_clock(environment))
    try:
        yield
    finally:
        sweep.cancel()
        watch.cancel()


async def _watch_clock(environment: ConnectEnvironment) -> None:
    """Look at the clock often enough that no jump is missed."""
    while True:
        environment.settled()
        await asyncio.sleep(_BETWEEN_CLOCK_LOOKS)


class _Sweep:
    """Pass after pass over the journal."""

    def __init__(self, router: Router, environment: ConnectEnvironment) -> None:
        self._router = router
        self._environment = environment
        self._kept = int(environment.limits.lifetime * 1_000_000) + EXPIRED_IS_KEPT

    async def run(self) -> None:
        pause = _BEFORE_THE_FIRST_PASS
        while True:
            await asyncio.sleep(pause)
            pause = _BETWEEN_PASSES
            try:
                await self._pass()
            except JournalError as error:
                _log.warning("looking for expired channels stopped half-way: %s", error)

    async def _pass(self) -> None:
        after: int | None = -1
        while after is not None:
            await self._calm(_BETWEEN_LOOKS)
            after, expired = await self._look(after)
            for channel, owner in expired:
                await self._calm(_BETWEEN_LOADS)
                self._router.call_up(channel, owner)

    async def _calm(self, pause: float) -> None:
        """Wait this long, and on until nobody else is in need of the journal."""
        committer, permits = self._environment.committer, self._environment.permits
        while True:
            await asyncio.sleep(pause)
            if committer.waiting <= _FEW_WRITES and not permits.in_use:
                return

    async def _look(self, after: int) -> tuple[int | None, list[tuple[int, bytes]]]:
        """Return where to go on, if anywhere, and which channels have expired: id and owner."""
        saved_before = self._environment.settled() - self._kept
        channels: list[int] = []
        expired: list[tuple[int, bytes]] = []

        def look(journal: Journal) -> None:
            channels.extend(journal.channels(after, _LOOKS))
            for channel in channels:
                try:
                    if journal.saved_at(channel) <= saved_before:
                        expired.append((channel, journal.owner(channel)))
                except CorruptRecordError:
                    # It stays, as all that is left to whoever repairs the journal.
                    continue

        await self._environment.committer.perform(look)
        return (channels[-1] if channels else None), expired
