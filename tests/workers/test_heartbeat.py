"""A worker's signs of life."""

import asyncio
import os
from contextlib import suppress

from connect_actor.process.heartbeat import beat
from tests.support.house import until


async def test_a_supervisor_that_reads_nothing_and_one_that_is_gone_stop_nobody() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4_096))
    beats = asyncio.create_task(beat(writing))
    await asyncio.sleep(0)
    assert not beats.done()
    os.close(reading)
    beats.cancel()
    beats = asyncio.create_task(beat(writing))
    await asyncio.sleep(0)
    assert not beats.done()
    beats.cancel()
    os.close(writing)


async def test_beats_are_empty_lines() -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    beats = asyncio.create_task(beat(writing))
    heard = b""

    def hear() -> bool:
        nonlocal heard
        with suppress(BlockingIOError):
            heard += os.read(reading, 10)
        return len(heard) >= 2

    await until(hear)
    assert heard == b"\n\n"
    beats.cancel()
    os.close(reading)
    os.close(writing)
