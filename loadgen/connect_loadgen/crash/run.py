"""The crash run of one strategy: start, prove, load, kill, and again, on one data directory."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from connect_actor.client import ConnectClient
from connect_loadgen.crash.account import Standing
from connect_loadgen.crash.blows import Blow, Phase, plan_blows
from connect_loadgen.crash.faults import FaultKind
from connect_loadgen.crash.ledger import Ledger
from connect_loadgen.crash.lines import Lines, open_lines
from connect_loadgen.crash.results import FaultRecord, StrategyFigures
from connect_loadgen.crash.settings import CrashSettings
from connect_loadgen.crash.traffic import PeerSide, Traffic
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.service.cost import MetricsError, take
from connect_loadgen.service.process import (
    DEFAULT_COMMAND,
    ServiceError,
    ServiceOptions,
    ServiceProcess,
)
from connect_loadgen.settings.load import StrategyName

__all__ = ["CrashRun"]

# Patience with a start and a stop, which say by themselves why they take long.
_PATIENCE = 60.0
# Until measured: what a start takes, and a recovery of all channels. Seconds.
_START_SECONDS = 1.0
_PROOF_SECONDS = 1.0
# A stop of some hundred channels, from SIGTERM to the end. Seconds.
_STOP_SECONDS = 0.5

_WORK = {
    "records": "connect_journal_records_total",
    "snapshots": "connect_journal_snapshots_total",
    "snapshots deleted": "connect_journal_snapshots_deleted_total",
    "records deleted": "connect_journal_records_deleted_total",
    "passivations": "connect_actor_passivations_total",
    "recoveries": "connect_actor_recoveries_total",
}

Report = Callable[[int, int, int], None]
"""Told kills, operations and faults so far."""


class CrashRun:
    """One strategy's run."""

    def __init__(
        self, settings: CrashSettings, strategy: StrategyName, data_dir: Path, report: Report
    ) -> None:
        self._settings = settings
        self._random = Random(f"{settings.seed} {strategy}")  # noqa: S311 - a plan
        self._options = ServiceOptions(
            strategy=strategy,
            journal="sqlite",
            data_dir=data_dir,
            snapshot_interval=settings.snapshot_interval,
            redelivery_window=settings.redelivery_window,
            command=settings.service_command or DEFAULT_COMMAND,
            flags=(f"--idle-timeout={settings.idle_timeout}", "--log-level=warning"),
        )
        self._report = report
        self._ledger = Ledger()
        self._peers: PeerSide | None = None
        self._identity: bytes | None = None
        self._start_seconds = _START_SECONDS
        self._proof_seconds = _PROOF_SECONDS
        self._kills: Counter[Phase] = Counter()
        self._in_flight: Counter[str] = Counter()
        self._work: Counter[str] = Counter()
        self._lives_proved = self._ended_before = self._proved_at_the_end = 0

    async def run(self) -> StrategyFigures:
        """Kill as often as the settings say, prove all channels once more, and return the figures.

        A service that does not come back is a fault, and ends the run. If the command ends early,
        the figures are those of the kills until then; what followed the last one is not proved.
        """
        begun = time.monotonic()
        blows = plan_blows(Random(self._random.random()))  # noqa: S311 - a plan
        try:
            while self._kills.total() < self._settings.kills:
                await ending().part(self._live_and_die(next(blows)))
                self._report(
                    self._kills.total(),
                    self._ledger.counts.operations.total(),
                    self._ledger.faults.counts.total(),
                )
            await ending().part(self._prove_at_the_end())
        except Ended:
            pass
        except ServiceError as error:
            self._ledger.fault(FaultKind.DOWN, str(error))
        finally:
            # The figures are complete: nothing is to be cancelled any more.
            with ending().put_off():
                if self._peers is not None:
                    await self._peers.client.close()
        return self._figures(time.monotonic() - begun)

    # --- One life ---------------------------------------------------------------------------------

    async def _live_and_die(self, blow: Blow) -> None:
        self._ledger.begin_life()
        service = ServiceProcess(self._options, _PATIENCE)
        starting = asyncio.create_task(service.__aenter__())
        try:
            if blow.phase is Phase.STARTING and await self._killed_while_starting(
                service, starting, blow.share * self._start_seconds
            ):
                return
            begun = time.monotonic()
            await starting
            if blow.phase is not Phase.STARTING:
                self._start_seconds = time.monotonic() - begun
            await service.while_alive(self._serve(service, blow))
        finally:
            starting.cancel()
            with suppress(asyncio.CancelledError, ServiceError):
                await starting
            await service.__aexit__(None, None, None)

    async def _killed_while_starting(
        self, service: ServiceProcess, starting: "asyncio.Task[ServiceProcess]", delay: float
    ) -> bool:
        spawned = asyncio.create_task(service.spawned.wait())
        await asyncio.wait({spawned, starting}, return_when=asyncio.FIRST_COMPLETED)
        spawned.cancel()
        await asyncio.wait({starting}, timeout=delay)
        if starting.done():
            return False
        await service.kill()
        self._kills[Phase.STARTING] += 1
        return True

    async def _serve(self, service: ServiceProcess, blow: Blow) -> None:
        peers = self._peers_of(service)
        async with open_lines(service.listen, self._ledger, self._settings.hang_limit) as lines:
            traffic = Traffic(self._ledger, lines, peers, self._settings.hang_limit)
            tasks = (
                asyncio.create_task(traffic.run(self._settings.in_flight)),
                asyncio.create_task(self._strike(service, blow, traffic, lines)),
            )
            try:
                # Not a task group: its exceptions would come in a group, too.
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            self._lives_proved += traffic.all_proved

    async def _strike(
        self, service: ServiceProcess, blow: Blow, traffic: Traffic, lines: Lines
    ) -> None:
        """Kill the service when the blow is due, whatever it is doing then."""
        if blow.phase in (Phase.STARTING, Phase.RECOVERING):
            # A start that was meant to be hit and was over sooner is hit right behind.
            share = blow.share if blow.phase is Phase.RECOVERING else 0.0
            await asyncio.sleep(share * self._proof_seconds)
            await self._kill(service, traffic, lines)
            return
        begun = time.monotonic()
        await traffic.proof_ended.wait()
        if traffic.all_proved and self._kills.total():
            # Of a first life there is nothing to prove.
            self._proof_seconds = time.monotonic() - begun
        await asyncio.sleep(blow.share * self._settings.load_seconds)
        await self._read_work(service)
        if blow.phase is Phase.UNDER_LOAD:
            await self._kill(service, traffic, lines)
        else:
            await self._kill_while_stopping(service, blow.share * _STOP_SECONDS, lines)

    async def _kill(self, service: ServiceProcess, traffic: Traffic, lines: Lines) -> None:
        phase = Phase.UNDER_LOAD if traffic.all_proved else Phase.RECOVERING
        self._count_kill(phase, lines)
        await service.kill()

    async def _kill_while_stopping(
        self, service: ServiceProcess, delay: float, lines: Lines
    ) -> None:
        stopping = asyncio.create_task(service.stop())
        await asyncio.wait({stopping}, timeout=delay)
        if stopping.done():
            # Not in order: that is no kill of ours, and a fault.
            stopping.result()
            self._ended_before += 1
            return
        self._count_kill(Phase.DRAINING, lines)
        await service.kill()
        with suppress(ServiceError):
            await stopping

    def _count_kill(self, phase: Phase, lines: Lines) -> None:
        self._kills[phase] += 1
        self._in_flight.update(set(lines.in_flight()))

    async def _read_work(self, service: ServiceProcess) -> None:
        with suppress(MetricsError):
            reading = await take(service.metrics)
            for name, series in _WORK.items():
                if series in reading.metrics:
                    self._work[name] += int(reading.metrics[series])

    def _peers_of(self, service: ServiceProcess) -> PeerSide:
        if self._peers is None:
            self._identity = service.identity
            client = ConnectClient(service.listen, pinned_identity=service.identity)
            self._peers = PeerSide(client, self._random, self._settings.channels)
        elif service.identity != self._identity:
            self._ledger.fault(FaultKind.DOWN, "the service came back with another identity")
        return self._peers

    # --- The end ----------------------------------------------------------------------------------

    async def _prove_at_the_end(self) -> None:
        self._ledger.begin_life()
        async with ServiceProcess(self._options, _PATIENCE) as service:
            await service.while_alive(self._last_proof(service))
            await service.stop()

    async def _last_proof(self, service: ServiceProcess) -> None:
        peers = self._peers_of(service)
        async with open_lines(service.listen, self._ledger, self._settings.hang_limit) as lines:
            traffic = Traffic(self._ledger, lines, peers, self._settings.hang_limit)
            await traffic.prove(with_held=True)
        if traffic.all_proved:
            self._lives_proved += 1
            self._proved_at_the_end = len(self._ledger.channels(Standing.OPEN))
        else:
            self._ledger.fault(FaultKind.DOWN, "the last proof could not be finished")

    def _figures(self, seconds: float) -> StrategyFigures:
        ledger = self._ledger
        return StrategyFigures(
            strategy=self._options.strategy,
            seconds=seconds,
            kills={phase.value: self._kills[phase] for phase in Phase},
            lives=ledger.life,
            ended_before_the_kill=self._ended_before,
            lives_proved=self._lives_proved,
            kills_with_in_flight=dict(sorted(self._in_flight.items())),
            operations=ledger.counts.by_name(),
            messages=ledger.messages,
            replays_refused=ledger.counts.replays_refused,
            undecided_refused=ledger.counts.undecided_refused,
            redelivered=ledger.counts.redelivered,
            channels=ledger.established,
            closed=len(ledger.channels(Standing.CLOSED)),
            proved_at_the_end=self._proved_at_the_end,
            service_work=dict(self._work),
            faults={kind.value: count for kind, count in ledger.faults.counts.items()},
            fault_records=[
                FaultRecord(
                    kind=fault.kind.value,
                    connect_id=fault.connect_id,
                    life=fault.life,
                    text=fault.text,
                )
                for fault in ledger.faults.kept
            ],
        )
