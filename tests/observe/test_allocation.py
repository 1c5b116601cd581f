"""The counting hook against requests whose number and sizes are known."""

import subprocess
import sys
import threading
from array import array
from collections.abc import Callable

import pytest

from connect_actor.observe.allocation import AllocationProbe, DomainCount, by_domain
from tests.support.compiler import needs_hook
from tests.support.process import PATIENCE

pytestmark = needs_hook

OBJECT_HEADER = sys.getsizeof(b"")


@pytest.fixture(scope="module")
def probe() -> AllocationProbe:
    probe = AllocationProbe.install()
    assert probe is not None, "make setup builds the hook wherever there is a C compiler"
    return probe


def counted(probe: AllocationProbe, work: Callable[[], object]) -> dict[str, DomainCount]:
    before, after = probe.new_reading(), probe.new_reading()
    work()
    probe.read_into(before)
    result = work()
    probe.read_into(after)
    del result
    grown = array("Q", (late - early for early, late in zip(before, after, strict=True)))
    return {domain: count for domain, count in by_domain(grown).items() if count != (0, 0)}


def test_reading_the_counts_allocates_nothing(probe: AllocationProbe) -> None:
    assert counted(probe, lambda: None) == {}


# From 512 bytes on pymalloc passes a request on to the raw domain.
@pytest.mark.parametrize("size", [10, 512 - OBJECT_HEADER, 513 - OBJECT_HEADER, 1_000, 10_000_000])
def test_a_bytes_object_is_one_block_of_its_size(probe: AllocationProbe, size: int) -> None:
    assert counted(probe, lambda: bytes(size)) == {"obj": (1, OBJECT_HEADER + size)}


def test_what_is_joined_from_parts_counts_once(probe: AllocationProbe) -> None:
    parts = [b"x" * 1_000] * 3
    assert counted(probe, lambda: b"".join(parts)) == {"obj": (1, OBJECT_HEADER + 3_000)}


def test_the_items_of_a_list_are_a_block_in_mem(probe: AllocationProbe) -> None:
    # The list itself comes from the interpreter's free list: no allocation.
    one = [None]
    assert counted(probe, lambda: one * 100) == {"mem": (1, 800)}


def test_a_reallocation_counts_as_a_block_of_its_whole_new_size(probe: AllocationProbe) -> None:
    def grow() -> bytearray:
        buffer = bytearray(1_000)
        buffer.extend(block)
        return buffer

    block = bytes(10_000)
    once = counted(probe, lambda: bytearray(1_000))
    grown = counted(probe, grow)
    assert sum(count.allocations for count in grown.values()) == 1 + sum(
        count.allocations for count in once.values()
    )
    more = sum(count.bytes for count in grown.values()) - sum(
        count.bytes for count in once.values()
    )
    assert 11_000 < more < 13_000


def test_freeing_takes_nothing_back(probe: AllocationProbe) -> None:
    def allocate_and_free() -> None:
        bytes(1_000)
        bytes(2_000)
        bytes(3_000)

    assert counted(probe, allocate_and_free) == {"obj": (3, 3 * OBJECT_HEADER + 6_000)}


def test_a_request_that_fails_counts_nothing(probe: AllocationProbe) -> None:
    def ask_for_too_much() -> None:
        try:
            bytes(1 << 60)
        except MemoryError:
            return
        raise AssertionError("this machine has an exbibyte")

    grown = counted(probe, ask_for_too_much)
    assert sum(count.bytes for count in grown.values()) < 1_000


def test_threads_at_once_lose_no_count(probe: AllocationProbe) -> None:
    threads, blocks = 4, 20_000

    def allocate() -> None:
        start.wait()
        for _ in range(blocks):
            bytes(200)

    def run() -> None:
        started = [threading.Thread(target=allocate) for _ in range(threads)]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()

    start = threading.Barrier(threads)
    grown = counted(probe, run)
    asked_for = threads * blocks * (OBJECT_HEADER + 200)
    # Above it only what threads themselves and the loop's numbers take.
    assert asked_for <= grown["obj"].bytes < asked_for + threads * blocks * 32 + 100_000


def test_installing_again_counts_nothing_twice(probe: AllocationProbe) -> None:
    again = AllocationProbe.install()
    assert again is not None
    assert counted(again, lambda: bytes(500)) == {"obj": (1, OBJECT_HEADER + 500)}
    assert counted(probe, lambda: bytes(500)) == {"obj": (1, OBJECT_HEADER + 500)}


def test_a_reading_of_another_size_is_refused(probe: AllocationProbe) -> None:
    with pytest.raises(ValueError, match="six"):
        probe.read_into(array("Q", bytes(8)))


def run_python(code: str, **environment: str) -> str:
    return subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    ).stdout


IN_A_PROCESS_OF_ITS_OWN = """
from array import array
from connect_actor.observe.allocation import AllocationProbe
probe = AllocationProbe.install()
before, after = probe.new_reading(), probe.new_reading()
probe.read_into(before)
bytes(10); bytes(300); bytes(450); bytes(512); bytes(600); bytes(5000)
probe.read_into(after)
print([late - early for early, late in zip(before, after)])
"""


@pytest.mark.parametrize("allocator", ["pymalloc", "pymalloc_debug", "malloc", "malloc_debug"])
def test_every_allocator_behind_the_hook_is_counted_alike(allocator: str) -> None:
    printed = run_python(IN_A_PROCESS_OF_ITS_OWN, PYTHONMALLOC=allocator)
    asked_for = 10 + 300 + 450 + 512 + 600 + 5_000 + 6 * OBJECT_HEADER
    assert printed == f"[0, 0, 0, 0, 6, {asked_for}]\n"


def test_it_bears_other_tools_coming_and_going_over_it() -> None:
    printed = run_python(
        "import tracemalloc\n"
        "from connect_actor.observe.allocation import AllocationProbe\n"
        "probe = AllocationProbe.install()\n"
        "tracemalloc.start()\n"
        "kept = [bytes(1000) for _ in range(100)]\n"
        "tracemalloc.stop()\n"
        "before = probe.counts()['obj'].allocations\n"
        "kept += [bytes(1000) for _ in range(100)]\n"
        "print(probe.counts()['obj'].allocations - before >= 100)\n"
    )
    assert printed == "True\n"


def test_without_the_extension_there_is_no_probe() -> None:
    printed = run_python(
        "import sys\n"
        "sys.modules['connect_actor.observe._allocation_hook'] = None\n"
        "from connect_actor.observe.allocation import AllocationProbe\n"
        "print(AllocationProbe.install())\n"
    )
    assert printed == "None\n"
