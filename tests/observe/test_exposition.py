"""The metrics port: whoever else connects to it, a scrape goes through."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from connect_actor.network.connections import http_get
from connect_actor.observe.exposition import MetricsServer, serve_collector

PATIENCE = 30


class Now(Collector):
    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("now", "Now.", value=1)
        yield GaugeMetricFamily("then", "Then.", value=2)

    describe = collect


@pytest.fixture
def server() -> Iterator[MetricsServer]:
    server = serve_collector(Now(), "127.0.0.1:0")
    yield server
    server.shutdown()


def scrape(server: MetricsServer, query: str = "") -> str:
    status, body = http_get(f"127.0.0.1:{server.server_port}", f"/metrics{query}", PATIENCE)
    assert status == 200
    return body.decode()


def connect(server: MetricsServer, said: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", server.server_port), PATIENCE)
    connection.sendall(said)
    return connection


def answer(connection: socket.socket) -> bytes:
    said = b""
    while part := connection.recv(65_536):
        said += part
    return said


def test_a_scrape_is_answered_as_prometheus_wants_it(server: MetricsServer) -> None:
    wanted = b"GET /metrics HTTP/1.1\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\r\n"
    with connect(server, wanted) as connection:
        head, _, body = answer(connection).partition(b"\r\n\r\n")
    assert b"Content-Type: application/openmetrics-text" in head
    assert body.endswith(b"# EOF\n")
    assert "now 1.0" in scrape(server)


def test_a_scrape_may_ask_for_some_metrics_alone(server: MetricsServer) -> None:
    text = scrape(server, "?name[]=then")
    assert "then 2.0" in text
    assert "now" not in text


@pytest.mark.parametrize("said", [b"", b"GET /metrics HTTP/1.1\r\nHost: a"], ids=["silent", "slow"])
def test_connections_that_send_no_request_are_closed_by_those_that_come_after_them(
    server: MetricsServer, said: bytes
) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(connect(server, said)) for _ in range(300)]
        assert "now 1.0" in scrape(server)
        # Those that came first are gone, and no more are kept than may be.
        for lost in connections[:260]:
            assert answer(lost) == b""


def test_a_request_without_end_is_refused(server: MetricsServer) -> None:
    request = b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 4_000
    # What was not read of it may reset the connection before its answer is seen.
    with suppress(ConnectionResetError), connect(server, request) as connection:
        assert answer(connection).startswith(b"HTTP/1.1 431")
    assert "now 1.0" in scrape(server)


@pytest.mark.parametrize("said", [b"POST / HTTP/1.1\r\n\r\n", b"\0\r\n\r\n"])
def test_what_is_no_get_is_refused(server: MetricsServer, said: bytes) -> None:
    with connect(server, said) as connection:
        assert answer(connection).startswith(b"HTTP/1.1 405")
    assert "now 1.0" in scrape(server)


def test_a_server_that_is_shut_down_has_closed_its_port_and_its_connections() -> None:
    server = serve_collector(Now(), "127.0.0.1:0")
    with connect(server) as connection:
        scrape(server)
        server.shutdown()
        assert answer(connection) == b""
    with pytest.raises(ConnectionRefusedError):
        connect(server)
