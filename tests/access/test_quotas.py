"""Rates and fair shares by principal, on a clock that a test moves."""

import asyncio
import os
import random
from dataclasses import dataclass

import grpc
import pytest
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from connect_actor.access import quotas
from connect_actor.access.gate import Gate
from connect_actor.access.principals import ANONYMOUS, principal_named
from connect_actor.access.quotas import Account, Accounts, Rates, TokenBucket
from connect_actor.client import ConnectClient, Identity, error_of
from connect_actor.errors import OverloadedError, RateLimitedError
from connect_actor.network.peers import address_of
from connect_actor.rpc.status import status_of
from connect_actor.v1 import connect_pb2 as wire
from tests.access.conftest import Open
from tests.support.house import until


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Request:
    """So many bytes."""

    size: int

    def ByteSize(self) -> int:  # noqa: N802 - protobuf's naming
        return self.size


ONE = Request(1)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def account(clock: Clock, **rates: float) -> Account:
    return Accounts(Rates(**rates), 1_000, clock).of(ANONYMOUS)


def refused_for(account: Account, size: int = 0) -> float:
    """Return for how long an operation is refused; 0 if it isn't."""
    try:
        account.admit(Request(size))
    except RateLimitedError as error:
        return error.retry_after or 0.0
    return 0.0


def test_a_burst_is_let_through_and_then_the_rate(clock: Clock) -> None:
    limited = account(clock, operations_per_second=10.0, burst_seconds=2.0)
    assert [refused_for(limited) for _ in range(20)] == [0.0] * 20
    assert refused_for(limited) == pytest.approx(0.1)
    clock.now += 0.05
    assert refused_for(limited) == pytest.approx(0.05)
    clock.now += 0.05
    assert refused_for(limited) == 0.0
    assert refused_for(limited) == pytest.approx(0.1)
    clock.now += 1_000.0  # no more than a burst is saved up
    assert [refused_for(limited) for _ in range(21)][-2:] == [0.0, pytest.approx(0.1)]


def test_bytes_are_limited_too_and_the_longer_wait_is_told(clock: Clock) -> None:
    limited = account(clock, operations_per_second=1.0, bytes_per_second=1_000.0)
    assert refused_for(limited, 600) == 0.0
    assert refused_for(limited, 600) == pytest.approx(1.0)
    clock.now += 1.0
    assert refused_for(limited, 1_000) == 0.0
    clock.now += 1.0
    assert refused_for(limited, 400) == 0.0


@pytest.mark.parametrize(("count", "size"), [(5, 10), (4, 101), (17, 0)])
def test_operations_are_let_in_together_only_if_each_of_them_would_be(
    clock: Clock, count: int, size: int
) -> None:
    limited = account(clock, operations_per_second=4.0, bytes_per_second=100.0)
    assert not limited.admit_all(count, size)
    assert limited.in_flight == 0
    # Nothing was taken: a burst is there still.
    assert limited.admit_all(4, 100)
    assert limited.in_flight == 4
    assert refused_for(limited) == pytest.approx(0.25)
    limited.leave(4)
    assert limited.in_flight == 0


def test_operations_together_do_not_go_beyond_the_bound_that_all_share(clock: Clock) -> None:
    accounts = Accounts(Rates(), 10, clock)
    one, other = (accounts.of(principal_named(name)) for name in ("one", "other"))
    assert one.admit_all(8, 0)
    assert not other.admit_all(3, 0)
    assert (accounts.in_flight, accounts.active) == (8, 1)
    assert other.admit_all(2, 0)
    assert (accounts.in_flight, accounts.active) == (10, 2)
    one.leave(8)
    one.leave(0)
    assert (accounts.in_flight, accounts.active) == (2, 1)


def test_what_is_refused_by_one_limit_takes_nothing_from_the_other(clock: Clock) -> None:
    limited = account(clock, operations_per_second=2.0, bytes_per_second=10.0)
    assert refused_for(limited, 10) == 0.0
    for _ in range(5):
        assert refused_for(limited, 10) == pytest.approx(1.0)
    clock.now += 0.5
    assert refused_for(limited, 5) == 0.0


def test_a_request_larger_than_a_burst_gets_through_and_is_paid_for_afterwards(
    clock: Clock,
) -> None:
    limited = account(clock, bytes_per_second=100.0)
    assert refused_for(limited, 1_000) == 0.0
    assert refused_for(limited, 1) == pytest.approx(9.01)


@given(
    rate=st.floats(0.01, 1e6),
    burst=st.floats(1.0, 1e6),
    pauses=st.lists(st.floats(0.0, 100.0), max_size=30),
)
def test_no_bucket_lets_more_through_than_its_burst_and_its_rate(
    rate: float, burst: float, pauses: list[float]
) -> None:
    now = 1_000.0
    bucket = TokenBucket(rate, burst, now)
    taken = 0
    for pause in pauses:
        now += pause
        wait = bucket.wait_for(1, now)
        assert wait >= 0.0
        if wait == 0.0:
            bucket.take(1)
            taken += 1
        else:
            # After just that time there is room.
            assert bucket.wait_for(1, now + wait) == 0.0
            now += wait
    assert taken <= burst + rate * (now - 1_000.0) + 1e-3


