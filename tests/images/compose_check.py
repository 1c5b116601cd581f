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
import signal
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable, Sequence
from functools import partial

from connect_actor.client import Channel, ConnectClient, Identity
from connect_actor.network.connections import http_get
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.program.exits import Exit
from grafana.dashboards.queries import resolve
from grafana.dashboards.strategies import ANSWERS
from tests.images.engine import (
    IMAGE,
    PROJECT,
    CheckFailedError,
    Event,
    compose,
    engine,
    has_image,
    inspect,
    is_healthy,
    logs,
    require,
    run,
    say,
    stack,
    until,
)

STRATEGIES = ("full", "cached", "differential")
SERVICES = tuple(f"service-{strategy}" for strategy in STRATEGIES)
LOADS = tuple(f"load-{strategy}" for strategy in STRATEGIES)
GRPC_PORT = 50051
# Of a part of the course: shorter than by default, and longer than its rates look back.
PART_SECONDS = 40
PORT_VARIABLES = ("FULL_PORT", "CACHED_PORT", "DIFFERENTIAL_PORT", "PROMETHEUS_PORT")
CHANNELS = 20
_PATIENCE = 30

Events = Callable[[], list[Event]]


def address(service: str, port: int = GRPC_PORT) -> str:
    """Return where it is published; a restart may change it."""
    return compose("port", service, str(port))


def query(expression: str, by: str = "strategy") -> dict[str, float]:
    """Ask Prometheus, and return the value of each series by one of its labels."""
    text = urllib.parse.urlencode({"query": expression})
    _, body = http_get(address("prometheus", 9090), f"/api/v1/query?{text}", _PATIENCE)
    found = json.loads(body)["data"]["result"]
    return {series["metric"].get(by, ""): float(series["value"][1]) for series in found}


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


def check_start_order(events: Events) -> None:
    for strategy in STRATEGIES:
        (healthy, begun) = (
            [event.at for event in events() if (event.service, event.action) == wanted]
            for wanted in (
                (f"service-{strategy}", "health_status: healthy"),
                (f"load-{strategy}", "start"),
            )
        )
        require(
            bool(healthy and begun) and healthy[0] <= begun[0],
            f"load-{strategy} started only when service-{strategy} was healthy",
        )


def check_metrics() -> None:
    targets = {f"{name}:9464" for name in SERVICES} | {f"{name}:9465" for name in LOADS}
    until(
        lambda: query("up", by="instance") == dict.fromkeys(targets, 1.0),
        "Prometheus reaches all services and all generators",
    )
    intended: dict[str, float] = {}

    def is_equal() -> bool:
        intended.update(query("loadgen_intended_rate"))
        return set(intended) == set(STRATEGIES) and len(set(intended.values())) == 1

    until(is_equal, "all have the same load in one part of the course")
    equal, limit = (
        f'avg_over_time(strategy_loop:connect_changes:rate15s{{loop="{loop}"}}[2m])'
        for loop in ("open", "closed")
    )
    until(
        lambda: all(query(equal).get(name, 0) > 0.8 * intended[name] for name in STRATEGIES),
        "every service serves more than 80 % of the intended rate",
    )
    say(f"note: messages per second at equal load: {_rounded(query(equal))}")
    until(lambda: set(query(limit)) == set(STRATEGIES), "all are at their limit in the other part")
    say(f"note: messages per second at the limit: {_rounded(query(limit))}")
    for answer in ANSWERS:
        found = query(resolve(answer.query, "", "2m"))
        if found:
            said = {name: answer.say(value) for name, value in found.items()}
            say(f"note: the first row shows for {answer.title}: {said}")
    written_by_full = next(answer for answer in ANSWERS if answer.is_fraction)
    require(
        query(resolve(written_by_full.query, "", "2m"))["differential"] > 10,
        "differential writes less than a tenth of full's journal bytes",
    )
    require(
        query("loadgen_verification_failures_total") == dict.fromkeys(STRATEGIES, 0.0),
        "no generator got a wrong answer",
    )


def _rounded(values: dict[str, float]) -> dict[str, int]:
    return {name: round(value) for name, value in values.items()}


def check_hardening(wanted: Sequence[str]) -> None:
    for service in (*SERVICES, *LOADS):
        status = dict(
            line.split(":\t", 1)
            for line in compose("exec", service, "cat", "/proc/1/status").splitlines()
        )
        require(
            set(status["Uid"].split()) == {"10001"}
            and int(status["CapEff"], 16) == 0
            and status["NoNewPrivs"] == "1",
            f"{service} runs as user 10001, without capabilities, and can gain none",
        )
        written = compose("exec", service, "sh", "-c", "touch /escaped 2>&1 || true")
        require("Read-only file system" in written, f"{service} can't write its root file system")
        found = compose("exec", service, "sh", "-c", "command -v cc gcc c++ || true")
        require(found == "", f"{service} holds no compiler")
    keys = set()
    for service in SERVICES:
        for file in ("sealing.key", "journal.db"):
            mode = compose("exec", service, "stat", "-c", "%a", f"/data/{file}")
            require(mode == "600", f"{service} keeps {file} to itself")
        keys.add(compose("exec", service, "sha256sum", "/data/sealing.key"))
    require(len(keys) == len(SERVICES), "each service has made a key of its own")
    published = {
        service: [
            binding["HostIp"]
            for bindings in inspect(service)["NetworkSettings"]["Ports"].values()
            for binding in bindings or ()
        ]
        for service in wanted
    }
    loopback = ["127.0.0.1"]
    require(
        published == {service: [] if service in LOADS else loopback for service in wanted},
        "one port of each but the generators is published, and on loopback only",
    )


