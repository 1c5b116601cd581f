"""The allocation probe: how often, and for how many bytes, Python's allocators are asked.

The counting is done by ``_allocation_hook.c``, which states its rules; it is built where there is a
C compiler. Gross figures: they only ever grow, whatever is freed. They hold what Python code and
extensions ask of Python's own allocators, not what native libraries (gRPC's core, OpenSSL, SQLite)
take from the native heap.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import NamedTuple

_hook: ModuleType | None
try:
    from connect_actor.observe import _allocation_hook as _hook
except ImportError:  # not built: no compiler, or another interpreter
    _hook = None

__all__ = ["DOMAINS", "HOOK_SOURCE", "NO_SOURCE", "AllocationProbe", "DomainCount", "by_domain"]

DOMAINS = ("raw", "mem", "obj")
"""Python's allocator domains, in the hook's order."""

HOOK_SOURCE = "pymem_hook"
NO_SOURCE = "none"


class DomainCount(NamedTuple):
    """What one domain was asked for."""

    allocations: int
    bytes: int


class AllocationProbe:
    """The hook of this process; it counts from the first ``install`` on, for good."""

    def __init__(self, read_into: "Callable[[array[int]], None]") -> None:
        """Read with the hook's own function: see ``read_into``."""
        self.read_into = read_into
        """Writes the counts into what ``new_reading`` made; this allocates nothing itself."""

    @classmethod
    def install(cls) -> "AllocationProbe | None":
        """Begin to count, or return None where the hook is not built.

        To be called early: what was allocated before is not counted.
        """
        if _hook is None:
            return None
        _hook.install()
        return cls(_hook.read_into)

    def counts(self) -> Mapping[str, DomainCount]:
        """Return the counts since the hook was installed, by domain."""
        reading = self.new_reading()
        self.read_into(reading)
        return by_domain(reading)

    @staticmethod
    def new_reading() -> "array[int]":
        """Return an array for ``read_into``."""
        return array("Q", bytes(8 * 2 * len(DOMAINS)))


def by_domain(reading: Sequence[int]) -> Mapping[str, DomainCount]:
    """Return a reading, or the difference of two, by domain."""
    return {
        domain: DomainCount(reading[2 * position], reading[2 * position + 1])
        for position, domain in enumerate(DOMAINS)
    }