@pytest.mark.parametrize("burst_seconds", [0.001, 1.0])
def test_a_rate_below_one_a_second_lets_one_through_now_and_then(
    clock: Clock, burst_seconds: float
) -> None:
    limited = account(clock, operations_per_second=0.1, burst_seconds=burst_seconds)
    assert refused_for(limited) == 0.0
    assert refused_for(limited) == pytest.approx(10.0)


def test_the_status_tells_when_to_come_back_to_the_millisecond_rounded_up() -> None:
    for seconds, told in ((0.1, 0.1), (0.100_01, 0.101), (12.5, 12.5), (1e-9, 0.001)):
        status = status_of(RateLimitedError("too much", seconds))
        retry = RetryInfo()
        assert status.details[1].Unpack(retry)
        delay = retry.retry_delay
        assert delay.seconds + delay.nanos / 1e9 == pytest.approx(told)


# --- Work -----------------------------------------------------------------------------------------


def test_work_is_owed_once_it_goes_beyond_the_rate(clock: Clock) -> None:
    limited = account(clock, derivations_per_second=100.0, burst_seconds=2.0)
    # A tenth of a second's worth, whatever the burst of other rates.
    limited.charge(10)
    assert limited.debt == 0.0
    limited.charge(50)
    assert limited.debt == pytest.approx(0.5)
    # Neither a rate nor a share is what work is charged to.
    assert refused_for(limited, 1_000_000) == 0.0
    clock.now += 0.25
    assert limited.debt == pytest.approx(0.25)
    clock.now += 1_000.0
    limited.charge(11)
    assert limited.debt == pytest.approx(0.01)


def test_nothing_is_owed_where_work_has_no_rate(clock: Clock) -> None:
    unlimited = account(clock, operations_per_second=1.0)
    unlimited.charge(1_000_000)
    assert unlimited.debt == 0.0


# --- Addresses ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.7:50123", "ipv4:192.0.2.7"),
        ("ipv6:[2001:db8:1:2:3:4:5:6]:50123", "ipv6:20010db800010002"),
        ("ipv6:%5B2001:db8:1:2:ffff::1%5D:443", "ipv6:20010db800010002"),
        ("ipv6:[fe80::1%25eth0]:443", "ipv6:fe80000000000000"),
        ("ipv6:[::ffff:192.0.2.7]:50123", "ipv4:192.0.2.7"),
        ("ipv6:nonsense:1", "ipv6:nonsense"),
        ("unix:", "unix"),
        ("unix:/run/service.sock", "unix"),
        ("", ""),
    ],
)
def test_a_caller_without_a_name_is_known_by_its_address(peer: str, address: str) -> None:
    assert address_of(peer) == address


class CallFrom:
    """A call from somewhere, by nobody."""

    def __init__(self, peer: str) -> None:
        self._peer = peer

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    def peer(self) -> str:
        return self._peer


def test_where_callers_are_not_authenticated_each_address_has_its_own_rate(clock: Clock) -> None:
    open_to_all = gate(clock, operations_per_second=1.0, derivations_per_second=10.0)

    def account_from(peer: str) -> Account:
        caller = open_to_all.admit(CallFrom(peer))
        assert caller.owner == b""
        assert caller.account is not None
        return caller.account

    greedy = account_from("ipv4:192.0.2.1:1")
    greedy.charge(1_000)
    assert refused_for(greedy) == 0.0
    # Another connection of it, and another caller.
    assert account_from("ipv4:192.0.2.1:2") is greedy
    assert refused_for(account_from("ipv4:192.0.2.1:3")) > 0.0
    other = account_from("ipv4:192.0.2.2:1")
    assert (other.debt, refused_for(other)) == (0.0, 0.0)


def test_no_more_addresses_are_kept_than_the_bound_and_those_in_use_stay(clock: Clock) -> None:
    accounts = Accounts(Rates(derivations_per_second=1.0), 1_000, clock)
    used = accounts.of_address("ipv4:192.0.2.1")
    unused = accounts.of_address("ipv4:192.0.2.2")
    for number in range(quotas._MAX_ADDRESSES + 10):
        accounts.of_address(f"ipv6:{number}")
        assert accounts.of_address("ipv4:192.0.2.1") is used
    assert len(accounts._addresses) == quotas._MAX_ADDRESSES
    assert accounts.of_address("ipv4:192.0.2.2") is not unused


# --- Fairness -------------------------------------------------------------------------------------


