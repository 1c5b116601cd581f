"""A Docker engine, and one run of the compose stack on it, as ``compose_check`` uses them.

A run has a project, an image and ports of its own, so it never touches a stack that someone else
runs from the same file, and all that it makes can be found and removed.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

__all__ = [
    "IMAGE",
    "PROJECT",
    "CheckFailedError",
    "Event",
    "compose",
    "engine",
    "has_image",
    "inspect",
    "is_healthy",
    "logs",
    "require",
    "run",
    "say",
    "stack",
    "until",
]

ROOT = Path(__file__).parents[2]
PROJECT = f"connect-actor-check-{os.getpid()}"
IMAGE = f"connect-actor:check-{os.getpid()}"
PATIENCE = 120


class CheckFailedError(Exception):
    """The stack does not do what it must; the message says what."""


class Event(NamedTuple):
    """Something that happened to a service's container."""

    service: str
    action: str
    at: int  # nanoseconds of the engine's clock
    exit_code: int | None


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def require(condition: bool, text: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not condition:
        raise CheckFailedError(text)
    say(f"ok: {text}")


def until(condition: Callable[[], bool], text: str) -> None:
    """Wait for a condition; it becomes a check of its own."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise CheckFailedError(f"not within {PATIENCE} s: {text}")
        time.sleep(1)
    say(f"ok: {text}")


def run(*command: str) -> str:
    """Run a command to its end and return what it printed.

    Raises:
        CheckFailedError: its exit code is not 0.
    """
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 - fixed commands
    if done.returncode != 0:
        raise CheckFailedError(f"{shlex.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def compose(*arguments: str) -> str:
    return run("docker", "compose", "-p", PROJECT, *arguments)


def inspect(service: str) -> dict[str, Any]:
    state: dict[str, Any] = json.loads(run("docker", "inspect", compose("ps", "-aq", service)))[0]
    return state


def is_healthy(service: str) -> bool:
    state = inspect(service)["State"]
    return bool(state["Status"] == "running" and state["Health"]["Status"] == "healthy")


def logs(service: str) -> list[str]:
    """Return the lines that a service's container has written, over all its starts."""
    # Not by compose, which writes control characters between the lines.
    read = ["docker", "logs", compose("ps", "-aq", service)]
    done = subprocess.run(  # noqa: S603 - a fixed command
        read, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    return done.stdout.splitlines()


def has_image(name: str) -> bool:
    return bool(run("docker", "images", "-q", name))


@contextmanager
def engine() -> Iterator[None]:
    """Have an engine: the one that runs, or one from ``DOCKER_LOCAL``, which is ended again."""
    starter = os.environ.get("DOCKER_LOCAL")
    if _answers():
        yield
        return
    if starter is None or shutil.which(starter) is None:
        raise CheckFailedError("no Docker engine runs; DOCKER_LOCAL may name what starts one")
    for line in run(starter, "env").splitlines():
        for assignment in shlex.split(line.removeprefix("export ")):
            name, _, value = assignment.partition("=")
            os.environ[name] = value
    if _answers():
        # Someone started it before us, and may need it after us.
        yield
        return
    say("starting an engine: some minutes, once")
    try:
        run(starter, "up")
        yield
    finally:
        run(starter, "down")


def _answers() -> bool:
    asked = subprocess.run(["docker", "info"], capture_output=True, check=False)  # noqa: S607 - the user's own docker
    return asked.returncode == 0


@contextmanager
def stack() -> Iterator[Callable[[], list[Event]]]:
    """Have room for one run of the stack; yields what tells the events of its containers so far.

    Whatever happens, nothing of the run is left behind; if it failed, its logs' ends are shown.
    """
    # Listened to all the time: the engine keeps few events, and few of a health check's results.
    kinds = ("start", "die", "health_status")
    command = [
        *("docker", "events", "--format", "{{json .}}"),
        *("--filter", f"label=com.docker.compose.project={PROJECT}"),
        *(f"--filter=event={kind}" for kind in kinds),
    ]
    with (
        tempfile.TemporaryFile("w+") as told,
        subprocess.Popen(command, stdout=told) as listener,  # noqa: S603 - a fixed command
    ):
        try:
            yield lambda: _events_in(told.fileno())
        except CheckFailedError:
            for service in compose("ps", "-a", "--services").splitlines():
                lines = logs(service)[-10:]
                sys.stderr.write("".join(f"{service}: {line}\n" for line in lines))
            raise
        finally:
            compose("down", "-v", "--remove-orphans")
            if has_image(IMAGE):
                run("docker", "rmi", IMAGE)
            listener.terminate()


def _events_in(file: int) -> list[Event]:
    text = os.pread(file, os.fstat(file).st_size, 0).decode()
    events = []
    # The last line may still be being written.
    for line in text.split("\n")[:-1]:
        told = json.loads(line)
        about = told["Actor"]["Attributes"]
        # Whatever else is run from the image inherits the labels that it was built with.
        if "com.docker.compose.container-number" in about:
            exit_code = int(about["exitCode"]) if "exitCode" in about else None
            service = about["com.docker.compose.service"]
            events.append(Event(service, told["Action"], told["timeNano"], exit_code))
    return events
