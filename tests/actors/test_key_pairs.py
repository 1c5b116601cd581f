"""Key pairs made ahead: while the loop is idle, a few at a time, and each given out once."""

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Callable

import pytest
from nacl import bindings as sodium

from connect_actor.keys.pairs import AT_A_TIME, KEPT, PreparedKeyPairs
from connect_actor.persistence.memory import MemoryJournal
from connect_actor.protocol.handshake import ChannelLimits
from connect_actor.protocol.primitives import KeyPair
from tests.support.channels import NOW, make_ends, seeded
from tests.support.house import House
from tests.support.virtual_time import VirtualClock, run_virtually

A_WHILE = 60.0


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the public halves that are derived."""
    counts: Counter[str] = Counter()
    original = sodium.crypto_scalarmult_base

    def counted(private_key: bytes) -> bytes:
        counts["derived"] += 1
        return original(private_key)

    monkeypatch.setattr(sodium, "crypto_scalarmult_base", counted)
    return counts


def after_a_while(*, idle: bool) -> tuple[int, list[KeyPair]]:
    """Let a stock be on a loop whose thread works hardly at all, or all the time.

    Returns how many pairs it has made, and some that it has given out.
    """

    async def run(_: VirtualClock) -> tuple[int, list[KeyPair]]:
        loop = asyncio.get_running_loop()
        pairs = PreparedKeyPairs(
            loop, os.urandom, working_time=(lambda: 0.0) if idle else loop.time
        )
        await asyncio.sleep(A_WHILE)
        return len(pairs), [pairs() for _ in range(5)]

    return run_virtually(run)


def test_an_idle_loop_makes_pairs_up_to_the_limit(work: Counter[str]) -> None:
    made, pairs = after_a_while(idle=True)
    assert made == KEPT
    assert len({pair.public_key for pair in pairs}) == len(pairs)
    assert work == {"derived": KEPT}


def test_a_busy_loop_makes_none_ahead_and_still_gives_pairs(work: Counter[str]) -> None:
    made, pairs = after_a_while(idle=False)
    assert made == 0
    assert len({pair.public_key for pair in pairs}) == len(pairs)
    assert work == {"derived": len(pairs)}


def test_no_more_than_a_few_are_made_at_a_time_and_what_is_taken_is_made_up_for() -> None:
    async def run(_: VirtualClock) -> None:
        pairs = PreparedKeyPairs(asyncio.get_running_loop(), os.urandom, working_time=lambda: 0.0)
        lengths = [0]
        while len(pairs) < KEPT:
            await asyncio.sleep(0.001)
            lengths.append(len(pairs))
        assert max(after - before for before, after in itertools.pairwise(lengths)) == AT_A_TIME
        taken = [pairs() for _ in range(3)]
        assert len(pairs) == KEPT - len(taken)
        await asyncio.sleep(A_WHILE)
        assert len(pairs) == KEPT

    run_virtually(run)


def test_a_full_stock_has_no_timer_left() -> None:
    async def run(_: VirtualClock) -> None:
        pairs = PreparedKeyPairs(asyncio.get_running_loop(), os.urandom, working_time=lambda: 0.0)
        await asyncio.sleep(A_WHILE)
        assert len(pairs) == KEPT
        # The loop says so itself: nothing is left that could ever happen.
        await asyncio.Event().wait()

    with pytest.raises(AssertionError, match="never comes"):
        run_virtually(run)


def test_no_pair_is_given_out_twice_and_each_comes_from_the_given_source() -> None:
    source, same = seeded(1), seeded(1)

    async def run(_: VirtualClock) -> list[bytes]:
        pairs = PreparedKeyPairs(asyncio.get_running_loop(), source, working_time=lambda: 0.0)
        await asyncio.sleep(A_WHILE)
        return [pairs().private_key for _ in range(KEPT + 5)]

    given = run_virtually(run)
    assert len(set(given)) == len(given)
    assert given == [same(32) for _ in given]


def prepared(pairs: int) -> Callable[[], KeyPair]:
    """Return a source of pairs that are all ready."""
    made = [KeyPair.generate(os.urandom) for _ in range(pairs)]
    for pair in made:
        pair.prepare()
    return made.pop


async def test_an_establish_derives_no_public_half_if_there_are_pairs(work: Counter[str]) -> None:
    house = House(MemoryJournal(), key_pairs=prepared(12))
    work.clear()
    await house.establish()
    # Those of the peer: 12 of its bundle, an ephemeral one and a ratchet key.
    assert work == {"derived": 14}
    await house.close()


def test_a_turn_takes_its_key_from_the_pairs(work: Counter[str]) -> None:
    ends = make_ends(limits=ChannelLimits(dh_ratchet_every=1))
    ends.round_trip()
    ends.at_service(ends.up())
    pair = prepared(1)()
    work.clear()
    payload, change = ends.service.encrypt(
        b"down", now=NOW, random=ends.random, key_pairs=lambda: pair
    )
    assert not work
    assert change.ratchet_private_key == pair.private_key
    assert payload.header.ratchet_key == pair.public_key
    assert ends.at_peer(payload) == b"down"
