"""What a service's processes use, sampled while a load runs: memory, descriptors, threads, CPU."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from connect_loadgen.service.cost import MetricsError, scrape

__all__ = ["ProcessSample", "Sampler", "cpu_seconds_of", "sample_process"]

_CPU = "process_cpu_seconds_total"
_RSS = "process_resident_memory_bytes"
_DESCRIPTORS = "process_open_fds"
_THREADS = "process_threads"


@dataclass(frozen=True, slots=True)
class ProcessSample:
    """One moment of a service, all its processes together."""

    at: float
    """Seconds of the monotonic clock."""
    rss_bytes: int
    descriptors: int
    threads: int
    cpu_seconds: float
    """Since it began."""


async def sample_process(metrics_address: str) -> ProcessSample:
    """Ask a service what it uses.

    Args:
        metrics_address: HOST:PORT of its metrics.

    Raises:
        MetricsError: it does not tell.
    """
    found = await _ask(metrics_address, _RSS, _DESCRIPTORS, _THREADS, _CPU)
    return ProcessSample(
        at=time.monotonic(),
        rss_bytes=int(found[_RSS]),
        descriptors=int(found[_DESCRIPTORS]),
        threads=int(found[_THREADS]),
        cpu_seconds=found[_CPU],
    )


async def cpu_seconds_of(metrics_address: str) -> float:
    """Return the CPU time that a service has used since it began.

    Args:
        metrics_address: HOST:PORT of its metrics.

    Raises:
        MetricsError: it does not tell.
    """
    return (await _ask(metrics_address, _CPU))[_CPU]


async def _ask(metrics_address: str, *names: str) -> dict[str, float]:
    found = await scrape(metrics_address, names)
    if missing := [name for name in names if name not in found]:
        raise MetricsError(f"the service's metrics lack {', '.join(missing)}")
    return found


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
