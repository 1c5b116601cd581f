"""Recovery permits: how many channels may be loading at a time, so that a storm queues up."""

from collections import deque
from collections.abc import Callable

__all__ = ["RecoveryPermits"]


class RecoveryPermits:
    """A counting semaphore whose waiters are called back, first come first served."""

    def __init__(self, permits: int) -> None:
        """Begin with all ``permits`` free."""
        self._permits = self._free = permits
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def in_use(self) -> int:
        """Permits that someone has."""
        return self._permits - self._free

    @property
    def waiting(self) -> int:
        """Actors in the queue."""
        return len(self._waiting)

    def acquire(self, granted: Callable[[], None]) -> None:
        """Call ``granted`` once there is a permit; every grant is owed one ``release``."""
        if self._free:
            self._free -= 1
            granted()
        else:
            self._waiting.append(granted)

    def release(self) -> None:
        """Give a permit back, to the next in the queue if there is one."""
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._free += 1
