"""Exposition: serves metrics over HTTP, with those of the process and the interpreter."""

from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.registry import Collector

from service.addresses import parse_host_port
from service.telemetry.process import OwnProcess

__all__ = ["serve_collector", "serve_metrics"]


def serve_metrics(collector: Collector, address: str) -> WSGIServer:
    """Serve the metrics from a thread of its own.

    Args:
        collector: what to serve besides the process's and the interpreter's own metrics.
        address: HOST:PORT to listen on; port 0 picks a free one, and the server returned knows
            which (``server_port``).

    Raises:
        OSError: the address can't be listened on.
    """
    registry = CollectorRegistry()
    OwnProcess(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(collector)
    return _serve(registry, address)


def serve_collector(collector: Collector, address: str) -> WSGIServer:
    """Serve what a collector yields and nothing else, likewise.

    Raises:
        OSError: the address can't be listened on.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    return _serve(registry, address)


def _serve(registry: CollectorRegistry, address: str) -> WSGIServer:
    listen = parse_host_port(address)
    server, _ = start_http_server(listen.port, listen.host, registry)
    return server
