"""Bytes and blocks for each call, against calls whose needs are known."""

import gc
import sys

import pytest

from connect_loadgen.probes import allocation
from connect_loadgen.probes.allocation import AllocationUnavailableError, measure, measure_each
from tests.support.compiler import needs_hook

pytestmark = needs_hook

EMPTY = sys.getsizeof(b"")


def test_a_call_that_allocates_nothing_costs_nothing() -> None:
    found = measure(lambda: None)
    assert (found.bytes_per_call, found.blocks_per_call) == (0, 0)


def test_a_block_of_a_known_size_is_found_exactly() -> None:
    found = measure(lambda: bytes(1_000))
    assert (found.bytes_per_call, found.blocks_per_call) == (EMPTY + 1_000, 1)
    assert found.bytes_by_domain == {"raw": 0, "mem": 0, "obj": EMPTY + 1_000}
    assert found.blocks_by_domain == {"raw": 0, "mem": 0, "obj": 1}


def test_calls_that_differ_give_their_mean() -> None:
    sizes = iter([1_000, 2_000] * 30)
    found = measure(lambda: bytes(next(sizes)), calls=50, warm_up=10)
    assert found.bytes_per_call == EMPTY + 1_500
    assert next(sizes, None) is None


def test_what_is_prepared_for_a_call_is_not_the_calls() -> None:
    found = measure_each(lambda: bytes(100_000), lambda prepared: prepared[:1_000])
    assert (found.bytes_per_call, found.blocks_per_call) == (EMPTY + 1_000, 1)


def test_a_figure_names_its_domain_and_its_source() -> None:
    found = measure(lambda: None)
    assert found.domain == "Python's allocators (raw + mem + obj)"
    assert found.source == "pymem_hook"


def test_the_collector_is_left_as_it_was_found() -> None:
    measure(lambda: None)
    assert gc.isenabled()
    gc.disable()
    try:
        measure(lambda: None)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_without_the_hook_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unbuilt:
        @staticmethod
        def install() -> None:
            return None

    monkeypatch.setattr(allocation, "AllocationProbe", Unbuilt)
    with pytest.raises(AllocationUnavailableError, match="make setup"):
        measure(lambda: None)
