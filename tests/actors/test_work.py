"""What messages cost beyond ordinary ones, in chain steps: who pays, and who is held off."""

import os
from collections.abc import AsyncIterator

import pytest

from connect_actor.access.principals import principal_named
from connect_actor.access.quotas import Account, Accounts, Rates
from connect_actor.actors.commands import Command, Decrypt, Encrypt, Establish
from connect_actor.actors.work import FREE_WORK, REFUSED_WORK
from connect_actor.errors import (
    AuthenticationFailedError,
    ConnectError,
    HandshakeRefusedError,
    RateLimitedError,
)
from connect_actor.persistence.memory import MemoryJournal
from connect_actor.protocol.delivery import Delivered
from connect_actor.protocol.payload import Payload
from connect_actor.reply import AwaitedReply
from tests.protocol.refusals import with_header
from tests.support.channels import establish_request
from tests.support.house import House, PeerEnd, answer, until

MAX_SKIP = 1_000
RATE = 100_000.0
BURST = RATE / 10

# What one channel may waste at once, and then for each second.
AT_ONCE = 4_000
PER_SECOND = 500


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=[0, 4], ids=["keeps nothing", "keeps deliveries"])
async def house(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[House]:
    house = House(MemoryJournal(), redelivery_window=request.param, monotonic=clock)
    yield house
    await house.close()


@pytest.fixture
def accounts(clock: Clock) -> Accounts:
    return Accounts(Rates(derivations_per_second=RATE), 10_000, clock)


@pytest.fixture
def payer(accounts: Accounts) -> Account:
    return accounts.of(principal_named("payer"))


def spent(account: Account) -> int:
    """Return what has been taken from an account that was full; no time must have passed."""
    bucket = account._derivations
    assert bucket is not None
    return round(BURST - bucket._left)


async def ask(channel: PeerEnd, command: Command, payer: Account | None) -> object:
    """Ask for something as one who pays; return the answer, or the refusal."""
    reply: AwaitedReply = AwaitedReply()
    if payer is not None:
        reply.payer = payer
    channel.house.router.route(channel.connect_id, command, reply)
    try:
        found = await answer(reply)
    except ConnectError as error:
        return error
    return found.result if isinstance(found, Delivered) else found


async def decrypt(channel: PeerEnd, payload: Payload, payer: Account | None) -> object:
    return await ask(channel, Decrypt(payload), payer)


def sealed(channel: PeerEnd, count: int) -> list[Payload]:
    return [channel.seal(str(number).encode()) for number in range(count)]


def forged(payload: Payload, ahead: int) -> Payload:
    """Return a payload that claims to come so many messages later, with a tag of nothing."""
    number = payload.header.message_number + ahead
    return with_header(payload, message_number=number)._replace(ciphertext=bytes(32))


# --- What is charged ------------------------------------------------------------------------------


async def test_ordinary_messages_are_free_in_whatever_order_their_keys_are_kept(
    house: House, payer: Account
) -> None:
    channel = await house.establish()
    payloads = sealed(channel, 5)
    assert await decrypt(channel, payloads[0], payer) == b"0"
    assert spent(payer) == 0
    assert await decrypt(channel, payloads[4], payer) == b"4"
    assert spent(payer) == 3
    for number in (2, 1, 3):
        assert await decrypt(channel, payloads[number], payer) == str(number).encode()
    assert spent(payer) == 3
    await ask(channel, Encrypt(b"down"), payer)
    assert spent(payer) == 3


@pytest.mark.parametrize("order", ["backwards", "by halves", "every third is lost"])
async def test_all_that_an_honest_peer_is_charged_is_the_length_of_its_chain_at_most(
    house: House, payer: Account, order: str
) -> None:
    channel = await house.establish()
    payloads = sealed(channel, 300)
    arriving = {
        "backwards": payloads[::-1],
        "by halves": payloads[1::2] + payloads[::2],
        "every third is lost": [p for at, p in enumerate(payloads) if at % 3],
    }[order]
    for payload in arriving:
        assert isinstance(await decrypt(channel, payload, payer), bytes)
    assert 0 < spent(payer) <= 300


@pytest.mark.parametrize("ahead", [0, 1, FREE_WORK, MAX_SKIP])
async def test_a_forgery_costs_its_sender_the_steps_that_it_demands_and_a_refusal(
    house: House, payer: Account, ahead: int
) -> None:
    channel = await house.establish()
    refusal = await decrypt(channel, forged(channel.seal(b"x"), ahead), payer)
    assert isinstance(refusal, AuthenticationFailedError)
    assert spent(payer) == ahead + REFUSED_WORK
    assert house.statistics.forged_work == ahead


async def test_what_is_refused_without_a_step_is_free(house: House, payer: Account) -> None:
    channel = await house.establish()
    first = channel.seal(b"x")
    await decrypt(channel, first, payer)
    await decrypt(channel, first, payer)  # a replay, or the same answer again
    await decrypt(channel, forged(first, MAX_SKIP + 2), payer)
    assert spent(payer) == 0


async def test_a_forged_turn_is_charged_for_both_chains_that_it_claims(
    house: House, payer: Account
) -> None:
    channel = await house.establish()
    # Only now may the peer turn.
    channel.open(await channel.encrypt(b"down"))
    claim = with_header(
        forged(channel.seal(b"x"), 300), ratchet_key=os.urandom(32), previous_chain_length=200
    )
    assert isinstance(await decrypt(channel, claim, payer), AuthenticationFailedError)
    assert spent(payer) == 300 + 200 + REFUSED_WORK


async def test_a_refused_handshake_costs_its_sender(house: House, payer: Account) -> None:
    _, request = establish_request(7)
    request.bundle.signature = bytes(64)
    channel = PeerEnd(house, 7, None)  # type: ignore[arg-type] # it has no session yet
    refusal = await ask(channel, Establish(request), payer)
    assert isinstance(refusal, HandshakeRefusedError)
    assert spent(payer) == REFUSED_WORK


async def test_loading_a_channel_costs_as_many_steps_as_it_has_skipped_keys(
    house: House, payer: Account
) -> None:
    channel = await house.establish()
    await decrypt(channel, sealed(channel, 401)[400], None)
    house.router._passivate(channel.connect_id, house.router._channels[channel.connect_id])  # type: ignore[arg-type] # live
    await until(lambda: house.router.live == 0)
    await ask(channel, Encrypt(b"down"), payer)
    assert spent(payer) == 400


# --- A channel whose messages keep failing -------------------------------------------------------


async def test_forgeries_on_one_channel_cost_a_bounded_number_of_steps_whoever_pays(
    house: House, clock: Clock
) -> None:
    channel = await house.establish()
    payload = channel.seal(b"x")
    refusals = [await decrypt(channel, forged(payload, MAX_SKIP), None) for _ in range(50)]
    assert [type(r) for r in refusals[:5]] == [AuthenticationFailedError] * 4 + [RateLimitedError]
    assert {type(r) for r in refusals[4:]} == {RateLimitedError}
    assert house.statistics.forged_work == AT_ONCE
    last = refusals[-1]
    assert isinstance(last, RateLimitedError)
    assert last.retry_after == pytest.approx(MAX_SKIP / PER_SECOND)
    for _ in range(10):
        clock.now += MAX_SKIP / PER_SECOND
        for _ in range(5):
            await decrypt(channel, forged(payload, MAX_SKIP), None)
    assert house.statistics.forged_work == AT_ONCE + 10 * MAX_SKIP


async def test_such_a_channel_goes_on_for_its_peer(house: House, payer: Account) -> None:
    channel = await house.establish()
    payloads = sealed(channel, 200)
    for _ in range(10):
        await decrypt(channel, forged(payloads[0], MAX_SKIP), None)
    # In order, and with as much reordering as is always free.
    assert await decrypt(channel, payloads[0], payer) == b"0"
    assert await decrypt(channel, payloads[1 + FREE_WORK], payer) == str(1 + FREE_WORK).encode()
    assert await decrypt(channel, payloads[1], payer) == b"1"
    # Its own large skips wait with those of the forger, who has used them up.
    refusal = await decrypt(channel, payloads[199], payer)
    assert isinstance(refusal, RateLimitedError)
    assert "messages of this channel have failed" in str(refusal)
    for payload in payloads[100:199]:
        assert isinstance(await decrypt(channel, payload, payer), bytes)


async def test_cheap_forgeries_do_not_use_up_what_a_channel_may_skip(
    house: House, payer: Account
) -> None:
    channel = await house.establish()
    payloads = sealed(channel, 500)
    for _ in range(200):
        await decrypt(channel, forged(payloads[0], FREE_WORK), None)
    assert await decrypt(channel, payloads[499], payer) == b"499"


# --- A caller in debt -----------------------------------------------------------------------------


async def test_a_caller_in_debt_skips_no_more_on_any_of_its_channels_until_it_is_paid(
    house: House, payer: Account, accounts: Accounts, clock: Clock
) -> None:
    channels = [await house.establish(seed) for seed in range(1, 13)]
    for channel in channels[:11]:
        await decrypt(channel, forged(channel.seal(b"x"), MAX_SKIP), payer)
    # A tenth of a second's worth may come at once; what came last went beyond it.
    assert house.statistics.forged_work == 10 * MAX_SKIP
    owed = 10 * (MAX_SKIP + REFUSED_WORK) + REFUSED_WORK - BURST
    assert payer.debt == pytest.approx(owed / RATE)
    untouched = channels[11]
    payloads = sealed(untouched, 102)
    refusal = await decrypt(untouched, payloads[101], payer)
    assert isinstance(refusal, RateLimitedError)
    assert refusal.retry_after == pytest.approx(owed / RATE)
    # What is cheap goes on, and so do others.
    assert await decrypt(untouched, payloads[0], payer) == b"0"
    assert isinstance(await ask(untouched, Encrypt(b"down"), payer), Payload)
    assert await decrypt(untouched, payloads[101], accounts.of(principal_named("other"))) == b"101"
    clock.now += payer.debt + 1e-6
    later = sealed(untouched, 200)
    assert await decrypt(untouched, later[199], payer) == b"199"


async def test_a_flood_of_skips_is_bounded_by_the_callers_rate_however_many_channels_it_has(
    house: House, payer: Account, clock: Clock
) -> None:
    channels = [await house.establish(seed) for seed in range(1, 41)]
    # Authentic ones: the caller may well have both ends.
    done = 0
    for _ in range(5):
        for channel in channels:
            before = spent_steps(channel)
            await decrypt(channel, sealed(channel, 501)[500], payer)
            done += spent_steps(channel) - before
        clock.now += 0.1
    # Without a bound it would be 40 channels' 500 steps each time.
    assert done <= 6 * BURST + 5 * MAX_SKIP


def spent_steps(channel: PeerEnd) -> int:
    live = channel.house.router._channels[channel.connect_id]
    session = live.mailbox._owner._phase._session  # type: ignore[union-attr] # live and running
    receiving = session.ratchet.receiving
    return 0 if receiving is None else int(receiving.next_index)


async def test_nobody_pays_where_nothing_is_counted(house: House) -> None:
    channel = await house.establish()
    unlimited = Accounts(Rates(), 10_000, Clock()).of(principal_named("payer"))
    for _ in range(3):
        await decrypt(channel, forged(channel.seal(b"x"), MAX_SKIP), unlimited)
    assert unlimited.debt == 0.0
