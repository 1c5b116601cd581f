"""A process that says on its standard error where it listens."""

import asyncio
import re
import subprocess
from collections import deque
from types import TracebackType
from typing import Self

from connect_loadgen.program.child import end_child, how_ended, kill_child, start_child

__all__ = ["Listener", "ListenerError"]

_PATIENCE = 60

# What a user needs to see of its words to know why it ended.
_TAIL_LINES = 15


class ListenerError(Exception):
    """It did not start or stop, or ended unbidden; the message holds its last words."""


class Listener:
    """One such process, as an async context manager; leaving it kills what still runs.

    Attributes:
        address: HOST:PORT where it listens, once entered.
    """

    def __init__(self, name: str, command: tuple[str, ...], ready: re.Pattern[str]) -> None:
        """Prepare to run a command; the first group of what it says, once ready, is its address."""
        self.address = ""
        self._name = name
        self._command = command
        self._ready = ready
        self._process: asyncio.subprocess.Process | None = None
        self._drain: asyncio.Task[None] | None = None
        self._said: deque[str] = deque(maxlen=_TAIL_LINES)

    async def __aenter__(self) -> Self:
        """Start it and wait until it listens.

        Raises:
            ListenerError: it ended, or was not ready in time.
        """
        self._process = await start_child(
            *self._command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            self.address = await asyncio.wait_for(self._wait_until_ready(), _PATIENCE)
        except TimeoutError:
            await self._clean_up()
            raise self._error(f"was not ready within {_PATIENCE} s") from None
        except BaseException:
            await self._clean_up()
            raise
        self._drain = asyncio.create_task(self._read_on())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Kill it, if it still runs."""
        await self._clean_up()

    async def stop(self) -> None:
        """Ask it to end, and wait until it has.

        Raises:
            ListenerError: it did not in time.
        """
        try:
            await end_child(self._running(), _PATIENCE)
        except TimeoutError:
            raise self._error(f"did not stop within {_PATIENCE} s of SIGTERM") from None

    async def ended(self) -> None:
        """Wait until it ends, which it should not.

        Raises:
            ListenerError: it has.
        """
        raise self._error(f"ended: {how_ended(await self._running().wait())}")

    async def _wait_until_ready(self) -> str:
        said = ""
        while line := await self._read_line():
            said += line
            if found := self._ready.search(said):
                return found[1]
        raise self._error(f"did not start: {how_ended(await self._running().wait())}")

    async def _read_on(self) -> None:
        # A full pipe would stop it.
        while await self._read_line():
            pass

    async def _read_line(self) -> str:
        stderr = self._running().stderr
        if stderr is None:
            raise RuntimeError(f"{self._name}'s standard error is not ours")
        line = (await stderr.readline()).decode(errors="replace")
        self._said.append(line)
        return line

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError(f"{self._name} was not started")
        return self._process

    def _error(self, what: str) -> ListenerError:
        return ListenerError(f"{self._name} {what}\n{''.join(self._said).strip()}")

    async def _clean_up(self) -> None:
        process = self._running()
        kill_child(process)
        await process.wait()
        if self._drain is not None:
            self._drain.cancel()
