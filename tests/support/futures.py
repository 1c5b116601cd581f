"""Pykka's futures on an event loop."""

import asyncio
from typing import Any

from pykka import Future, Timeout

from tests.support.process import PATIENCE

__all__ = ["result"]


async def result(future: Future[Any]) -> Any:  # noqa: ANN401 - what was asked for
    """Return a future's result as soon as it is there, without blocking the loop."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                return future.get(timeout=0)
            except Timeout:
                await asyncio.sleep(0)
