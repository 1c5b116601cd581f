"""What a process holds, sampled while a load runs: memory, descriptors, threads, CPU."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import psutil

from loadgen.service_cost import MetricsError

__all__ = ["ProcessSample", "Sampler", "family_cpu_seconds", "sample_process"]


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """One moment of a process."""

    at: float
    """Seconds of the monotonic clock."""
    rss_bytes: int
    descriptors: int
    threads: int
    cpu_seconds: float
    """Since the process began."""


def sample_process(pid: int) -> ProcessSample:
    """Look at a process.

    Raises:
        MetricsError: it can't be read.
    """
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return ProcessSample(
                at=time.monotonic(),
                rss_bytes=process.memory_info().rss,
                descriptors=process.num_fds(),
                threads=process.num_threads(),
                cpu_seconds=times.user + times.system,
            )
    except psutil.Error as error:
        raise MetricsError(f"the service's process can't be read: {error}") from None


def family_cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and of all that it has started and that still run.

    Raises:
        MetricsError: it can't be read.
    """
    try:
        process = psutil.Process(pid)
        times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    except psutil.Error as error:
        raise MetricsError(f"the service's process can't be read: {error}") from None
    return sum(each.user + each.system for each in times)


class Sampler:
    """Calls something every so often while it is entered, as an async context manager."""

    def __init__(self, every: float, look: Callable[[], Awaitable[None]]) -> None:
        """Prepare to call ``look`` every so many seconds."""
        self._every = every
        self._look = look
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin."""
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop; what a look has raised is raised here, unless something else is."""
        if self._task is None:
            return
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            try:
                await self._task
            except MetricsError:
                if error is None:
                    raise

    async def _run(self) -> None:
        while True:
            await self._look()
            await asyncio.sleep(self._every)
