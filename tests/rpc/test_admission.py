"""Admission alone: what it counts, what it refuses, and whom it lets go on."""

import asyncio

import pytest

from connect_actor.errors import OverloadedError
from connect_actor.rpc.admission import Admission, Bounds
from tests.support.process import PATIENCE


def admission(operations: int = 4, total_bytes: int = 1 << 20) -> Admission:
    return Admission(Bounds(max_operations=operations, max_bytes=total_bytes))


async def test_as_many_operations_are_admitted_as_the_bound_says_and_no_more() -> None:
    full = admission(operations=2)
    full.admit(0)
    full.admit(0)
    with pytest.raises(OverloadedError, match="2 operations"):
        full.admit(0)
    assert full.under_way == 2
    full.answered()
    full.admit(0)


async def test_operations_are_admitted_together_or_none_of_them() -> None:
    full = admission(operations=4, total_bytes=10_000)
    assert not full.admit_all(5, 5)
    assert not full.admit_all(2, 10_001)
    assert (full.under_way, full.held_bytes) == (0, 0)
    assert full.admit_all(4, 10_000)
    assert (full.under_way, full.held_bytes) == (4, 10_000)
    full.answered(4)
    full.let_go(10_000)
    assert (full.under_way, full.held_bytes) == (0, 0)


async def test_bytes_count_until_they_are_let_go_though_the_operation_is_answered() -> None:
    full = admission(total_bytes=10_000)
    held = full.admit(8_000)
    full.answered()
    with pytest.raises(OverloadedError, match="10000 bytes"):
        full.admit(8_000)
    assert (full.under_way, full.held_bytes) == (0, held)
    full.let_go(held)
    assert full.admit(8_000) == held


async def test_who_waits_for_room_goes_on_in_order_once_there_is_some() -> None:
    full = admission(operations=4)  # and 3 of them for those who wait
    for _ in range(4):
        full.admit(0)
    passed: list[int] = []

    async def wait(number: int) -> None:
        await full.room()
        passed.append(number)
        full.admit(0)

    waiting = [asyncio.ensure_future(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    full.answered()
    await asyncio.sleep(0.02)
    assert passed == []
    full.answered()
    await asyncio.sleep(0.02)
    assert passed == [0]
    full.answered()
    full.answered()
    await asyncio.gather(*waiting)
    assert passed == [0, 1, 2]


async def test_a_stream_that_arrives_once_there_is_room_waits_behind_those_that_wait() -> None:
    full = admission(operations=2)
    full.admit(0)
    full.admit(0)
    order: list[str] = []

    async def wait(name: str) -> None:
        await full.room()
        order.append(name)

    first = asyncio.ensure_future(wait("first"))
    await asyncio.sleep(0)
    full.answered()
    full.answered()
    # There is room now, but the stream that waits for it has not run yet.
    await wait("second")
    await first
    assert order == ["first", "second"]


async def test_the_turn_of_a_stream_that_has_ended_is_the_next_ones() -> None:
    full = admission(operations=1)
    full.admit(0)
    first, second = (asyncio.ensure_future(full.room()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    full.answered()
    await asyncio.wait_for(second, PATIENCE)
    assert first.cancelled()


async def test_a_caller_with_many_streams_waiting_leaves_others_their_turns() -> None:
    full = admission(operations=4)
    for _ in range(4):
        full.admit(0)
    order: list[str] = []

    async def wait(flow: str) -> None:
        await full.room(flow)
        order.append(flow)

    greedy = [asyncio.ensure_future(wait("greedy")) for _ in range(20)]
    await asyncio.sleep(0)
    modest = [asyncio.ensure_future(wait("modest")) for _ in range(2)]
    await asyncio.sleep(0)
    for _ in range(4):
        full.answered()
    await asyncio.gather(*greedy, *modest)
    assert [order.index("modest"), 21 - order[::-1].index("modest")] == [1, 3]
