"""Calls of libc that fail below the journal, one after the other: what the error loop found."""

from typing import Any

import pytest

from tests.faults.conftest import THOROUGH, UnderShim
from tests.faults.shim import FAULTS
from tests.support.compiler import needs_compiler

pytestmark = [needs_compiler, pytest.mark.timeout(3_600 if THOROUGH else 600)]


@pytest.fixture(scope="module")
def figures(under_shim: UnderShim) -> dict[str, Any]:
    return under_shim("tests.faults.error_loop", 1 if THOROUGH else 17)


def test_calls_of_every_kind_reach_the_journal_and_fail(figures: dict[str, Any]) -> None:
    assert set(figures["runs"]) == {fault.name for fault in FAULTS}
    assert figures["injected"] > 1_000


def test_nothing_acknowledged_is_lost_and_the_journal_recovers(figures: dict[str, Any]) -> None:
    assert figures["wrong"] == []


def test_no_commit_is_acknowledged_whose_sync_failed(figures: dict[str, Any]) -> None:
    assert figures["silent"] == []


def test_a_short_write_or_read_is_not_even_noticed(figures: dict[str, Any]) -> None:
    assert figures["reported"]["a write is short"] == figures["reported"]["a read is short"] == 0


def test_every_other_write_that_fails_is_reported(figures: dict[str, Any]) -> None:
    for name in ("a write fails", "a write finds the disk full", "a write is torn, then fails"):
        # Clean-up at closing may fail unseen: what it would have moved stays in the WAL.
        assert figures["reported"][name] >= 0.9 * figures["runs"][name]


def test_a_failing_disk_is_reported_as_that_and_as_nothing_else(figures: dict[str, Any]) -> None:
    assert figures["misnamed"] == []
