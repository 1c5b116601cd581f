"""Bytes and blocks that a call allocates in Python's allocators, counted exactly.

Counted, not sampled: the same call gives the same figures on every machine with the same Python.
What is counted is what ``observe.allocation`` says. Each figure names its domains and its
source, since bytes of Python's allocators and bytes of the whole heap are different things.

Never in a process that measures throughput: warm-up, collections and the order of calls differ.
"""

import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from connect_actor.observe.allocation import DOMAINS, HOOK_SOURCE, AllocationProbe

__all__ = ["Allocation", "AllocationUnavailableError", "measure", "measure_each"]

_Input = TypeVar("_Input")


class AllocationUnavailableError(Exception):
    """Allocations can't be counted here: the hook is not built."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """What one call allocates: means over all calls that were counted."""

    bytes_per_call: float
    """Bytes asked for, in all domains."""
    blocks_per_call: float
    """Allocations, reallocations included, in all domains."""
    bytes_by_domain: Mapping[str, float]
    blocks_by_domain: Mapping[str, float]
    calls: int
    domain: str = f"Python's allocators ({' + '.join(DOMAINS)})"
    source: str = HOOK_SOURCE


def measure(call: Callable[[], object], calls: int = 1_000, warm_up: int = 100) -> Allocation:
    """Count what ``call`` allocates.

    What other threads of this process allocate meanwhile counts too: let there be none at work.

    Args:
        call: what to measure; made ``warm_up + calls`` times. Prepare its inputs beforehand.
        calls: how many calls are counted.
        warm_up: calls before, which fill caches and free lists.

    Raises:
        AllocationUnavailableError: the counting hook is not built.
    """
    return measure_each(lambda: None, lambda _: call(), calls, warm_up)


def measure_each(
    prepare: Callable[[], _Input],
    call: Callable[[_Input], object],
    calls: int = 1_000,
    warm_up: int = 100,
) -> Allocation:
    """Count what ``call`` allocates, and not what ``prepare`` does before each of its calls.

    Otherwise as ``measure``.

    Raises:
        AllocationUnavailableError: the counting hook is not built.
    """
    probe = AllocationProbe.install()
    if probe is None:
        raise AllocationUnavailableError(
            "the allocation hook is not built: install a C compiler and run make setup again"
        )
    before, after = probe.new_reading(), probe.new_reading()
    grown = [0] * len(before)
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        for _ in range(warm_up):
            call(prepare())
        for _ in range(calls):
            prepared = prepare()
            probe.read_into(before)
            call(prepared)
            probe.read_into(after)
            for position, (early, late) in enumerate(zip(before, after, strict=True)):
                grown[position] += late - early
    finally:
        if was_enabled:
            gc.enable()
    blocks = {domain: grown[2 * n] / calls for n, domain in enumerate(DOMAINS)}
    sizes = {domain: grown[2 * n + 1] / calls for n, domain in enumerate(DOMAINS)}
    return Allocation(
        bytes_per_call=sum(sizes.values()),
        blocks_per_call=sum(blocks.values()),
        bytes_by_domain=sizes,
        blocks_by_domain=blocks,
        calls=calls,
    )
