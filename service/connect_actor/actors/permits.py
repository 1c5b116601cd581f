"""Recovery permits: how many channels may be loading at a time, so that a storm queues up.

The queue is bounded in length and in time. Who finds it full, or waits too long, is told so and
can tell its callers, instead of keeping them for a turn that comes when they have given up.

All of it runs on the event loop's thread.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from connect_actor.errors import OverloadedError
from connect_actor.observe.counting import Distribution

__all__ = ["Permit", "RecoveryPermits"]


class Permit:
    """What ``acquire`` returns: a place in the queue at first, a permit once it is granted."""

    __slots__ = ("_granted", "_permits", "_refused", "since")

    def __init__(
        self,
        permits: "RecoveryPermits",
        since: float,
        granted: Callable[[], None],
        refused: Callable[[OverloadedError], None],
    ) -> None:
        self._permits = permits
        self._granted = granted
        self._refused = refused
        self.since = since
        """Seconds on the event loop's clock."""

    def grant(self) -> None:
        """Tell whoever asked that it may go on."""
        self._granted()

    def refuse(self, error: OverloadedError) -> None:
        """Tell whoever asked that it has waited in vain."""
        self._refused(error)

    def give_back(self) -> None:
        """Leave the queue, or let the next one load; nothing if neither is the case any more."""
        self._permits.take_back(self)


class RecoveryPermits:
    """A counting semaphore whose waiters are called back, first come first served."""

    def __init__(
        self,
        permits: int,
        loop: asyncio.AbstractEventLoop,
        *,
        max_waiting: int,
        timeout: float,
    ) -> None:
        """Begin with all ``permits`` free.

        Args:
            permits: how many may be held at a time.
            loop: measures the waiting.
            max_waiting: how many may wait for one.
            timeout: seconds after which who waits is refused.
        """
        self.waits = Distribution()
        """Seconds that each permit granted was waited for."""
        self.timed_out = 0
        """Waiters that were refused because their time was over."""
        self.turned_away = 0
        """Who was refused because the queue was full."""
        self._permits = permits
        self._loop = loop
        self._max_waiting = max_waiting
        self._timeout = timeout
        self._held: set[Permit] = set()
        # In order of arrival; so the first is always the one whose time is over first.
        self._waiting: OrderedDict[Permit, None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def in_use(self) -> int:
        """Permits that someone has."""
        return len(self._held)

    @property
    def waiting(self) -> int:
        """Actors in the queue."""
        return len(self._waiting)

    def require_room(self) -> None:
        """Check that another one would find a permit, or a place in the queue.

        Raises:
            OverloadedError: the queue is full.
        """
        if len(self._waiting) >= self._max_waiting:
            self.turned_away += 1
            raise OverloadedError(
                f"{self._max_waiting} channels are waiting to be loaded: try again after a pause"
            )

    def acquire(
        self, granted: Callable[[], None], refused: Callable[[OverloadedError], None]
    ) -> Permit:
        """Ask for a permit: exactly one of the two is called, perhaps at once, unless given back.

        Raises:
            OverloadedError: the queue is full; neither is called.
        """
        permit = Permit(self, self._loop.time(), granted, refused)
        if len(self._held) < self._permits:
            self._grant(permit)
        else:
            self.require_room()
            self._waiting[permit] = None
            self._watch()
        return permit

    def take_back(self, permit: Permit) -> None:
        """See ``Permit.give_back``."""
        if permit in self._held:
            self._held.remove(permit)
            if self._waiting:
                self._grant(self._waiting.popitem(last=False)[0])
        else:
            self._waiting.pop(permit, None)

    def _grant(self, permit: Permit) -> None:
        self._held.add(permit)
        self.waits.add(self._loop.time() - permit.since)
        permit.grant()

    def _watch(self) -> None:
        """See that whoever is first in the queue is refused in time."""
        if self._timer is None and self._waiting:
            first = next(iter(self._waiting))
            self._timer = self._loop.call_at(first.since + self._timeout, self._refuse_late)

    def _refuse_late(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._waiting:
            permit = next(iter(self._waiting))
            if now < permit.since + self._timeout:
                break
            del self._waiting[permit]
            self.timed_out += 1
            permit.refuse(
                OverloadedError(
                    f"the channel has waited {self._timeout:g} s for others to be loaded:"
                    " try again after a pause"
                )
            )
        self._watch()
