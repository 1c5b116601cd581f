"""The supervisor: starts the workers, speaks for them as one service, and ends with them.

It serves no call and opens no journal. If one worker ends unbidden, it stops the others and ends
with that one's exit code, as a service of one process would: whoever looks after the service starts
it anew, whole. Starting one alone would have to link it to the others again, and would hide what
ended it. A worker that stands still is killed, so it ends, too. If the supervisor itself is killed,
the kernel kills the workers.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import connect_actor
from connect_actor.network.addresses import ListenError, parse_host_port
from connect_actor.observe.exposition import serve_collector
from connect_actor.process.exit_codes import RIGHT, UNHEALTHY
from connect_actor.process.heartbeat import BEAT_SECONDS
from connect_actor.process.program import announce_ready
from connect_actor.process.worker_metrics import WorkersCollector
from connect_actor.settings import Settings
from connect_actor.workers.address import reserved
from connect_actor.workers.member import Member

__all__ = ["supervise"]

_log = logging.getLogger(__name__)

# Seconds that workers may take to end beyond their own grace.
_LAST_PATIENCE = 10.0
# Shells' own: 128 and the number of the signal.
_ENDED_BY_SIGNAL = 128


async def supervise(settings: Settings, flags: Sequence[str]) -> int:
    """Run the service as several processes until SIGTERM or SIGINT; return the exit code.

    Args:
        settings: of the whole service.
        flags: that they were read from, which the workers read again.

    Raises:
        ListenError: an address can't be listened on.
    """
    with reserved(settings.listen) as listen:
        metrics = WorkersCollector()
        try:
            server = serve_collector(metrics, settings.metrics_listen)
        except OSError as error:
            raise ListenError.of("metrics_listen", settings.metrics_listen, error) from error
        listens_at = parse_host_port(settings.metrics_listen).with_port(server.server_port)
        workers = _Workers(settings, flags, listen, metrics)
        try:
            return await workers.run(str(listens_at))
        finally:
            server.shutdown()


@dataclass(slots=True)
class _Worker:
    number: int
    process: asyncio.subprocess.Process
    is_ready: bool = False
    """Whether it takes signals as a service does."""
    missed_beats: int = 0
    """Since its last sign of life."""


class _Workers:
    """All workers of a service."""

    def __init__(
        self, settings: Settings, flags: Sequence[str], listen: str, metrics: WorkersCollector
    ) -> None:
        self._settings = settings
        self._flags = flags
        self._listen = listen
        self._metrics = metrics
        self._pairs = _SocketPairs(settings.workers)
        self._workers: list[_Worker] = []
        self._watches: set[asyncio.Task[None]] = set()
        self._listeners: list[asyncio.Task[None]] = []
        self._end: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        """The exit code, once it is known that the service ends."""

    async def run(self, metrics: str) -> int:
        """Start the workers, wait for the end, and bring it about; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end_with, RIGHT)
        loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP)
        starting = asyncio.create_task(self._start_all())
        counting = asyncio.create_task(self._count_beats())
        either: set[asyncio.Future[Any]] = {starting, self._end}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not self._end.done():
                announce_ready(
                    listen=self._listen, metrics=metrics, identity=starting.result()["identity"]
                )
            code = await self._end
        finally:
            starting.cancel()
            counting.cancel()
            self._pairs.close()
            await self._stop_all()
        # One that was stopped before it was ready has not gone wrong.
        return code or max(
            (worker.process.returncode or RIGHT for worker in self._workers), default=RIGHT
        )

    def _end_with(self, code: int) -> None:
        if not self._end.done():
            self._end.set_result(code)

    def _pass_on(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.is_ready and worker.process.returncode is None:
                worker.process.send_signal(number)

    # --- Starting ---------------------------------------------------------------------------------

    async def _start_all(self) -> dict[str, Any]:
        """Return what the first worker has said of itself, once all are ready."""
        # Alone, since it makes what all share: the keys and the identity.
        ready = await self._start(0)
        await asyncio.gather(*map(self._start, range(1, self._settings.workers)))
        self._pairs.close()
        return ready

    async def _start(self, number: int) -> dict[str, Any]:
        links = self._pairs.of(number)
        member = Member(
            number, self._settings.workers, self._listen, parent=os.getpid(), links=links
        )
        # The very program that runs here, wherever that was found.
        root = str(Path(connect_actor.__file__).parents[1])
        paths = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "connect_actor.process.worker",
            member.to_text(),
            *self._flags,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            pass_fds=tuple(links.values()),
            env={**os.environ, "PYTHONPATH": paths},
        )
        worker = _Worker(number, process)
        self._workers.append(worker)
        self._watches.add(asyncio.create_task(self._watch(worker)))
        told: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._listeners.append(asyncio.create_task(_listen(worker, told)))
        # If it ends before, its watch will tell; then this task is cancelled.
        ready: dict[str, Any] = json.loads(await told)
        worker.is_ready = True
        self._metrics.add(number, ready["metrics"])
        return ready

    async def _watch(self, worker: _Worker) -> None:
        code = await worker.process.wait()
        if self._end.done():
            return
        _log.error("worker %d has ended with %d: the others are stopped", worker.number, code)
        # Even in order it was not in order.
        self._end_with(_ENDED_BY_SIGNAL - code if code < 0 else code or UNHEALTHY)

    async def _count_beats(self) -> None:
        """Kill whichever worker stands still for too long; its watch tells the rest."""
        patience = self._settings.worker_timeout
        while patience:
            await asyncio.sleep(BEAT_SECONDS)
            for worker in self._workers:
                # Before, it may be opening a large journal.
                worker.missed_beats += worker.is_ready
                # One may be on its way.
                if (worker.missed_beats - 1) * BEAT_SECONDS > patience:
                    _log.error(
                        "worker %d has stood still for %g s and is killed", worker.number, patience
                    )
                    worker.missed_beats = 0
                    with suppress(ProcessLookupError):
                        worker.process.kill()

    # --- Stopping ---------------------------------------------------------------------------------

    async def _stop_all(self) -> None:
        self._signal_all(signal.SIGTERM)
        patience = self._settings.shutdown_grace + _LAST_PATIENCE
        if self._watches:
            _, hanging = await asyncio.wait(self._watches, timeout=patience)
            if hanging:
                _log.error("%d workers did not stop in time and are killed", len(hanging))
                self._signal_all(signal.SIGKILL)
                await asyncio.wait(hanging)

    def _signal_all(self, number: signal.Signals) -> None:
        for worker in self._workers:
            if worker.process.returncode is None:
                with suppress(ProcessLookupError):
                    worker.process.send_signal(number)


async def _listen(worker: _Worker, told: "asyncio.Future[str]") -> None:
    """Take what a worker says to its end: beats, and one line of its own."""
    assert worker.process.stdout is not None  # noqa: S101 - asked for when it was started
    async for line in worker.process.stdout:
        worker.missed_beats = 0
        if line.strip() and not told.done():
            told.set_result(line.decode())


class _SocketPairs:
    """A connection between each two workers, made before any of them."""

    def __init__(self, workers: int) -> None:
        self._ends: dict[tuple[int, int], socket.socket] = {}
        for one, other in combinations(range(workers), 2):
            self._ends[one, other], self._ends[other, one] = socket.socketpair()

    def of(self, worker: int) -> dict[int, int]:
        """Return a worker's file descriptors to the others, by their numbers."""
        return {other: end.fileno() for (one, other), end in self._ends.items() if one == worker}

    def close(self) -> None:
        """Close them here: where they were handed on they stay open, and end with their process."""
        for end in self._ends.values():
            end.close()
