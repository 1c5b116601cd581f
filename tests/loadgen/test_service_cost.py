"""What the service has spent: a series that is missing is an error, never 0."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from loadgen.service_cost import (
    MeteredProcess,
    MetricsError,
    Reading,
    cost_between,
    read_metrics,
    take,
)

SERIES = {
    "connect_journal_records_total": 10.0,
    "connect_journal_record_bytes_total": 1_000.0,
    "connect_journal_commits_total": 2.0,
    "connect_journal_snapshots_total": 1.0,
    "connect_journal_snapshot_bytes_total": 500.0,
    "connect_journal_disk_bytes": 8_192.0,
    "connect_actors_live": 3.0,
    "connect_actor_recoveries_total": 0.0,
}


def exposition(without: str | None = None) -> str:
    return "".join(f"{name} {value}\n" for name, value in SERIES.items() if name != without)


def test_all_series_are_read() -> None:
    assert read_metrics(exposition()) == SERIES


@pytest.mark.parametrize("name", SERIES)
def test_a_missing_series_is_an_error_that_names_it(name: str) -> None:
    with pytest.raises(MetricsError, match=f"lack {name}$"):
        read_metrics(exposition(without=name))


def test_a_series_is_summed_over_its_labels() -> None:
    text = exposition(without="connect_journal_records_total")
    for strategy, value in (("full", 3), ("cached", 4)):
        text += f'connect_journal_records_total{{strategy="{strategy}"}} {value}\n'
    assert read_metrics(text)["connect_journal_records_total"] == 7


@pytest.mark.parametrize(
    "text",
    [
        "<html>this is no exposition</html>",
        "connect_journal_records_total many\n",
        # The parser stumbles over this one by an index.
        "# TYPE \x1d coun\x08er\n",
    ],
)
def test_what_is_no_exposition_is_an_error(text: str) -> None:
    with pytest.raises(MetricsError, match="can't be parsed"):
        read_metrics(text)


def test_a_cost_is_the_difference_of_two_readings() -> None:
    later = {name: value * 3 for name, value in SERIES.items()}
    cost = cost_between(Reading(1.0, SERIES, None), Reading(3.0, later, None), messages=20)
    assert cost.messages == 20
    assert cost.records == 20
    assert cost.record_bytes == 2_000
    assert cost.commits == 4
    assert cost.snapshots == 2
    assert cost.snapshot_bytes == 1_000
    assert cost.journal_growth_bytes == 16_384
    assert cost.duration_seconds == 2
    # Unknown, not 0: there was no process to read, and no probe in it.
    assert cost.cpu_seconds is None
    assert cost.disk_write_bytes is None
    assert cost.allocated_bytes is None


@asynccontextmanager
async def http(answer: bytes) -> AsyncIterator[str]:
    """Serve one answer to everything."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_reading_holds_the_metrics_and_the_process(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"x" * 100)
    async with http(b"HTTP/1.0 200 OK\r\n\r\n" + exposition().encode()) as address:
        reading = await take(address, MeteredProcess(os.getpid(), tmp_path))
    assert reading.metrics == SERIES
    assert reading.process is not None
    assert reading.process.cpu_seconds > 0
    assert reading.process.peak_rss_bytes > 1_000_000
    assert reading.process.file_bytes == 100


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.0 404 Not Found\r\n\r\n", "status 404"),
        (b"HTTP/1.0 200 OK\r\n\r\n\xff\xfe", "can't be parsed|lack"),
        (b"SSH-2.0\r\n", "no metrics from"),
    ],
)
async def test_a_place_without_metrics_is_an_error(answer: bytes, said: str) -> None:
    async with http(answer) as address:
        with pytest.raises(MetricsError, match=said):
            await take(address, None)


async def test_nobody_answering_is_an_error(unused_tcp_port_factory: Callable[[], int]) -> None:
    with pytest.raises(MetricsError, match="no metrics from"):
        await take(f"127.0.0.1:{unused_tcp_port_factory()}", None)


async def test_a_process_that_is_gone_is_an_error(tmp_path: Path) -> None:
    gone = await asyncio.create_subprocess_exec("true")
    await gone.wait()
    async with http(b"HTTP/1.0 200 OK\r\n\r\n" + exposition().encode()) as address:
        with pytest.raises(MetricsError, match="can't be read"):
            await take(address, MeteredProcess(gone.pid, tmp_path))
