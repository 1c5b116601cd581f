"""Signs of life of a worker: empty lines on its standard output, written by its event loop.

The supervisor counts the beats that it has missed instead of the time: if both have stood still,
as on a virtual machine that was suspended, none was missed.
"""

import asyncio
import os
from contextlib import suppress
from typing import NoReturn

__all__ = ["BEAT_SECONDS", "beat"]

BEAT_SECONDS = 1.0


async def beat(descriptor: int) -> NoReturn:
    """Give signs of life through a pipe for as long as this runs."""
    # A supervisor that reads no more must not make this one hang, too.
    os.set_blocking(descriptor, False)
    while True:
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(descriptor, b"\n")
        await asyncio.sleep(BEAT_SECONDS)