def test_at_the_bound_only_who_is_below_their_share_is_let_in(clock: Clock) -> None:
    accounts = Accounts(Rates(), 10, clock)
    greedy, modest = (accounts.of(principal_named(name)) for name in ("greedy", "modest"))
    for _ in range(10):
        greedy.admit(ONE)
    with pytest.raises(OverloadedError, match="your share"):
        greedy.admit(ONE)
    for _ in range(5):  # half of ten is theirs
        modest.admit(ONE)
    with pytest.raises(OverloadedError):
        modest.admit(ONE)
    greedy.leave()
    with pytest.raises(OverloadedError):  # still above, and the bound is still reached
        greedy.admit(ONE)
    for _ in range(9):
        greedy.leave()
    greedy.admit(ONE)
    modest.admit(ONE)


@pytest.mark.parametrize("seed", range(5))
def test_no_more_than_twice_the_bound_is_under_way_and_nobody_goes_without(
    clock: Clock, seed: int
) -> None:
    draw = random.Random(seed)
    bound = 40
    accounts = Accounts(Rates(), bound, clock)
    everybody = [accounts.of(principal_named(f"p{n}")) for n in range(8)]
    most = 0
    for _ in range(20_000):
        who = draw.choices(everybody, weights=[100, *[1] * 7])[0]
        if draw.random() < 0.55:
            share = who.in_flight * 8 < bound
            try:
                who.admit(ONE)
            except OverloadedError:
                assert not share
        elif who.in_flight:
            who.leave()
        most = max(most, sum(a.in_flight for a in everybody))
    assert bound <= most <= 2 * bound
    for who in everybody:
        while who.in_flight:
            who.leave()
    assert (accounts.in_flight, accounts.active) == (0, 0)


# --- At the door ----------------------------------------------------------------------------------


def gate(clock: Clock, max_in_flight: int = 1_000, **rates: float) -> Gate:
    return Gate(accounts=Accounts(Rates(**rates), max_in_flight, clock))


async def test_calls_and_streams_share_a_principals_rate_and_learn_when_to_return(
    open_door: Open, clock: Clock
) -> None:
    door = await open_door(gate(clock, operations_per_second=4.0))
    async with ConnectClient(door.address) as client:
        channel = await client.establish(Identity.generate(os.urandom))
        await channel.encrypt(b"x")
        encrypt = wire.EncryptRequest(connect_id=channel.connect_id, plaintext=b"x")
        commits = len(door.journal.batches)
        async with client.exchange() as stream:
            results = await stream.call([wire.Operation(encrypt=encrypt) for _ in range(5)])
        assert [r.WhichOneof("outcome") for r in results] == ["encrypt"] * 2 + ["error"] * 3
        refusal = error_of(results[2].error)
        assert isinstance(refusal, RateLimitedError)
        assert retry_of(results[2].error) == pytest.approx(0.25)
        with pytest.raises(RateLimitedError):
            await channel.encrypt(b"x")
        assert sum(len(b.records) for b in door.journal.batches[commits:]) == 2
        clock.now += 0.25
        await channel.encrypt(b"x")
    assert door.servicer.statistics.refusals["RATE_LIMITED"] == 4


def retry_of(status: Status) -> float:
    retry = RetryInfo()
    assert status.details[1].Unpack(retry)
    return float(retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9)


async def test_whoever_is_refused_or_gives_up_leaves_nothing_counted(
    open_door: Open, clock: Clock
) -> None:
    accounts = Accounts(Rates(operations_per_second=1e6), 1_000, clock)
    account = accounts.of_address("ipv4:127.0.0.1")
    door = await open_door(Gate(accounts=accounts))
    async with ConnectClient(door.address) as client:
        channel = await client.establish(Identity.generate(os.urandom))
        for request in (
            wire.EncryptRequest(),
            wire.EncryptRequest(connect_id=5),
            wire.EncryptRequest(plaintext=bytes(5_000)),
        ):
            with pytest.raises(grpc.aio.AioRpcError):
                await client.stub.Encrypt(request)
        async with client.exchange() as stream:
            await stream.call([wire.Operation(), wire.Operation(encrypt=wire.EncryptRequest())])
        assert account.in_flight == 0
        door.journal.entered.clear()
        door.journal.gate.clear()
        given_up = asyncio.ensure_future(channel.encrypt(b"x"))
        await until(door.journal.entered.is_set)
        given_up.cancel()
        await until(lambda: door.servicer.statistics.unary_in_flight == 0)
        # Its work is still under way.
        assert account.in_flight == 1
        door.journal.gate.set()
        await until(lambda: account.in_flight == 0)


async def test_a_full_service_refuses_before_any_cryptography(
    open_door: Open, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = await open_door(gate(clock, max_in_flight=1))
    async with ConnectClient(door.address) as client:
        channel = await client.establish(Identity.generate(os.urandom))
        door.journal.entered.clear()
        door.journal.gate.clear()
        first = asyncio.ensure_future(channel.encrypt(b"x"))
        await until(door.journal.entered.is_set)
        monkeypatch.setattr("connect_actor.protocol.session.Session.encrypt", None)
        with pytest.raises(OverloadedError, match="your share"):
            await channel.encrypt(b"y")
        door.journal.gate.set()
        await first
