"""What the service has spent: a series that is missing is an error, never 0."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from connect_actor.observe.exposition import serve_collector
from connect_actor.observe.process import OwnProcess
from connect_loadgen.service.cost import (
    MetricsError,
    Reading,
    cost_between,
    read_metrics,
    scrape,
    take,
)
from connect_loadgen.service.sampling import cpu_seconds_of, sample_process

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


# What the process tells, all its processes together.
PROCESS = {
    "process_cpu_seconds_total": 1.5,
    "process_resident_memory_peak_bytes": 80_000_000.0,
    "connect_disk_written_bytes_total": 40_960.0,
}


def exposition(without: str | None = None) -> str:
    return "".join(f"{name} {value}\n" for name, value in SERIES.items() if name != without)


OK = b"HTTP/1.0 200 OK\r\n\r\n"


@asynccontextmanager
async def http(answer: bytes | Callable[[str], bytes]) -> AsyncIterator[str]:
    """Serve one answer to everything, or what a function says to a request's first line."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()[0]
        writer.write(answer if isinstance(answer, bytes) else answer(line))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_all_series_are_read() -> None:
    async with http(OK + exposition().encode()) as address:
        assert (await take(address)).metrics == SERIES


@pytest.mark.parametrize("name", SERIES)
async def test_a_missing_series_is_an_error_that_names_it(name: str) -> None:
    async with http(OK + exposition(without=name).encode()) as address:
        with pytest.raises(MetricsError, match=f"lack {name}$"):
            await take(address)


def test_a_series_is_summed_over_its_labels() -> None:
    name = "process_cpu_seconds_total"
    text = "".join(f'{name}{{worker="{n}"}} {n}.5\n' for n in (0, 1)) + "other 8\n"
    assert read_metrics(text, (name,)) == {name: 2.0}


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
        read_metrics(text, SERIES)


def test_a_cost_is_the_difference_of_two_readings() -> None:
    series = SERIES | PROCESS
    later = {name: value * 3 for name, value in series.items()}
    cost = cost_between(Reading(1.0, series, 100), Reading(3.0, later, 150), messages=20)
    assert cost.messages == 20
    assert cost.records == 20
    assert cost.record_bytes == 2_000
    assert cost.commits == 4
    assert cost.snapshots == 2
    assert cost.snapshot_bytes == 1_000
    assert cost.journal_growth_bytes == 16_384
    assert cost.duration_seconds == 2
    assert cost.cpu_seconds == 3
    assert cost.cpu_share == 1.5
    assert cost.disk_write_bytes == 81_920
    assert cost.peak_rss_bytes == 240_000_000
    assert cost.file_growth_bytes == 50


def test_a_counter_that_falls_is_no_cost_but_an_error() -> None:
    later = SERIES | {"connect_journal_records_total": 9.0}
    with pytest.raises(MetricsError, match="connect_journal_records_total has fallen from 10 to 9"):
        cost_between(Reading(1.0, SERIES, None), Reading(3.0, later, None), messages=20)


def test_what_a_service_does_not_tell_is_unknown_and_not_0() -> None:
    cost = cost_between(Reading(1.0, SERIES, None), Reading(3.0, SERIES, None), messages=20)
    unknown = (cost.cpu_seconds, cost.cpu_share, cost.disk_write_bytes, cost.peak_rss_bytes)
    assert {*unknown, cost.file_growth_bytes, cost.allocated_bytes} == {None}


async def test_a_reading_holds_the_metrics_and_the_size_of_the_data(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "file").write_bytes(b"x" * 100)
    async with http(OK + exposition().encode()) as address:
        reading = await take(address, tmp_path)
    assert reading.metrics == SERIES
    assert reading.file_bytes == 100


async def test_what_a_process_uses_is_asked_of_it() -> None:
    server = serve_collector(OwnProcess(registry=None), "127.0.0.1:0")
    address = f"127.0.0.1:{server.server_port}"
    before = await cpu_seconds_of(address)
    found = await sample_process(address)
    assert 0 < before <= found.cpu_seconds <= time.process_time()
    assert found.rss_bytes > 1_000_000
    # The server's own, at least, and this connection.
    assert found.descriptors > 4
    assert found.threads > 1
    server.shutdown()


async def test_only_the_named_series_are_asked_for() -> None:
    asked = []

    def answer(line: str) -> bytes:
        asked.append(line)
        return OK + b"process_threads 3\n"

    async with http(answer) as address:
        assert await scrape(address, ("process_threads",)) == {"process_threads": 3}
    assert asked == ["GET /metrics?name%5B%5D=process_threads HTTP/1.1"]


async def test_a_service_that_knows_no_names_is_asked_for_everything() -> None:
    def answer(line: str) -> bytes:
        return OK + (b"" if "name" in line else b"process_threads 3\nother 4\n")

    async with http(answer) as address:
        assert await scrape(address, ("process_threads",)) == {"process_threads": 3}


async def test_a_service_that_does_not_tell_what_it_uses_is_an_error_that_names_it() -> None:
    async with http(OK) as address:
        with pytest.raises(MetricsError, match="lack process_cpu_seconds_total"):
            await cpu_seconds_of(address)


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
            await take(address)


async def test_nobody_answering_is_an_error(unused_tcp_port_factory: Callable[[], int]) -> None:
    with pytest.raises(MetricsError, match="no metrics from"):
        await take(f"127.0.0.1:{unused_tcp_port_factory()}")
