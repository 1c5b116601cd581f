"""Whether the generator kept up: a figure that the generator set says nothing about the service."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from connect_loadgen.drive.figures import Generator, Latency
from connect_loadgen.drive.recording import Histogram, Recorder

__all__ = ["TOLERATED_LATENESS", "SelfCheck", "verdict_on", "warnings_about"]

TOLERATED_LATENESS = 0.02
"""Share of the sends of a long load that the generator may skip because it was late itself."""

# A sample of the event loop's lag every so often costs nothing that could be measured.
_SAMPLE_EVERY = 0.01

# Nearer to a whole core than this, waiting for the generator's turn shows in every latency.
_BUSY_CPU_SHARE = 0.85

# Sends later than this shift the load that was asked for. Timers alone account for 1 to 2 ms.
_LATE_SEND_MICROSECONDS = 5_000


class SelfCheck:
    """Measures this process while it is entered, as an async context manager."""

    def __init__(self, now: Callable[[], int] = time.perf_counter_ns) -> None:
        self._now = now
        self._lag = Histogram()
        self._recent_lag = Histogram()
        self._task: asyncio.Task[None] | None = None
        self._began_at = self._cpu_began_at = 0
        self._elapsed = self._cpu = 0

    async def __aenter__(self) -> Self:
        """Begin to measure."""
        self._began_at, self._cpu_began_at = self._now(), time.process_time_ns()
        self._task = asyncio.create_task(self._sample_lag())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop measuring."""
        self._elapsed = self._now() - self._began_at
        self._cpu = time.process_time_ns() - self._cpu_began_at
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    @property
    def cpu_share(self) -> float:
        """CPU seconds per second while it was measured."""
        return self._cpu / self._elapsed

    @property
    def loop_lag(self) -> Latency | None:
        """How late the event loop woke up."""
        return self._lag.summary()

    def take_recent_lag(self) -> Latency | None:
        """Return how late the event loop woke up since this was last asked for."""
        recent, self._recent_lag = self._recent_lag, Histogram()
        return recent.summary()

    def verdict(self, recorder: Recorder, service_cpu_share: float | None) -> Generator:
        """Return how the generator fared, once it was measured.

        Args:
            recorder: of the phase that was measured.
            service_cpu_share: CPU seconds per second of the service meanwhile, if known.
        """
        return verdict_on(
            self.cpu_share,
            self.loop_lag,
            recorder.send_lag.summary(),
            recorder.skipped_late,
            service_cpu_share,
        )

    async def _sample_lag(self) -> None:
        while True:
            due = self._now() + int(_SAMPLE_EVERY * 1e9)
            await asyncio.sleep(_SAMPLE_EVERY)
            late = self._now() - due
            self._lag.record(late)
            self._recent_lag.record(late)


def verdict_on(
    cpu_share: float,
    loop_lag: Latency | None,
    send_lag: Latency | None,
    skipped_late: int,
    service_cpu_share: float | None,
) -> Generator:
    """Return how a generator fared that is known to have done so."""
    warnings = warnings_about(
        cpu_share=cpu_share,
        service_cpu_share=service_cpu_share,
        send_lag_p99_us=None if send_lag is None else send_lag.p99_us,
        skipped_late=skipped_late,
    )
    return Generator(
        cpu_share=cpu_share,
        loop_lag=loop_lag,
        send_lag=send_lag,
        warnings=warnings,
    )


def warnings_about(
    *,
    cpu_share: float,
    service_cpu_share: float | None,
    send_lag_p99_us: int | None,
    skipped_late: int,
) -> list[str]:
    """Return why the generator may have set the figures, in sentences; none if nothing says so."""
    warnings = []
    if cpu_share >= _BUSY_CPU_SHARE and (
        service_cpu_share is None or service_cpu_share < _BUSY_CPU_SHARE
    ):
        service = "" if service_cpu_share is None else f", the service {service_cpu_share:.0%}"
        warnings.append(
            f"the generator used {cpu_share:.0%} of a core{service}:"
            " it, not the service, may have been the limit"
        )
    if send_lag_p99_us is not None and send_lag_p99_us > _LATE_SEND_MICROSECONDS:
        warnings.append(
            f"1 % of the sends were {send_lag_p99_us / 1000:.1f} ms late or more:"
            " the generator could not keep the rate evenly"
        )
    if skipped_late:
        warnings.append(
            f"{skipped_late} sends were skipped because the generator itself was late:"
            " the intended rate was not put on the service"
        )
    return warnings
