"""A program that we start and that says when it is ready: watched, stopped, killed; never left.

Its end is bound to ours in three ways: ``async with`` kills it on any way out, the command line
turns SIGINT and SIGTERM into such a way out, and should we be killed outright, the kernel kills it.
"""

import asyncio
import os
import subprocess
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from connect_loadgen.program.child import end_child, how_ended, kill_child, start_child

__all__ = ["ProgramError", "RunningProgram"]

# What a user needs to see of a log to know why it ended.
_TAIL_LINES = 15
_TAIL_BYTES = 16_384

# How long the kernel may take to report an end that has already broken a connection.
_MOMENT = 0.5

_Ready = TypeVar("_Ready")
_Result = TypeVar("_Result")


class ProgramError(Exception):
    """A program did not start, or ended when it should not have; the message holds its log."""


class RunningProgram(Generic[_Ready]):
    """One such program, as an async context manager; leaving it kills what still runs.

    Attributes:
        ready: what it said of itself, once entered.
        spawned: set once there is a process, ready or not.
    """

    ready: _Ready
    error: type[ProgramError] = ProgramError
    """What is raised."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        parse: Callable[[str], _Ready | None],
        patience: float,
        *,
        says_on_stderr: bool = False,
        ends_with: int = 0,
    ) -> None:
        """Prepare to start it.

        Args:
            name: how errors name it.
            command: the program and its arguments.
            parse: given all that it has said so far, returns what it says of itself once ready, and
                None before; raises ProgramError if this can't become that.
            patience: how long both start and stop may take, seconds.
            says_on_stderr: whether it says so on standard error, and not on standard output.
            ends_with: its exit code after SIGTERM, if it ends in order.
        """
        self.spawned = asyncio.Event()
        self._name = name
        self._command = command
        self._parse = parse
        self._patience = patience
        self._says_on_stderr = says_on_stderr
        self._ends_with = ends_with
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __aexit__
        self._stopping = False

    async def __aenter__(self) -> Self:
        """Start it and wait until it is ready.

        Raises:
            ProgramError: it ended, or was not ready in time.
        """
        stderr = subprocess.STDOUT if self._says_on_stderr else self._log
        try:
            self._process = await start_child(*self._command, stdout=subprocess.PIPE, stderr=stderr)
            self.spawned.set()
            self.ready = await self._wait_until_ready()
        except BaseException:
            await self._clean_up()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Kill what still runs."""
        await self._clean_up()

    async def stop(self) -> None:
        """Ask it to end, and wait until it has.

        Raises:
            ProgramError: it did not end in time, or not in order.
        """
        process = self._running()
        self._stopping = True
        try:
            code = await end_child(process, self._patience)
        except TimeoutError:
            raise self._error(f"did not stop within {self._patience:g} s of SIGTERM") from None
        if code != self._ends_with:
            raise self._error(f"did not stop in order: {how_ended(code)}")

    async def kill(self) -> None:
        """End it as a power cut would end its process: kill -9."""
        process = self._running()
        self._stopping = True
        kill_child(process)
        await process.wait()

    async def while_alive(self, work: Coroutine[None, None, _Result]) -> _Result:
        """Do ``work``, and give it up as soon as the program ends unbidden.

        Raises:
            ProgramError: it ended though nobody told it to.
        """
        body = asyncio.create_task(work)
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.wait({body, watch}, return_when=asyncio.FIRST_COMPLETED)
            if body.done() and not body.cancelled() and body.exception() is not None:
                # A service that dies takes its connections down first; its end is the better news.
                await asyncio.wait({watch}, timeout=_MOMENT)
            if watch.done():
                watch.result()
            return await body
        finally:
            body.cancel()
            watch.cancel()
            await asyncio.gather(body, watch, return_exceptions=True)

    async def _watch(self) -> None:
        code = await self._running().wait()
        if not self._stopping:
            raise self._error(f"died: {how_ended(code)}")

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError(f"{self._name} was not started")
        return self._process

    async def _wait_until_ready(self) -> _Ready:
        process, said = self._running(), ""
        output = process.stdout
        if output is None:
            raise RuntimeError(f"the standard output of {self._name} is not ours")
        try:
            async with asyncio.timeout(self._patience):
                while line := await output.readline():
                    self._keep(line)
                    said += line.decode(errors="replace")
                    if (ready := self._parse(said)) is not None:
                        self._reader = asyncio.create_task(self._read_on(output))
                        return ready
        except ValueError:
            # More than the stream's limit without an end of line.
            raise self.error(f"{self._name} said something else than that it is ready") from None
        except TimeoutError:
            raise self._error(f"was not ready within {self._patience:g} s") from None
        raise self._error(f"did not start: {how_ended(await process.wait())}")

    async def _read_on(self, output: asyncio.StreamReader) -> None:
        # Unread, a full pipe would stop it at its next print.
        while said := await output.read(_TAIL_BYTES):
            self._keep(said)

    def _keep(self, said: bytes) -> None:
        if self._says_on_stderr:
            self._log.write(said)

    async def _clean_up(self) -> None:
        process = self._process
        if process is not None:
            self._stopping = True
            kill_child(process)
            await process.wait()
        if self._reader is not None:
            self._reader.cancel()
        self._log.close()

    def _error(self, what: str) -> ProgramError:
        return self.error(f"{self._name} {what}\n{self._tail()}")

    def _tail(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(size - _TAIL_BYTES, 0))
        lines = self._log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        if not lines:
            return "(it wrote nothing to its standard error)"
        return "end of its standard error:\n" + "\n".join(f"  {line}" for line in lines)