async def check_kill(events: Events) -> None:
    """Kill a service outright: its channels come back from its volume."""
    channels = await _open_channels("service-differential")
    killed = time.time()
    victim = inspect("service-differential")["State"]["Pid"]
    # From a container: the engine's processes need not be this machine's, or this user's.
    run(
        *("docker", "run", "--rm", "--pid=host", "--network=none", "--user=0", IMAGE),
        *("python", "-c", f"import os, signal; os.kill({victim}, signal.SIGKILL)"),
    )
    until(
        lambda: (
            [
                event.exit_code
                for event in events()
                if (event.service, event.action) == ("service-differential", "die")
            ]
            == [128 + signal.SIGKILL]
            and is_healthy("service-differential")
        ),
        "a service killed with kill -9 comes back by itself",
    )
    await _require_all_go_on(channels, "service-differential", "after kill -9")
    _await_fresh_load("differential", killed)
    recovered = 'connect_actor_recoveries_total{strategy="differential"}'
    # The newest scrape may be of before.
    until(
        lambda: query(recovered)["differential"] >= len(channels),
        "its metrics tell of as many recoveries",
    )
    require(
        query('connect_actor_recovery_failures_total{strategy="differential"}')["differential"]
        == 0,
        "and of none that failed",
    )
    _require_clean_logs("service-differential", starts=2)


async def check_stop() -> None:
    """Stop a service in order, under load, and start it again; stop a generator, too."""
    channels = await _open_channels("service-full")
    stopped = time.time()
    compose("stop", "service-full")
    seconds = time.time() - stopped
    state = inspect("service-full")
    require(
        state["State"]["ExitCode"] == 0,
        f"SIGTERM ends a service in order, under load ({seconds:.1f} s)",
    )
    require(seconds < state["Config"]["StopTimeout"], "within its grace period")
    compose("start", "service-full")
    until(lambda: is_healthy("service-full"), "it starts again")
    await _require_all_go_on(channels, "service-full", "after a stop and a start")
    _await_fresh_load("full", stopped)
    _require_clean_logs("service-full", starts=2)
    compose("stop", "load-cached")
    require(
        inspect("load-cached")["State"]["ExitCode"] == Exit.INTERRUPTED,
        "SIGTERM ends a generator in order",
    )


def _await_fresh_load(strategy: str, since: float) -> None:
    began = f'process_start_time_seconds{{instance="service-{strategy}:9464"}}'
    until(
        lambda: all(value > since for value in query(began, by="instance").values()),
        "Prometheus sees the new process",
    )
    # Counted from that process's start: far more than these checks ask for themselves.
    answered = f'sum(connect_operations_total{{strategy="{strategy}",status="OK"}})'
    until(lambda: query(answered, by="").get("", 0) > 50 * CHANNELS, "and its load flows again")


def _require_clean_logs(service: str, starts: int) -> None:
    told = [json.loads(line) for line in logs(service)]
    require(
        sum(line.get("event") == "ready" for line in told) == starts
        and not [line for line in told if line.get("level") in {"error", "critical"}],
        f"{service} logs {starts} starts and no error",
    )


async def _open_channels(service: str) -> list[Channel]:
    channels = []
    async with ConnectClient(address(service)) as client:
        for _ in range(CHANNELS):
            channel = await client.establish(Identity.generate(os.urandom), timeout=10)
            channel.open(await channel.encrypt(b"before", timeout=10))
            channels.append(channel)
    return channels


async def _require_all_go_on(channels: Sequence[Channel], service: str, when: str) -> None:
    opened = []
    async with ConnectClient(address(service)) as client:
        for channel in channels:
            request = wire.EncryptRequest(connect_id=channel.connect_id, plaintext=b"after")
            answer = await client.stub.Encrypt(request, timeout=10, wait_for_ready=True)
            opened.append(channel.open(answer.payload))
    require(opened == [b"after"] * len(channels), f"{len(channels)} channels go on {when}")


def check_gone() -> None:
    label = f"label=com.docker.compose.project={PROJECT}"
    for kind in (("ps", "-a"), ("volume", "ls"), ("network", "ls")):
        left = run("docker", *kind, "-q", "--filter", label)
        require(left == "", f"down -v leaves nothing behind ({kind[0]})")


async def main() -> int:
    # Ended from outside, it still takes the stack down.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    # The engine chooses free ports.
    os.environ.update(dict.fromkeys(PORT_VARIABLES, "0"), CONNECT_ACTOR_IMAGE=IMAGE)
    os.environ["LOAD_PART_SECONDS"] = str(PART_SECONDS)
    try:
        with engine():
            wanted = choose_images()
            with stack() as events:
                say(f"building the image and starting {', '.join(wanted)}")
                compose("up", "-d", *wanted)
                for service in wanted:
                    until(partial(is_healthy, service), f"{service} is healthy")
                check_start_order(events)
                check_metrics()
                check_hardening(wanted)
                await check_kill(events)
                await check_stop()
            check_gone()
    except CheckFailedError as failure:
        sys.stderr.write(f"FAILED: {failure}\n")
        return 1
    say("the stack keeps its promises")
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
