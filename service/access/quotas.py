"""Quotas by principal: channels, operations and bytes per second, and a fair share under overload.

All of it is counted on the event loop's thread. Refusals are made before any work is done for what
is refused. The buckets are our own, of a few lines: the libraries for it (``limits``,
``pyrate-limiter``) bring storages, locks and waiting, which would cost more than what is limited.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from pykka import Future

from service.access.principals import Principal
from service.actors.future import LoopFuture
from service.errors import OverloadedError, QuotaExceededError, RateLimitedError

__all__ = ["Account", "Accounts", "ChannelQuota", "Rates", "Sized", "TokenBucket"]


_ROUNDING = 1e-6


class Sized(Protocol):
    """A request, as far as its size goes: every protobuf message is one."""

    def ByteSize(self) -> int:  # noqa: N802 - protobuf's naming
        """Return its bytes on the wire."""


class TokenBucket:
    """Lets ``rate`` units a second through, and up to ``burst`` of them at once."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        """Begin full."""
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = now

    def wait_for(self, units: float, now: float) -> float:
        """Return the seconds until that many units are there; 0: now.

        More than a burst holds is let through once the bucket is full, and owed from then on.
        """
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        missing = min(units, self._burst) - self._left
        # Whoever comes back after just that time is not sent away for the last digit of a float.
        return missing / self._rate if missing > _ROUNDING else 0.0

    def take(self, units: float) -> None:
        """Take units that are there."""
        self._left -= units


@dataclass(frozen=True, slots=True)
class Rates:
    """What each principal may ask for; 0: anything."""

    operations_per_second: float = 0.0
    bytes_per_second: float = 0.0
    burst_seconds: float = 1.0
    """How much may come at once, in seconds' worth of its rate."""

    def __bool__(self) -> bool:
        """Whether there is any limit."""
        return bool(self.operations_per_second or self.bytes_per_second)


class Account:
    """What a principal uses at this moment."""

    __slots__ = ("_accounts", "_bytes", "_operations", "in_flight")

    def __init__(self, accounts: "Accounts", rates: Rates, now: float) -> None:
        self._accounts = accounts
        self._operations = _bucket(rates.operations_per_second, rates.burst_seconds, now)
        self._bytes = _bucket(rates.bytes_per_second, rates.burst_seconds, now)
        self.in_flight = 0
        """Operations admitted and not yet answered."""

    def admit(self, request: Sized) -> None:
        """Let an operation in; ``leave`` follows its answer.

        Raises:
            RateLimitedError: it comes too soon.
            OverloadedError: the service is full, and this principal has its share of it.
        """
        self._accounts.require_share(self.in_flight)
        if self._operations is not None or self._bytes is not None:
            self._require_rate(request)
        self.in_flight += 1
        self._accounts.entered(self.in_flight)

    def leave(self) -> None:
        """Take note that an operation has its answer."""
        self.in_flight -= 1
        self._accounts.left(self.in_flight)

    def _require_rate(self, request: Sized) -> None:
        size = 0 if self._bytes is None else request.ByteSize()
        now = self._accounts.monotonic()
        operations, octets = self._operations, self._bytes
        # Both are asked before anything is taken: what is refused costs nothing.
        pause = max(
            0.0 if operations is None else operations.wait_for(1, now),
            0.0 if octets is None else octets.wait_for(size, now),
        )
        if pause:
            raise RateLimitedError(
                f"you ask for more than your rate allows: try again after {pause:.3f} s", pause
            )
        if operations is not None:
            operations.take(1)
        if octets is not None:
            octets.take(size)


def _bucket(rate: float, burst_seconds: float, now: float) -> TokenBucket | None:
    # A burst below one operation would let none through.
    return TokenBucket(rate, max(1.0, rate * burst_seconds), now) if rate else None


class Accounts:
    """The accounts of all principals, and the bound that they share.

    While fewer than ``max_in_flight`` operations are under way, everybody is let in. At the bound,
    only those who have less than their fair share of it: the bound divided by the number of
    principals that have anything under way. So at most twice the bound is ever under way.
    """

    def __init__(self, rates: Rates, max_in_flight: int, monotonic: Callable[[], float]) -> None:
        """Begin with nobody.

        Args:
            rates: what each principal may ask for.
            max_in_flight: operations under way in the whole service.
            monotonic: seconds.
        """
        self.monotonic = monotonic
        self._rates = rates
        self._max_in_flight = max_in_flight
        self._accounts: dict[str, Account] = {}
        self._in_flight = 0
        self._active = 0  # principals with anything in flight

    def of(self, principal: Principal) -> Account:
        """Return a principal's account."""
        account = self._accounts.get(principal.name)
        if account is None:
            account = Account(self, self._rates, self.monotonic())
            self._accounts[principal.name] = account
        return account

    def require_share(self, in_flight: int) -> None:
        """Check that a principal with so many operations in flight may begin another.

        Raises:
            OverloadedError: it may not.
        """
        if self._in_flight < self._max_in_flight:
            return
        sharing = max(1, self._active + (in_flight == 0))
        if in_flight * sharing >= self._max_in_flight:
            raise OverloadedError(
                f"{self._in_flight} operations are under way, and your share of them is used:"
                " try again after a pause"
            )

    def entered(self, in_flight: int) -> None:
        """Count an operation of a principal that has so many in flight now."""
        self._in_flight += 1
        self._active += in_flight == 1

    def left(self, in_flight: int) -> None:
        """Count the end of an operation of a principal that has so many in flight now."""
        self._in_flight -= 1
        self._active -= in_flight == 0


class ChannelQuota:
    """Bounds how many channels an owner has: those that are durable and those on their way."""

    def __init__(self, limit: int, owned: Callable[[bytes], int]) -> None:
        """Let everybody have ``limit`` channels, of which ``owned`` counts the durable ones."""
        self._limit = limit
        self._owned = owned
        self._on_their_way: Counter[bytes] = Counter()

    def require_room(self, owner: bytes) -> None:
        """Check that an owner may have another channel.

        Raises:
            QuotaExceededError: it may not.
        """
        if self._owned(owner) + self._on_their_way[owner] >= self._limit:
            raise QuotaExceededError(
                f"you have as many channels as you may have, {self._limit}: close some"
            )

    def reserve(self, owner: bytes, reply: Future[Any]) -> Future[Any]:
        """Count a channel as on its way, until the Establish that makes it is answered.

        Returns:
            Where the answer is to go, instead of ``reply``.
        """
        self._on_their_way[owner] += 1
        relay: LoopFuture[Any] = LoopFuture()
        relay.add_done_callback(partial(self._answered, owner, reply))
        return relay

    def _answered(self, owner: bytes, reply: Future[Any], done: LoopFuture[Any]) -> None:
        # By now the channel is durable and counted as such, or there is none.
        self._on_their_way[owner] -= 1
        if not self._on_their_way[owner]:
            del self._on_their_way[owner]
        done.pass_on(reply)
