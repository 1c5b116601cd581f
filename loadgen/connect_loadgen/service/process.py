"""The service as a process of ours."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from connect_loadgen.program.running import ProgramError, RunningProgram
from connect_loadgen.service.endpoint import Endpoint
from connect_loadgen.settings.load import JournalName, RouterName, RunSettings, StrategyName

__all__ = ["DEFAULT_COMMAND", "ServiceError", "ServiceOptions", "ServiceProcess"]

DEFAULT_COMMAND = (sys.executable, "-m", "connect_actor.cli")


class ServiceError(ProgramError):
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


class ServiceProcess(RunningProgram[_Ready]):
    """A running service, as an async context manager; leaving it kills what still runs.

    Attributes:
        options: how it was started.
        listen: HOST:PORT of its gRPC.
        metrics: HOST:PORT of its metrics.
        pid: its process id.
        identity: its Ed25519 identity key, to pin; nothing if it did not tell.
    """

    error = ServiceError

    def __init__(self, options: ServiceOptions, patience: float) -> None:
        """Prepare to start; ``patience`` bounds both start and stop, in seconds."""
        super().__init__("the service", options.command_line(), _parse_ready, patience)
        self.options = options
        self.listen = self.metrics = ""
        self.pid = 0
        self.identity: bytes | None = None

    @property
    def endpoint(self) -> Endpoint:
        """Where it is, and its identity."""
        return Endpoint(self.listen, self.identity)

    async def __aenter__(self) -> Self:
        """Start the service and wait until it is ready.

        Raises:
            ServiceError: it ended, or was not ready in time.
        """
        await super().__aenter__()
        ready = self.ready
        self.listen, self.metrics = ready.listen, ready.metrics
        self.pid, self.identity = ready.pid, ready.identity
        return self


def _parse_ready(line: str) -> _Ready:
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
