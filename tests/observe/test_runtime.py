"""Runtime metrics: collections, lateness of the loop, blocks and allocation."""

import asyncio
import gc
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from connect_actor.observe import loop_lag
from connect_actor.observe.allocation import AllocationProbe
from connect_actor.observe.gc_pauses import GcPauses
from connect_actor.observe.loop_lag import SAMPLE_SECONDS, LoopLag
from connect_actor.observe.runtime import Probes
from connect_actor.protocol import message_step
from tests.support.compiler import needs_hook, needs_native_step
from tests.support.house import House
from tests.support.meter import Meter
from tests.support.process import PATIENCE


@pytest.fixture
def pauses() -> Iterator[GcPauses]:
    """Have a probe, and no collections but the test's own."""
    probe = GcPauses()
    gc.disable()
    probe.install()
    yield probe
    probe.remove()
    gc.enable()


def counts(pauses: GcPauses) -> list[int]:
    return [pauses.by_generation[generation].count for generation in range(3)]


def test_each_collection_counts_as_a_pause_of_its_generation(pauses: GcPauses) -> None:
    gc.collect(0)
    gc.collect(1)
    gc.collect(1)
    gc.collect()
    assert counts(pauses) == [1, 2, 1]
    assert pauses.by_generation[2].total > 0


def test_a_removed_probe_counts_no_more() -> None:
    probe = GcPauses()
    probe.install()
    probe.remove()
    gc.collect()
    assert counts(probe) == [0, 0, 0]


async def test_pauses_are_told_by_generation(house: House, pauses: GcPauses) -> None:
    loop = asyncio.get_running_loop()
    meter = Meter.of(house, probes=Probes(None, pauses, LoopLag(loop)))
    gc.collect()
    assert meter.grown("connect_gc_pause_seconds_count", generation="2") == 1
    assert meter.grown("connect_gc_pause_seconds_count", generation="0") == 0


class Timers:
    """As much of an event loop as a sampler uses, and a clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waiting: list[tuple[float, Callable[[], object]]] = []

    def call_later(self, delay: float, callback: Callable[[], object]) -> "Timers":
        self.waiting.append((delay, callback))
        return self

    def cancel(self) -> None:
        self.waiting.clear()

    def wake_after(self, seconds: float) -> None:
        (_, callback), self.waiting = self.waiting[0], self.waiting[1:]
        self.now += seconds
        callback()


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Timers:
    timers = Timers()
    monkeypatch.setattr(loop_lag, "perf_counter", lambda: timers.now)
    return timers


def sampler(timers: Timers) -> LoopLag:
    return LoopLag(cast("asyncio.AbstractEventLoop", timers))


def test_lag_is_by_how_much_a_wake_up_is_late(timers: Timers) -> None:
    probe = sampler(timers)
    probe.start()
    timers.wake_after(SAMPLE_SECONDS + 0.02)
    timers.wake_after(SAMPLE_SECONDS + 0.04)
    assert probe.lag.count == 2
    assert probe.lag.total == pytest.approx(0.06)
    assert [delay for delay, _ in timers.waiting] == [SAMPLE_SECONDS]


def test_a_wake_up_that_is_early_is_on_time(timers: Timers) -> None:
    probe = sampler(timers)
    probe.start()
    timers.wake_after(SAMPLE_SECONDS - 0.001)
    assert (probe.lag.count, probe.lag.total) == (1, 0)


def test_a_stopped_sampler_asks_for_no_wake_up(timers: Timers) -> None:
    probe = sampler(timers)
    probe.start()
    probe.stop()
    assert timers.waiting == []


async def test_the_probes_of_a_service_sample_its_loop_and_stop(house: House) -> None:
    before = list(gc.callbacks)
    probes = Probes.start(asyncio.get_running_loop())
    meter = Meter.of(house, probes=probes)
    async with asyncio.timeout(PATIENCE):
        while meter.grown("connect_event_loop_lag_seconds_count") < 2:  # noqa: ASYNC110 - no event
            await asyncio.sleep(SAMPLE_SECONDS / 4)
    probes.stop()
    assert gc.callbacks == before


async def test_blocks_alive_are_told(house: House) -> None:
    meter = Meter.of(house)
    kept = [object() for _ in range(50_000)]
    assert 49_000 < meter.grown("connect_allocated_blocks") < 60_000
    del kept


@needs_hook
async def test_allocation_is_told_by_domain_and_with_its_source(house: House) -> None:
    probe = AllocationProbe.install()
    assert probe is not None
    loop = asyncio.get_running_loop()
    meter = Meter.of(house, probes=Probes(probe, GcPauses(), LoopLag(loop)))
    assert meter.value("connect_allocation_probe_info", source="pymem_hook") == 1
    before = meter.value("connect_allocated_bytes_total", domain="obj")
    allocations = meter.value("connect_allocations_total", domain="obj")
    kept = [bytes(1 << 20) for _ in range(20)]
    assert meter.value("connect_allocated_bytes_total", domain="obj") - before >= 20 << 20
    assert meter.value("connect_allocations_total", domain="obj") - allocations >= 20
    assert {key for (key,) in meter.all_grown("connect_allocated_bytes_total")} <= {
        "raw",
        "mem",
        "obj",
    }
    del kept


async def test_without_the_hook_allocation_is_absent_and_said_to_be(house: House) -> None:
    meter = Meter.of(house)
    assert meter.value("connect_allocation_probe_info", source="none") == 1
    with pytest.raises(KeyError):
        meter.value("connect_allocated_bytes_total", domain="obj")
    with pytest.raises(KeyError):
        meter.value("connect_allocations_total", domain="obj")


@pytest.mark.parametrize(
    ("native", "implementation"),
    [(False, "python"), pytest.param(True, "native", marks=needs_native_step)],
)
async def test_what_does_the_cryptography_of_a_message_is_told(
    house: House,
    native: bool,  # noqa: FBT001
    implementation: str,
) -> None:
    message_step.use(native=native)
    try:
        meter = Meter.of(house)
        assert meter.value("connect_message_step_info", implementation=implementation) == 1
    finally:
        message_step.use(native=True)
