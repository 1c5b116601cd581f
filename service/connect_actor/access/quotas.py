"""Quotas by principal: channels, operations, bytes and work, and a fair share under overload.

Operations and bytes beyond their rates are refused before anything is done for them. Work
(``actors.work``) is known only once it is done, so it is charged then, and what was charged
beyond its rate is owed. Where callers are not authenticated, the address of a connection stands for
the principal in all but the number of channels.

All of it is counted on the event loop's thread. The buckets are our own, of a few lines: the
libraries for it (``limits``, ``pyrate-limiter``) bring storages, locks and waiting, which would
cost more than what is limited.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from connect_actor.access.principals import Principal
from connect_actor.errors import OverloadedError, QuotaExceededError, RateLimitedError
from connect_actor.reply import Reply, ReplyWithEnd

__all__ = ["Account", "Accounts", "ChannelQuota", "Rates", "Sized", "TokenBucket"]


_ROUNDING = 1e-6
# Seconds' worth of work that a caller may demand at once, whatever the burst of other rates: by
# default 5,000 steps, for which the event loop is busy for some 5 ms.
_DERIVATION_BURST = 0.1
# Accounts of addresses that are kept, some 600 bytes each: whoever has more of them is better held
# off by a firewall.
_MAX_ADDRESSES = 16_384


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

    def holds(self, units: float, now: float) -> bool:
        """Say whether that many units are there now."""
        self.wait_for(0, now)
        return units <= self._left

    def take(self, units: float) -> None:
        """Take units that are there."""
        self._left -= units


@dataclass(frozen=True, slots=True)
class Rates:
    """What each principal may ask for; 0: anything."""

    operations_per_second: float = 0.0
    bytes_per_second: float = 0.0
    derivations_per_second: float = 0.0
    """Of work beyond that of ordinary messages: ``actors.work``."""
    burst_seconds: float = 1.0
    """How many operations and bytes may come at once, in seconds' worth of their rates."""


class Account:
    """What a principal uses at this moment, and what it owes: a ``Payer``."""

    __slots__ = ("_accounts", "_bytes", "_derivations", "_operations", "flow", "in_flight")

    def __init__(self, accounts: "Accounts", name: str, rates: Rates, now: float) -> None:
        self.flow = name
        """See ``Payer``."""
        self._accounts = accounts
        self._derivations = _bucket(rates.derivations_per_second, _DERIVATION_BURST, now)
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
        accounts = self._accounts
        if accounts.in_flight >= accounts.max_in_flight:
            accounts.require_share(self.in_flight)
        if self._operations is not None or self._bytes is not None:
            self._require_rate(0 if self._bytes is None else request.ByteSize())
        self._enter(1)

    def admit_all(self, operations: int, size: int) -> bool:
        """Let operations of so many bytes in together, as ``admit`` does each of them.

        Or return False, and let none in, if not all of them may come.
        """
        accounts = self._accounts
        if accounts.in_flight + operations > accounts.max_in_flight:
            return False
        asked = [
            (bucket, units)
            for bucket, units in ((self._operations, operations), (self._bytes, size))
            if bucket is not None
        ]
        if not all(bucket.holds(units, accounts.monotonic()) for bucket, units in asked):
            return False
        for bucket, units in asked:
            bucket.take(units)
        self._enter(operations)
        return True

    def _enter(self, operations: int) -> None:
        accounts = self._accounts
        if not self.in_flight:
            accounts.active += 1
        self.in_flight += operations
        accounts.in_flight += operations

    def leave(self, operations: int = 1) -> None:
        """Take note that operations have their answers."""
        if not operations:
            return
        accounts = self._accounts
        self.in_flight -= operations
        accounts.in_flight -= operations
        if not self.in_flight:
            accounts.active -= 1

    @property
    def debt(self) -> float:
        """See ``Payer``."""
        bucket = self._derivations
        return 0.0 if bucket is None else bucket.wait_for(0, self._accounts.monotonic())

    def charge(self, work: int) -> None:
        """See ``Payer``."""
        bucket = self._derivations
        if bucket is not None:
            bucket.wait_for(0, self._accounts.monotonic())  # it fills up to now, and no further
            bucket.take(work)

    def _require_rate(self, size: int) -> None:
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
        self.max_in_flight = max_in_flight
        self._accounts: dict[str, Account] = {}
        self._addresses: OrderedDict[str, Account] = OrderedDict()  # least recently used first
        self.in_flight = 0
        """Of all accounts, which count it."""
        self.active = 0
        """Accounts with anything in flight."""

    def of(self, principal: Principal) -> Account:
        """Return a principal's account."""
        account = self._accounts.get(principal.name)
        if account is None:
            account = Account(self, principal.name, self._rates, self.monotonic())
            self._accounts[principal.name] = account
        return account

    def of_address(self, address: str) -> Account:
        """Return the account of whoever calls from an address."""
        account = self._addresses.pop(address, None)
        if account is None:
            account = Account(self, address, self._rates, self.monotonic())
            if len(self._addresses) >= _MAX_ADDRESSES:
                self._addresses.popitem(last=False)
        self._addresses[address] = account
        return account

    def require_share(self, in_flight: int) -> None:
        """Check that a principal with so many operations in flight may begin another at the bound.

        Raises:
            OverloadedError: it may not.
        """
        sharing = max(1, self.active + (in_flight == 0))
        if in_flight * sharing >= self.max_in_flight:
            raise OverloadedError(
                f"{self.in_flight} operations are under way, and your share of them is used:"
                " try again after a pause"
            )


class ChannelQuota:
    """Bounds how many channels an owner has: those that are durable and those on their way.

    Those of no owner, where callers are not authenticated, are bounded together.
    """

    def __init__(self, limit: int, owned: Callable[[bytes], int]) -> None:
        """Let each have ``limit`` channels, 0 for any number; ``owned`` counts the durable ones."""
        self._limit = limit
        self._owned = owned
        self._on_their_way: Counter[bytes] = Counter()

    def has_room(self, owner: bytes) -> bool:
        """Say whether an owner may have another channel."""
        return not self._limit or self._owned(owner) + self._on_their_way[owner] < self._limit

    def require_room(self, owner: bytes) -> None:
        """Check that an owner may have another channel.

        Raises:
            QuotaExceededError: it may not.
        """
        if self.has_room(owner):
            return
        if owner:
            text = f"you have as many channels as you may have, {self._limit}: close some"
        else:
            text = (
                f"there are {self._limit} channels, as many as there may be where callers are not"
                " authenticated: close some, or have the operator raise max_channels or give"
                " callers tokens or certificates"
            )
        raise QuotaExceededError(text)

    def reserve(self, owner: bytes, reply: Reply) -> Reply:
        """Count a channel as on its way, until the Establish that makes it is answered.

        Returns:
            Where the answer is to go, instead of ``reply``.
        """
        if not self._limit:
            return reply
        self._on_their_way[owner] += 1
        # By its end the channel is durable and counted as such, or there is none.
        return ReplyWithEnd(reply, partial(self._ended, owner))

    def _ended(self, owner: bytes) -> None:
        self._on_their_way[owner] -= 1
        if not self._on_their_way[owner]:
            del self._on_their_way[owner]
