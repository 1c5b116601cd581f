"""Brings the whole compose stack up on a real engine and holds it to its promises.

    make compose-check

Not part of ``make test``: it needs an engine, and minutes. Where no engine runs, ``DOCKER_LOCAL``
may name a script that starts one (``up``, ``env``, ``down``). Grafana is left out unless its image
is there. Every check prints a line; the first that fails ends it with exit code 1, and the stack is
taken down in any case.
"""

import asyncio
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from protos.connect_actor.v1 import connect_pb2 as wire
from service.client import Channel, ConnectClient, Identity

ROOT = Path(__file__).parents[2]
PROJECT = "connect-actor-check"
STRATEGIES = ("full", "cached", "differential")
SERVICES = tuple(f"service-{strategy}" for strategy in STRATEGIES)
LOADS = tuple(f"load-{strategy}" for strategy in STRATEGIES)
PORTS = {"FULL_PORT": 51051, "CACHED_PORT": 51052, "DIFFERENTIAL_PORT": 51053}
PROMETHEUS_PORT = 51090
PATIENCE = 120


class CheckFailedError(Exception):
    """The stack does not do what it must; the message says what."""


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def require(condition: bool, text: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise CheckFailedError(text)
    say(f"ok: {text}")


def run(*command: str, check: bool = True) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - fixed commands
    if check and done.returncode != 0:
        raise CheckFailedError(f"{shlex.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def compose(*arguments: str, check: bool = True) -> str:
    return run("docker", "compose", "-p", PROJECT, *arguments, check=check)


def inspect(service: str) -> dict[str, Any]:
    container = compose("ps", "-a", "-q", service)
    state: dict[str, Any] = json.loads(run("docker", "inspect", container))[0]
    return state


def until(condition: Callable[[], bool], text: str) -> None:
    """Wait for a condition; it becomes a check of its own."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise CheckFailedError(f"not within {PATIENCE} s: {text}")
        time.sleep(1)
    say(f"ok: {text}")


def is_healthy(service: str) -> bool:
    state = inspect(service)["State"]
    return bool(state["Status"] == "running" and state["Health"]["Status"] == "healthy")


def query(expression: str) -> dict[str, float]:
    """Return the value of each series, by its strategy or else its instance."""
    text = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"http://127.0.0.1:{PROMETHEUS_PORT}/api/v1/query?{text}") as reply:
        found = json.load(reply)["data"]["result"]
    return {
        series["metric"].get("strategy", series["metric"].get("instance", "")): float(
            series["value"][1]
        )
        for series in found
    }


@contextmanager
def engine() -> Iterator[None]:
    """Have an engine: the one that runs, or one from ``DOCKER_LOCAL``."""
    starter = os.environ.get("DOCKER_LOCAL")
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:  # noqa: S607 - the user's own docker
        yield
        return
    if starter is None or shutil.which(starter) is None:
        raise CheckFailedError("no Docker engine runs; DOCKER_LOCAL may name what starts one")
    say("starting an engine: some minutes, once")
    run(starter, "up")
    for line in run(starter, "env").splitlines():
        for assignment in shlex.split(line.removeprefix("export ")):
            name, _, value = assignment.partition("=")
            os.environ[name] = value
    try:
        yield
    finally:
        run(starter, "down")


@contextmanager
def stack() -> Iterator[None]:
    compose("down", "-v", "--remove-orphans")
    try:
        yield
    finally:
        compose("down", "-v", "--remove-orphans")


def has_image(name: str) -> bool:
    return bool(run("docker", "images", "-q", name))


def choose_images() -> tuple[str, ...]:
    """Take the pinned images if they can be had, else stand-ins; return what to run."""
    pinned = json.loads(compose("config", "--format", "json"))["services"]
    wanted = [*SERVICES, *LOADS]
    for service, stand_in in (("prometheus", "prom/prometheus:latest"), ("grafana", None)):
        image = pinned[service]["image"]
        if (
            has_image(image)
            or subprocess.run(  # noqa: S603 - a fixed command
                ["docker", "pull", "-q", image],  # noqa: S607 - the user's own docker
                capture_output=True,
                check=False,
            ).returncode
            == 0
        ):
            wanted.append(service)
        elif stand_in is not None and has_image(stand_in):
            os.environ["PROMETHEUS_IMAGE"] = stand_in
            wanted.append(service)
            say(f"note: {image} can't be had, {stand_in} stands in")
        else:
            say(f"note: {image} can't be had, so {service} is left out")
    return tuple(wanted)


# --- Checks ---------------------------------------------------------------------------------------


def check_start_order() -> None:
    for strategy in STRATEGIES:
        healthy_at = min(
            entry["End"]
            for entry in inspect(f"service-{strategy}")["State"]["Health"]["Log"]
            if entry["ExitCode"] == 0
        )
        begun = inspect(f"load-{strategy}")["State"]["StartedAt"]
        require(
            _moment(begun) >= _moment(healthy_at),
            f"load-{strategy} started after service-{strategy} was healthy",
        )


def _moment(text: str) -> datetime:
    # Nanoseconds, and an offset or a Z: more than fromisoformat takes.
    whole, _, rest = text.partition(".")
    fraction = rest[:6]
    return datetime.fromisoformat(f"{whole}.{fraction}+00:00")


def check_metrics() -> None:
    until(
        lambda: (
            set(query('up{job="connect-actor"} == 1')) == set(query('up{job="connect-actor"}'))
            and len(query('up{job=~"connect-actor|loadgen"} == 1')) >= len(STRATEGIES)
        ),
        "Prometheus reaches all services",
    )
    until(
        lambda: query('sum(up{job="loadgen"}) without (instance, strategy, job)') == {"": 3.0},
        "Prometheus reaches all generators",
    )
    rate = "sum by (strategy) (rate(connect_operations_total[30s]))"
    until(
        lambda: all(query(rate).get(strategy, 0) > 50 for strategy in STRATEGIES),
        "every service gets its load",
    )
    require(
        all(value == 0 for value in query("loadgen_verification_failures_total").values()),
        "every answer was right",
    )
    written = "sum by (strategy) (rate(connect_journal_record_bytes_total[30s]))"
    until(
        lambda: query(written).get("full", 0) > 50 * query(written).get("differential", 1e9),
        "full writes more than 50 times what differential writes",
    )


def check_hardening() -> None:
    for service in SERVICES:
        require(
            compose("exec", service, "id", "-u") == "10001", f"{service} runs as an ordinary user"
        )
        written = compose("exec", service, "sh", "-c", "touch /escaped 2>&1 || true")
        require("Read-only file system" in written, f"{service} can't write its root file system")
        for file in ("sealing.key", "journal.db"):
            mode = compose("exec", service, "stat", "-c", "%a", f"/data/{file}")
            require(mode == "600", f"{service} keeps {file} to itself")
    for service in (*SERVICES, *LOADS):
        for bindings in inspect(service)["HostConfig"]["PortBindings"].values():
            for binding in bindings:
                require(
                    binding["HostIp"] == "127.0.0.1", f"{service} is published on loopback only"
                )


async def check_kill() -> None:
    """Kill a service outright: its channels come back from its volume."""
    channel = await _open_channel(PORTS["DIFFERENTIAL_PORT"])
    before = inspect("service-differential")["State"]
    os.kill(before["Pid"], 9)
    until(
        lambda: (
            inspect("service-differential")["State"]["StartedAt"] != before["StartedAt"]
            and is_healthy("service-differential")
        ),
        "a service killed with kill -9 comes back by itself",
    )
    await _require_goes_on(channel, PORTS["DIFFERENTIAL_PORT"], "after kill -9")
    until(lambda: is_healthy("load-differential"), "its load goes on")


async def check_stop() -> None:
    """Stop a service in order, and start it again."""
    channel = await _open_channel(PORTS["FULL_PORT"])
    begun = time.monotonic()
    compose("stop", "service-full")
    seconds = time.monotonic() - begun
    state = inspect("service-full")["State"]
    require(state["ExitCode"] == 0, f"SIGTERM ends a service in order ({seconds:.1f} s)")
    require(seconds < 25, "within its grace period")
    compose("up", "-d", "service-full")
    until(lambda: is_healthy("service-full"), "it starts again")
    await _require_goes_on(channel, PORTS["FULL_PORT"], "after a stop and a start")


async def _open_channel(port: int) -> Channel:
    async with ConnectClient(f"127.0.0.1:{port}") as client:
        channel = await client.establish(Identity.generate(os.urandom), timeout=10)
        channel.open(await channel.encrypt(b"before", timeout=10))
        return channel


async def _require_goes_on(channel: Channel, port: int, when: str) -> None:
    async with ConnectClient(f"127.0.0.1:{port}") as client:
        request = wire.EncryptRequest(connect_id=channel.connect_id, plaintext=b"after")
        answer = await client.stub.Encrypt(request, timeout=10, wait_for_ready=True)
    require(channel.open(answer.payload) == b"after", f"a channel goes on {when}")


def check_gone() -> None:
    label = f"label=com.docker.compose.project={PROJECT}"
    for kind in (("ps", "-a"), ("volume", "ls"), ("network", "ls")):
        left = run("docker", *kind, "-q", "--filter", label)
        require(left == "", f"down -v leaves nothing behind ({kind[0]})")


async def main() -> int:
    os.environ.update({name: str(port) for name, port in PORTS.items()})
    os.environ["PROMETHEUS_PORT"] = str(PROMETHEUS_PORT)
    try:
        with engine():
            wanted = choose_images()
            say("building the image")
            compose("build")
            with stack():
                say(f"starting {', '.join(wanted)}")
                compose("up", "-d", *wanted)
                for service in wanted:
                    until(partial(is_healthy, service), f"{service} is healthy")
                check_start_order()
                check_metrics()
                check_hardening()
                await check_kill()
                await check_stop()
            check_gone()
    except CheckFailedError as failure:
        sys.stderr.write(f"FAILED: {failure}\n")
        return 1
    say("the stack keeps its promises")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
