"""Standard output and error of a service: no writer waits, and no line is lost without a count."""

import io
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from connect_actor.observe import line_writer
from connect_actor.observe.line_writer import LineWriter
from connect_actor.observe.logs import configure_logging, lines_dropped
from tests.support.process import PATIENCE


class Pipe:
    """A pipe, and a writer into it."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        self._file = io.TextIOWrapper(io.FileIO(writing, "w"), encoding="ascii", write_through=True)
        self.writer = LineWriter(self._file)
        self.lines: list[str] = []

    def stop_reading(self) -> None:
        os.close(self.reading)
        self.reading = -1

    def close(self) -> None:
        self._file.close()
        if self.reading >= 0:
            self.stop_reading()

    def read_all(self) -> list[str]:
        """Read until the writer has nothing left."""
        with open(self.reading, encoding="ascii", closefd=False) as file:
            reader = threading.Thread(target=lambda: self.lines.extend(file), daemon=True)
            reader.start()
            self.writer.finish(PATIENCE)
            self._file.close()
            reader.join(PATIENCE)
        return [line.rstrip("\n") for line in self.lines]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def test_lines_come_whole_and_in_order(pipe: Pipe) -> None:
    for text in ("one\n", "t", "wo", "\nthree\nfour", "\n", "h\xe4lf"):
        pipe.writer.write(text)
    assert pipe.read_all() == ["one", "two", "three", "four", "h\\xe4lf"]


def test_who_writes_never_waits_and_every_line_is_read_or_counted(pipe: Pipe) -> None:
    pipe.writer.tell_dropped = lambda count: f"{count} dropped"
    # More than a pipe and what may wait together hold; nobody reads.
    count = 3 * line_writer._ROOM // 1_000
    for number in range(count):
        pipe.writer.write(f"{number} {'x' * 1_000}\n")
    dropped = pipe.writer.dropped
    assert 0 < dropped < count
    pipe.writer.finish(0)
    *lines, told = pipe.read_all()
    assert told == f"{dropped} dropped"
    numbers = [int(line.split()[0]) for line in lines]
    assert numbers == list(range(count - dropped))


def test_many_threads_write_whole_lines(pipe: Pipe) -> None:
    threads = [
        threading.Thread(target=lambda: [pipe.writer.write("line\n") for _ in range(500)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert pipe.read_all() == ["line"] * 4_000


def test_a_pipe_that_does_not_block_loses_nothing(pipe: Pipe) -> None:
    os.set_blocking(pipe.writer.fileno(), False)
    for _ in range(400):
        pipe.writer.write("x" * 1_000 + "\n")
    assert pipe.read_all() == ["x" * 1_000] * 400
    assert pipe.writer.dropped == 0


def test_a_reader_that_has_gone_and_a_full_disk_cost_lines_and_nothing_else(pipe: Pipe) -> None:
    pipe.stop_reading()
    pipe.writer.write("a\nb\n")
    pipe.writer.finish(PATIENCE)
    assert pipe.writer.dropped == 2
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        writer = LineWriter(full)
        writer.write("a\nb\nc\n")
        writer.finish(PATIENCE)
    assert writer.dropped == 3


def test_the_log_tells_what_was_dropped(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers)
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr("sys.stderr", pipe.writer)
    configure_logging("info")
    logging.captureWarnings(capture=False)
    log = logging.getLogger("test")
    while not pipe.writer.dropped:
        log.info("x" * 10_000)
    assert lines_dropped() == pipe.writer.dropped
    log.info("after")
    told = pipe.read_all()[-1]
    assert f"{pipe.writer.dropped} lines were dropped" in told
    assert '"level": "warning"' in told
