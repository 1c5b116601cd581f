"""What a crash could leave on the disk, recovered: what the simulated disk found."""

from typing import Any

import pytest

from tests.faults.conftest import SEED, THOROUGH, UnderShim
from tests.faults.disk import Disk, Operation
from tests.support.compiler import needs_compiler

pytestmark = pytest.mark.timeout(3_600 if THOROUGH else 600)


def try_out(under_shim: UnderShim, **plan: object) -> dict[str, Any]:
    return under_shim("tests.faults.power_loss", {"seed": SEED, **plan})


@needs_compiler
def test_whatever_a_crash_leaves_is_recovered_to_what_was_acknowledged(
    under_shim: UnderShim,
) -> None:
    figures = try_out(under_shim, random_images=60 if THOROUGH else 4, again=20 if THOROUGH else 50)
    assert figures["wrong"] == []
    assert figures["images"] > 500
    assert figures["cut_off_again"] > 100


@needs_compiler
def test_nothing_is_lost_after_failed_syncs_whose_pages_are_lost(under_shim: UnderShim) -> None:
    figures = try_out(
        under_shim,
        random_images=1 if THOROUGH else 0,
        again=100 if THOROUGH else 200,
        failed_syncs=2 if THOROUGH else 9,
    )
    assert figures["syncs_failed"] > 5
    assert figures["wrong"] == []


@needs_compiler
def test_a_disk_that_lies_about_syncs_is_found_out(under_shim: UnderShim) -> None:
    figures = try_out(under_shim, random_images=0, again=1_000_000, deaf=True)
    assert any("acknowledged were" in wrong for wrong in figures["wrong"])


# --- The simulated disk itself --------------------------------------------------------------------


def disk_after(*operations: Operation) -> Disk:
    disk = Disk(base={"a": b"old"})
    for operation in operations:
        disk.apply(operation)
    return disk


WRITE = Operation("W", "/a", 0, b"new, and longer")
SYNC = Operation("S", "/a")
FAILED = Operation("F", "/a")


def test_what_no_sync_has_written_may_be_lost_or_kept() -> None:
    disk = disk_after(WRITE)
    assert disk.image({}) == {"a": b"old"}
    assert disk.image({0: -1}) == {"a": b"new, and longer"}
    assert disk.image({}, b"\0") == {"a": b"old".ljust(15, b"\0")}
    assert disk_after(WRITE, SYNC).image({}) == {"a": b"new, and longer"}


def test_a_write_is_torn_between_sectors() -> None:
    disk = disk_after(Operation("W", "/a", 0, b"x" * 600))
    assert disk.image({0: 0b01}) == {"a": b"x" * 512}
    assert disk.image({0: 0b10}) == {"a": b"old".ljust(512, b"\0") + b"x" * 88}


def test_a_later_sync_does_not_write_what_a_failed_one_has_given_up() -> None:
    assert disk_after(WRITE, FAILED, SYNC).image({}) == {"a": b"old"}
    beside = Operation("W", "/a", 4_096, b"y")
    assert disk_after(WRITE, FAILED, beside, SYNC).image({})["a"].startswith(b"old")
    again = Operation("W", "/a", 20, b"y")
    assert disk_after(WRITE, FAILED, again, SYNC).image({})["a"].startswith(b"new, and longer")


def test_a_name_is_durable_once_its_directory_is_synced() -> None:
    made = (Operation("C", "/b"), Operation("W", "/b", 0, b"1"), Operation("S", "/b"))
    assert disk_after(*made).image({}) == {"a": b"old"}
    assert disk_after(*made, Operation("S", "/")).image({}) == {"a": b"old", "b": b"1"}
    gone = (Operation("U", "/a"),)
    assert disk_after(*gone).image({}) == {"a": b"old"}
    assert disk_after(*gone, Operation("S", "/")).image({}) == {}


def test_a_rename_is_lost_or_kept_whole() -> None:
    made = (Operation("C", "/b"), Operation("W", "/b", 0, b"1"), Operation("S", "/b"))
    disk = disk_after(*made, Operation("S", "/"), Operation("R", "/b", 0, b"/a"))
    (rename,) = disk.loose
    assert disk.image({}) == {"a": b"old", "b": b"1"}
    assert disk.image({rename: -1}) == {"a": b"1"}
