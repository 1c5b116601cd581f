"""The service as a process of ours: started, watched, stopped, killed; never left behind.

Its end is bound to ours in three ways: ``async with`` kills it on any way out, the command line
turns SIGINT and SIGTERM into such a way out, and should we be killed outright, the kernel kills it.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from connect_loadgen.program.child import end_child, how_ended, kill_child, start_child
from connect_loadgen.service.endpoint import Endpoint
from connect_loadgen.settings.load import JournalName, RouterName, RunSettings, StrategyName

__all__ = ["DEFAULT_COMMAND", "ServiceError", "ServiceOptions", "ServiceProcess"]

DEFAULT_COMMAND = (sys.executable, "-m", "connect_actor.cli")

# What a user needs to see of a log to know why it ended.
_TAIL_LINES = 15
_TAIL_BYTES = 16_384

# How long the kernel may take to report an end that has already broken a connection.
_MOMENT = 0.5

_Result = TypeVar("_Result")


class ServiceError(Exception):
    """The service did not start, or ended when it should not have; the message holds its log."""


# Half of what a service lets strangers make by default.
_MANY_CHANNELS = 100_000


@dataclass(frozen=True, slots=True)
class ServiceOptions:
    """How the service is to run."""

    strategy: StrategyName
    journal: JournalName
    data_dir: Path
    router: RouterName = "forwarding"
    dh_ratchet_every: int = 10
    snapshot_interval: int = 50
    redelivery_window: int = 0
    workers: int = 1
    listen: str = "127.0.0.1:0"
    metrics_listen: str = "127.0.0.1:0"
    command: tuple[str, ...] = DEFAULT_COMMAND
    """What starts it; ``serve`` and the flags are added."""
    channels: int = 0
    """That are to be made, as far as it is known."""
    flags: tuple[str, ...] = ()
    """Further flags of ``serve``."""

    @classmethod
    def of(cls, settings: RunSettings, data_dir: Path) -> "ServiceOptions":
        """Return the options that ``loadgen run`` was given."""
        return cls(
            strategy=settings.strategy,
            journal=settings.journal,
            data_dir=data_dir,
            router=settings.router,
            dh_ratchet_every=settings.dh_ratchet_every,
            snapshot_interval=settings.snapshot_interval,
            redelivery_window=settings.redelivery_window,
            workers=settings.workers,
            channels=settings.channels,
            listen=settings.listen,
            metrics_listen=settings.metrics_listen,
            command=settings.service_command or DEFAULT_COMMAND,
        )

    def command_line(self) -> list[str]:
        """Return the whole command."""
        return [
            *self.command,
            "serve",
            f"--strategy={self.strategy}",
            f"--journal={self.journal}",
            f"--data-dir={self.data_dir}",
            f"--listen={self.listen}",
            f"--metrics-listen={self.metrics_listen}",
            f"--router={self.router}",
            f"--dh-ratchet-every={self.dh_ratchet_every}",
            f"--snapshot-interval={self.snapshot_interval}",
            f"--redelivery-window={self.redelivery_window}",
            # One is what a service of before workers has, too.
            *([f"--workers={self.workers}"] if self.workers > 1 else []),
            # Twice as many, since channels are replaced; fewer are within a service's own bound.
            *([f"--max-channels={2 * self.channels}"] if self.channels > _MANY_CHANNELS else []),
            *self.flags,
        ]


@dataclass(frozen=True, slots=True)
class _Ready:
    listen: str
    metrics: str
    pid: int
    identity: bytes | None


class ServiceProcess:
    """A running service, as an async context manager; leaving it kills what still runs.

    Attributes:
        options: how it was started.
        listen: HOST:PORT of its gRPC.
        metrics: HOST:PORT of its metrics.
        pid: its process id.
        identity: its Ed25519 identity key, to pin; nothing if it did not tell.
        spawned: set once there is a process, ready or not.
    """

    def __init__(self, options: ServiceOptions, patience: float) -> None:
        """Prepare to start; ``patience`` bounds both start and stop, in seconds."""
        self.options = options
        self.listen = self.metrics = ""
        self.pid = 0
        self.identity: bytes | None = None
        self.spawned = asyncio.Event()
        self._patience = patience
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __aexit__
        self._stopping = False

    @property
    def endpoint(self) -> Endpoint:
        """Where it is, and its identity."""
        return Endpoint(self.listen, self.identity)

    async def __aenter__(self) -> Self:
        """Start the service and wait until it is ready.

        Raises:
            ServiceError: it ended, or was not ready in time.
        """
        try:
            self._process = await start_child(
                *self.options.command_line(), stdout=subprocess.PIPE, stderr=self._log
            )
            self.spawned.set()
            ready = await self._wait_until_ready(self._process)
        except BaseException:
            await self._clean_up()
            raise
        self.listen, self.metrics = ready.listen, ready.metrics
        self.pid, self.identity = ready.pid, ready.identity
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Kill what still runs."""
        await self._clean_up()

    async def stop(self) -> None:
        """Ask the service to end, and wait until it has.

        Raises:
            ServiceError: it did not end in time, or not with exit code 0.
        """
        process = self._running()
        self._stopping = True
        try:
            code = await end_child(process, self._patience)
        except TimeoutError:
            raise ServiceError(
                f"the service did not stop within {self._patience:g} s of SIGTERM\n{self._tail()}"
            ) from None
        if code != 0:
            raise ServiceError(
                f"the service did not stop in order: {how_ended(code)}\n{self._tail()}"
            )

    async def kill(self) -> None:
        """End the service as a power cut would end its process: kill -9."""
        process = self._running()
        self._stopping = True
        kill_child(process)
        await process.wait()

    async def while_alive(self, work: Coroutine[None, None, _Result]) -> _Result:
        """Do ``work``, and give it up as soon as the service ends unbidden.

        Raises:
            ServiceError: the service ended though nobody told it to.
        """
        body = asyncio.create_task(work)
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.wait({body, watch}, return_when=asyncio.FIRST_COMPLETED)
            if body.done() and not body.cancelled() and body.exception() is not None:
                # A service that dies takes its connections down first; its end is the better news.
                await asyncio.wait({watch}, timeout=_MOMENT)
            if watch.done():
                watch.result()
            return await body
        finally:
            body.cancel()
            watch.cancel()
            await asyncio.gather(body, watch, return_exceptions=True)

    async def _watch(self) -> None:
        code = await self._running().wait()
        if not self._stopping:
            raise ServiceError(f"the service died: {how_ended(code)}\n{self._tail()}")

    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError("the service was not started")
        return self._process

    async def _wait_until_ready(self, process: asyncio.subprocess.Process) -> _Ready:
        if process.stdout is None:
            raise RuntimeError("the service's standard output is not ours")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), self._patience)
        except ValueError:
            # More than the stream's limit without an end of line.
            raise ServiceError("the service said something else than that it is ready") from None
        except TimeoutError:
            raise ServiceError(
                f"the service was not ready within {self._patience:g} s\n{self._tail()}"
            ) from None
        if not line:
            code = await process.wait()
            raise ServiceError(f"the service did not start: {how_ended(code)}\n{self._tail()}")
        ready = _parse_ready(line)
        self._reader = asyncio.create_task(_discard(process.stdout))
        return ready

    async def _clean_up(self) -> None:
        process = self._process
        if process is not None:
            self._stopping = True
            kill_child(process)
            await process.wait()
        if self._reader is not None:
            self._reader.cancel()
        self._log.close()

    def _tail(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(size - _TAIL_BYTES, 0))
        lines = self._log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        if not lines:
            return "(it wrote nothing to its standard error)"
        return "end of its standard error:\n" + "\n".join(f"  {line}" for line in lines)


async def _discard(output: asyncio.StreamReader) -> None:
    # Unread, a full pipe would stop the service at its next print.
    while await output.read(_TAIL_BYTES):
        pass


def _parse_ready(line: bytes) -> _Ready:
    try:
        fields = json.loads(line)
        if fields["event"] == "ready":
            identity = fields.get("identity")
            return _Ready(
                listen=fields["listen"],
                metrics=fields["metrics"],
                pid=int(fields["pid"]),
                identity=None if identity is None else bytes.fromhex(identity),
            )
    except (ValueError, KeyError, TypeError):
        pass
    raise ServiceError(f"the service said something else than that it is ready: {line[:200]!r}")
