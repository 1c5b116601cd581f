"""Every connection that we open goes straight to its target, whatever proxy is named."""

import ast
import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from grpc.aio import AioRpcError

from connect_actor.client import ConnectClient, Identity
from connect_actor.network.connections import http_get
from connect_loadgen.service.process import ServiceOptions, ServiceProcess
from tests.support.process import PATIENCE

ROOT = Path(__file__).parents[2]

# Nothing listens there.
DEAD = "http://127.0.0.1:9"
NAMES = ("http_proxy", "https_proxy", "grpc_proxy", "all_proxy", "ftp_proxy")
EVERY_PROXY = {each: DEAD for name in NAMES for each in (name, name.upper())}
# gRPC's own, for addresses that names resolve to.
OF_ADDRESSES = {
    "GRPC_ADDRESS_HTTP_PROXY": "127.0.0.1:9",
    "GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES": "127.0.0.0/8",
}
WITHOUT = {"no_proxy", "NO_PROXY", "no_grpc_proxy"}


def dead_proxies() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if name not in WITHOUT}
    return own | EVERY_PROXY | OF_ADDRESSES


def run(*command: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - our own commands
        [sys.executable, *command],
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
        env=environment,
    )


@asynccontextmanager
async def running(directory: Path, workers: int = 1) -> AsyncIterator[ServiceProcess]:
    options = ServiceOptions("differential", "sqlite", directory, workers=workers)
    async with ServiceProcess(options, PATIENCE) as service:
        yield service


SMALL = ["--channels=4", "--concurrency=64", "--warm-up-seconds=0", "--duration-seconds=0.3"]
SLIGHT = ["--channels=4", "--concurrency=64", "--frame-operations=8", "--duration-seconds=0.5"]


@pytest.mark.parametrize(
    "command",
    [
        ("run", *SMALL),
        ("crash", "--channels=4", "--kills=1", "--strategy=differential", "--load-seconds=0.1"),
    ],
    ids=lambda command: command[0],
)
def test_the_generator_and_its_service_need_no_proxy(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    output = tmp_path / "output"
    ran = run(
        "-m", "connect_loadgen.cli", *command, f"--output={output}", environment=dead_proxies()
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_target_is_reached_without_a_proxy(tmp_path: Path, workers: int) -> None:
    async with running(tmp_path / "data", workers) as service:
        target, metrics = f"--target={service.listen}", f"--target-metrics={service.metrics}"
        for program in (
            ("-m", "connect_actor.cli", "health", target),
            ("-m", "connect_loadgen.cli", "run", target, metrics, *SMALL),
            ("examples/talk.py", service.listen),
            ("examples/generic_client.py", service.listen),
        ):
            ran = await asyncio.to_thread(run, *program, environment=dead_proxies())
            assert ran.returncode == 0, (program, ran.stderr)


class Proxy:
    """An HTTP proxy that connects to whatever it is asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, where, _ = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ", 2)
        self.asked.append(f"{method} {where}")
        host, _, port = where.rpartition(":")
        there, to_there = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(_pass_on(reader, to_there), _pass_on(there, writer))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
    writer.close()


async def test_a_client_uses_the_proxy_of_the_environment_if_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy()
    for name in WITHOUT:
        monkeypatch.delenv(name, raising=False)
    async with (
        running(tmp_path / "data") as service,
        await asyncio.start_server(proxy.serve, "127.0.0.1", 0) as server,
    ):
        address = server.sockets[0].getsockname()
        monkeypatch.setenv("grpc_proxy", f"http://127.0.0.1:{address[1]}")
        async with ConnectClient(service.listen) as direct:
            await direct.establish(Identity.generate(os.urandom), timeout=PATIENCE)
        assert proxy.asked == []
        async with ConnectClient(service.listen, use_proxy=True) as by_proxy:
            await by_proxy.establish(Identity.generate(os.urandom), timeout=PATIENCE)
        assert proxy.asked == [f"CONNECT {service.listen}"]
        monkeypatch.setenv("grpc_proxy", DEAD)
        async with ConnectClient(service.listen, use_proxy=True) as lost:
            with pytest.raises(AioRpcError, match="UNAVAILABLE"):
                await lost.establish(Identity.generate(os.urandom), timeout=PATIENCE)


async def test_what_is_no_http_is_an_error_of_the_system() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(OSError, match="the answer is not HTTP"):
            await asyncio.to_thread(http_get, address, "/", PATIENCE)


# --- One place ------------------------------------------------------------------------------------

OPENERS = {
    *("insecure_channel", "secure_channel", "HTTPConnection", "HTTPSConnection"),
    *("urlopen", "urlretrieve", "build_opener"),
}
OPENING_MODULES = {"urllib.request", "http.client", "urllib3", "requests", "httpx", "aiohttp"}
PACKAGES = ("service", "loadgen", "grafana", "benchmarks", "examples", "tests")
HERE = "service/connect_actor/network/connections.py"
# To be copied without our library: it opens its one connection itself, without a proxy.
STANDS_ALONE = "examples/generic_client.py"


def openings(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name):
                found |= {name} & OPENERS
            case ast.Import(names=names):
                found |= {each.name for each in names} & OPENING_MODULES
            case ast.ImportFrom(module=str(module), names=names):
                found |= {module, *(f"{module}.{each.name}" for each in names)} & OPENING_MODULES
                found |= {each.name for each in names} & OPENERS
    return found


def test_connections_are_opened_in_one_place() -> None:
    found = {
        str(path.relative_to(ROOT)): openings(path)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if path != Path(__file__)
    }
    assert {name for name, opened in found.items() if opened} == {HERE, STANDS_ALONE}
    assert "grpc.enable_http_proxy" in (ROOT / STANDS_ALONE).read_text()
