"""Where attacks happen: a service, a victim who calls it, and an attacker in a third process."""

import asyncio
import multiprocessing
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import grpc
import psutil

from connect_actor.access.tokens import new_token, token_line
from connect_actor.client import ConnectClient, Identity
from connect_actor.errors import ConnectError
from tests.attacks.attacks import ATTACKS, Attack, Target
from tests.support.process import RunningService

__all__ = ["MAX_BYTES", "Phase", "Report", "attack_and_watch"]

MAX_BYTES = 128 << 20
"""What the service is told to hold at most (``--max-bytes-in-service``)."""

_HAPROXY = Path(__file__).parents[2] / "docs" / "how-to" / "haproxy.cfg"

# Seconds that a call of the victim may take; then it has failed.
_PATIENCE = 20.0
# Seconds between two calls of the victim, and between two looks at memory.
_PAUSE = 0.005
_LOOK = 0.05
# Seconds that the attacker has before the victim is watched.
_BEGIN = 1.0


@dataclass(slots=True)
class Phase:
    """What the victim's calls met."""

    seconds: list[float]
    """Of each call that was served."""
    failed: int = 0

    def quantile(self, share: float) -> float:
        """Return a quantile of the latency, in seconds."""
        ordered = sorted(self.seconds)
        return (
            ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("nan")
        )


@dataclass(frozen=True, slots=True)
class Report:
    """One attack's row."""

    attack: Attack
    alone: Phase
    attacked: Phase
    afterwards: Phase
    base_bytes: int
    """Resident memory before."""
    peak_bytes: int
    """Most of it that was seen during the attack."""
    log_bytes: int
    """What the service has written to its log."""

    @property
    def held_bytes(self) -> int:
        """What the attack had the service hold."""
        return self.peak_bytes - self.base_bytes


def attack_and_watch(attack: Attack, seconds: float, *, haproxy: bool = False) -> Report:
    """Run an attack; each of the three phases takes so many seconds.

    Args:
        attack: what is done to the service.
        seconds: of each phase.
        haproxy: with the proxy of docs/how-to/haproxy.cfg in front, which has to be installed.
    """
    with tempfile.TemporaryDirectory() as name, _Arena(Path(name), attack) as arena:
        if not haproxy:
            return asyncio.run(arena.run(seconds))
        with _proxy(arena):
            return asyncio.run(arena.run(seconds))


@contextmanager
def _proxy(arena: "_Arena") -> Iterator[None]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        listen = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "LISTEN": listen, "SERVICE": arena.target.listen}
    proxy = subprocess.Popen(  # noqa: S603 - our own configuration
        ["haproxy", "-db", "-f", str(_HAPROXY)],  # noqa: S607 - wherever it is installed
        env=environment,
    )
    try:
        arena.target = replace(arena.target, listen=listen)
        yield
    finally:
        proxy.kill()
        proxy.wait()


class _Arena:
    """A service and what happens to it."""

    def __init__(self, directory: Path, attack: Attack) -> None:
        self._attack = attack
        self._log = directory / "log"
        self._alice = new_token()
        mallory = new_token()
        tokens = directory / "tokens"
        tokens.touch(0o600)
        tokens.write_text(f"{token_line('alice', self._alice)}\n{token_line('mallory', mallory)}\n")
        arguments = [
            "--listen=127.0.0.1:0",
            "--metrics-listen=127.0.0.1:0",
            f"--data-dir={directory / 'data'}",
            f"--max-bytes-in-service={MAX_BYTES}",
        ]
        if not attack.open_service:
            arguments.append(f"--token-file={tokens}")
        self._service = RunningService(arguments, self._log)
        ready = self._service.ready
        self.target = Target(ready["listen"], ready["metrics"], mallory)
        self._process = psutil.Process(self._service.process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._service.process.kill()
        self._service.process.wait()
        if self._service.process.stdout is not None:
            self._service.process.stdout.close()

    async def run(self, seconds: float) -> Report:
        """Watch a victim before, during and after the attack."""
        token = None if self._attack.open_service else self._alice
        async with ConnectClient(self.target.listen, token=token) as client:
            await asyncio.wait_for(self._reachable(), _PATIENCE)
            self._channel = await client.establish(Identity.generate(os.urandom))
            alone = await self._victim(seconds)
            base = self._process.memory_info().rss
            attacker = multiprocessing.get_context("spawn").Process(
                target=_attack, args=(self._attack.name, self.target), daemon=True
            )
            attacker.start()
            memory = asyncio.ensure_future(self._peak())
            try:
                await asyncio.sleep(_BEGIN)
                attacked = await self._victim(seconds)
            finally:
                memory.cancel()
                attacker.kill()
                attacker.join()
            # Calls that the attack has left at work are part of it.
            await self._victim(_BEGIN)
            afterwards = await self._victim(seconds)
        return Report(
            self._attack, alone, attacked, afterwards, base, self._most, self._log.stat().st_size
        )

    async def _reachable(self) -> None:
        host, _, port = self.target.listen.rpartition(":")
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                await asyncio.sleep(_LOOK)
            else:
                writer.close()
                return

    async def _peak(self) -> None:
        self._most = 0
        while True:
            self._most = max(self._most, self._process.memory_info().rss)
            await asyncio.sleep(_LOOK)

    async def _victim(self, seconds: float) -> Phase:
        phase = Phase([])
        until = time.monotonic() + seconds
        while time.monotonic() < until or not (phase.seconds or phase.failed):
            begun = time.perf_counter()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._channel.encrypt(bytes(64))
            except (grpc.aio.AioRpcError, ConnectError, TimeoutError):
                phase.failed += 1
            else:
                phase.seconds.append(time.perf_counter() - begun)
            await asyncio.sleep(_PAUSE)
        return phase


def _attack(name: str, target: Target) -> None:
    asyncio.run(ATTACKS[name].run(target))
