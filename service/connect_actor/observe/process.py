"""What this process uses, told by itself.

Nothing else may tell: of a process that forbids dumps (``process.hardening``) the kernel
shows ``/proc/PID/io`` and ``/proc/PID/fd`` to root alone, and the process itself can't open the
former either. Resource usage (``getrusage``) is open to it at any time and holds the same counters.
"""

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector

__all__ = ["DiskBytes", "OwnProcess", "disk_bytes"]

_CPU = "process_cpu_seconds"
_STATUS = Path("/proc/self/status")
# The kernel accounts for storage only if it is built to; then there is this file. That it can't be
# opened is of no matter.
_ACCOUNTED = Path("/proc/self/io")
# Of ``ru_inblock`` and ``ru_oublock``, whatever the file system's are.
_BLOCK_BYTES = 512


class OwnProcess(ProcessCollector):
    """The ``process_`` metrics, with CPU time to the microsecond, peak memory and threads.

    The library's own figure of CPU time comes in clock ticks of 10 ms: too coarse for a few
    messages.
    """

    def collect(self) -> Iterator[Metric]:
        """Yield one family for each metric."""
        for family in super().collect():
            if family.name != _CPU:
                yield family
        yield CounterMetricFamily(
            _CPU, "Total user and system CPU time spent in seconds.", value=time.process_time()
        )
        yield from _memory_and_threads()

    def describe(self) -> Iterator[Metric]:
        """Yield the same, so that a scrape can ask for these alone by name."""
        return self.collect()


def _memory_and_threads() -> Iterator[Metric]:
    try:
        status = _STATUS.read_text()
    except OSError:  # no Linux
        return
    fields = dict(line.partition(":")[::2] for line in status.splitlines())
    yield GaugeMetricFamily(
        "process_resident_memory_peak_bytes",
        "Largest resident memory size so far in bytes.",
        value=int(fields["VmHWM"].split()[0]) * 1024,
    )
    yield GaugeMetricFamily("process_threads", "Number of threads.", value=int(fields["Threads"]))


class DiskBytes(NamedTuple):
    """What this process caused to be read from storage and written to it, since it began."""

    read: int
    written: int


def disk_bytes() -> DiskBytes | None:
    """Return ``read_bytes`` and ``write_bytes`` of /proc/self/io; None if they are not accounted.

    The kernel gives the same counters in resource usage, as blocks.
    """
    if not _ACCOUNTED.exists():
        return None
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return DiskBytes(usage.ru_inblock * _BLOCK_BYTES, usage.ru_oublock * _BLOCK_BYTES)
