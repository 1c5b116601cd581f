"""Connections that this project opens: gRPC and HTTP, each by one function.

They go straight to their target. A proxy in the environment (``http_proxy``, ``grpc_proxy`` and
their like) is meant for the web: it does not know this machine's loopback address, and a service's
address is given as the one to connect to. Only a caller that asks for the proxy gets it.
"""

import http.client
from collections.abc import Sequence

import grpc

from connect_actor.network.client_tls import ClientTls

__all__ = ["connect", "connect_blocking", "http_get"]

_Options = Sequence[tuple[str, str | int]]


def connect(
    target: str, tls: ClientTls | None = None, options: _Options = (), *, use_proxy: bool = False
) -> grpc.aio.Channel:
    """Return a connection for asyncio, which opens at its first call.

    Args:
        target: as gRPC names it.
        tls: whom to trust and what to show; without it the connection is in clear text.
        options: further channel arguments.
        use_proxy: whether to connect by the HTTP proxy that the environment names.
    """
    if tls is None:
        return grpc.aio.insecure_channel(target, options=_with_proxy(options, use_proxy))
    return grpc.aio.secure_channel(
        target, tls.credentials, options=[*_with_proxy(options, use_proxy), *tls.options]
    )


def connect_blocking(
    target: str, tls: ClientTls | None = None, options: _Options = ()
) -> grpc.Channel:
    """Return a connection for threads, likewise, which uses no proxy."""
    if tls is None:
        return grpc.insecure_channel(target, options=_with_proxy(options, use_proxy=False))
    return grpc.secure_channel(
        target, tls.credentials, options=[*_with_proxy(options, use_proxy=False), *tls.options]
    )


def _with_proxy(options: _Options, use_proxy: bool) -> list[tuple[str, str | int]]:  # noqa: FBT001 - private
    # gRPC knows two ways to name a proxy: for names, and for the addresses that they resolve to.
    direct = () if use_proxy else (("grpc.address_http_proxy_enabled_addresses", ""),)
    return [*options, ("grpc.enable_http_proxy", int(use_proxy)), *direct]


def http_get(address: str, path: str, timeout: float) -> tuple[int, bytes]:
    """Ask an HTTP server, without a proxy; return the status and body of its answer.

    Args:
        address: host:port.
        path: with its query.
        timeout: seconds that each step may take.

    Raises:
        OSError: there was no answer, or it was not HTTP.
    """
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(f"the answer is not HTTP: {error!r}") from None
    finally:
        connection.close()
