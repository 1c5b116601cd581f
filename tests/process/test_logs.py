"""The log as operators get it."""

import json
import logging

import pytest

from connect_actor.observe import logs
from connect_actor.observe.logs import Flood, configure_logging

BURST = 64


def record(message: str = "failed", line: int = 1, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord("service", level, "file.py", line, message, (), None)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the time, to be set."""
    times = [1_000.0]
    monkeypatch.setattr(logs, "monotonic", lambda: times[0])
    return times


def test_of_a_flood_of_lines_from_one_place_a_burst_is_written_and_the_others_are_counted(
    now: list[float],
) -> None:
    flood = Flood()
    # Whatever they say: a caller may have put it there.
    written = [flood.filter(record(f"failed {number}")) for number in range(10_000)]
    assert written == [True] * BURST + [False] * (10_000 - BURST)
    assert flood.suppressed == 10_000 - BURST
    assert flood.filter(record("elsewhere", line=2))
    now[0] += 1
    next_one = record()
    assert flood.filter(next_one)
    assert next_one.__dict__["suppressed"] == 10_000 - BURST
    assert sum(flood.filter(record()) for _ in range(100)) == 7


def test_what_is_told_of_each_call_is_never_held_back(now: list[float]) -> None:
    del now
    flood = Flood()
    assert all(flood.filter(record(level=logging.DEBUG)) for _ in range(1_000))


def test_the_log_itself_holds_no_more_and_says_how_many_are_missing(
    now: list[float], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(logs, "_flood", Flood())
    level = root.level
    configure_logging("info")
    try:
        for number in range(201):
            now[0] += 60 * (number == 200)
            logging.getLogger("service").warning("a stranger says %d", number)
    finally:
        root.setLevel(level)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert len(lines) == BURST + 1
    assert lines[-1]["suppressed"] == 200 - BURST
    assert logs.suppressed_lines() == 200 - BURST
