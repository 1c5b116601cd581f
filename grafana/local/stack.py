"""The demo stack as processes: one service for each strategy, each under the same load, Prometheus.

Everything is real: services on their on-disk journal, load over gRPC, Prometheus with the rules
and the scrape configuration of the compose stack, but for addresses and intervals.
"""

import asyncio
import re
import sys
import tempfile
from collections.abc import Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, get_args

from ruamel.yaml import YAML

from connect_loadgen.program.exits import Exit
from connect_loadgen.program.running import RunningProgram
from connect_loadgen.service.process import DEFAULT_COMMAND, ServiceOptions, ServiceProcess
from connect_loadgen.settings.load import StrategyName
from grafana.local.programs import Programs
from grafana.local.prometheus import PrometheusApi, prometheus_process

__all__ = ["STRATEGIES", "LocalStack", "StackOptions", "configuration", "enter_all"]

STRATEGIES: tuple[StrategyName, ...] = get_args(StrategyName)

PROMETHEUS_DIR = Path(__file__).parents[1] / "prometheus"

_YAML = YAML(typ="safe")

_PATIENCE = 60

# As long as a load can be told to last: a day.
_DURATION = 86_400

_SERVING = re.compile(r"serving the generator's metrics at http://(\S+)/metrics")


@dataclass(frozen=True, slots=True)
class StackOptions:
    """How much of a load, and how closely it is watched."""

    rate: str = "batch:64:960"
    """Operations per second on each service in the course's first part, as ``loadgen`` has it."""
    concurrency: int = 128
    """Operations in flight on each service in its second part."""
    part_seconds: float = 90
    """How long a part of the course lasts."""
    channels: int = 1000
    """Channels of each service."""
    idle_timeout: float = 8
    """Seconds until an idle actor passivates. Channels are drawn evenly, so one rests this long
    before an operation with probability exp(-idle_timeout * rate / channels): here 0.6 %, which
    gives recovery something to show and hardly weighs on the rest."""
    scrape_seconds: float = 2
    """Seconds between two scrapes, and between two evaluations of the rules."""
    prometheus_listen: str = "127.0.0.1:0"


def configuration(
    services: Mapping[str, str], loads: Mapping[str, str], scrape_seconds: float
) -> dict[str, Any]:
    """Return the compose stack's Prometheus configuration for other addresses.

    Args:
        services: the metrics address of the service of each strategy.
        loads: the metrics address of the generator that loads it.
        scrape_seconds: how often to scrape, and to evaluate rules.
    """
    config: dict[str, Any] = _YAML.load(PROMETHEUS_DIR / "prometheus.yml")
    milliseconds = round(scrape_seconds * 1000)
    config["global"] = {
        "scrape_interval": f"{milliseconds}ms",
        "scrape_timeout": f"{milliseconds}ms",
        "evaluation_interval": f"{milliseconds}ms",
    }
    # There the folder is mounted at /etc/prometheus.
    config["rule_files"] = [
        pattern.replace("/etc/prometheus", str(PROMETHEUS_DIR)) for pattern in config["rule_files"]
    ]
    addresses = {f"service-{name}:9464": address for name, address in services.items()} | {
        f"load-{name}:9465": address for name, address in loads.items()
    }
    for job in config["scrape_configs"]:
        for targets in job["static_configs"]:
            targets["targets"] = [addresses[target] for target in targets["targets"]]
    return config


class LocalStack:
    """The running stack, as an async context manager; leaving it ends everything.

    Attributes:
        prometheus: how to ask it.
        services: the service of each strategy.
        loads: the metrics address of the generator of each strategy.
    """

    def __init__(self, programs: Programs, options: StackOptions) -> None:
        """Prepare to start it."""
        self.prometheus = PrometheusApi("")
        self.services: dict[str, ServiceProcess] = {}
        self.loads: dict[str, str] = {}
        self._programs = programs
        self._options = options
        self._others: list[RunningProgram[str]] = []
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Start services, loads and Prometheus, each kind once the one before it is ready.

        Raises:
            ProgramError: one of them did not start.
        """
        async with AsyncExitStack() as exits:
            directory = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="stack-")))
            self.services = {
                strategy: self._service(strategy, directory / strategy) for strategy in STRATEGIES
            }
            await enter_all(exits, self.services.values())
            loads = {name: self._load(service) for name, service in self.services.items()}
            await enter_all(exits, loads.values())
            self._others += loads.values()
            self.loads = {name: load.ready for name, load in loads.items()}
            config = directory / "prometheus.yml"
            metrics = {strategy: service.metrics for strategy, service in self.services.items()}
            _YAML.dump(configuration(metrics, self.loads, self._options.scrape_seconds), config)
            prometheus = prometheus_process(
                self._programs, config, directory / "prometheus", self._options.prometheus_listen
            )
            self._others.append(await exits.enter_async_context(prometheus))
            self.prometheus = PrometheusApi(prometheus.ready)
            self._exits = exits.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End everything in order, or by force if we leave because of an error.

        Raises:
            ProgramError: one of them did not stop in order; by now it is killed.
        """
        async with self._exits:
            if kind is None:
                await asyncio.gather(*(other.stop() for other in self._others))
                await asyncio.gather(*(service.stop() for service in self.services.values()))

    async def while_alive(self, work: Coroutine[None, None, None]) -> None:
        """Do ``work``, and give it up as soon as a part of the stack ends, which none should.

        Raises:
            ProgramError: one has.
        """
        programs: list[RunningProgram[Any]] = [*self._others, *self.services.values()]
        for program in programs:
            work = program.while_alive(work)
        await work

    def _service(self, strategy: StrategyName, data_dir: Path) -> ServiceProcess:
        timeout = f"CONNECT_ACTOR_IDLE_TIMEOUT={self._options.idle_timeout}"
        # Behind the generators, so that at the limit all services share what these leave evenly.
        command = ("nice", "-n", "5", "env", timeout, *DEFAULT_COMMAND)
        options = ServiceOptions(strategy, "sqlite", data_dir, command=command)
        return ServiceProcess(options, _PATIENCE)

    def _load(self, service: ServiceProcess) -> RunningProgram[str]:
        return RunningProgram(
            f"the load on {service.options.strategy}",
            (
                sys.executable,
                "-m",
                "connect_loadgen.cli",
                "run",
                f"--target={service.listen}",
                "--serve-metrics=127.0.0.1:0",
                f"--channels={self._options.channels}",
                f"--rate={self._options.rate}",
                f"--concurrency={self._options.concurrency}",
                f"--alternate-seconds={self._options.part_seconds}",
                "--warm-up-seconds=0",
                f"--duration-seconds={_DURATION}",
            ),
            _address,
            _PATIENCE,
            says_on_stderr=True,
            ends_with=Exit.INTERRUPTED,
        )


async def enter_all(
    exits: AsyncExitStack, contexts: Iterable[AbstractAsyncContextManager[object]]
) -> None:
    """Enter them side by side; whichever were entered when one fails are left by ``exits``."""
    tasks = [asyncio.create_task(exits.enter_async_context(context)) for context in contexts]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            # Once: a second cancellation would interrupt the cleaning up that follows the first.
            if not task.cancelling():
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _address(said: str) -> str | None:
    found = _SERVING.search(said)
    return found and found[1]
