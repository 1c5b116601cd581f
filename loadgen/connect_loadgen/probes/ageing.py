"""Whether age makes a service slower: the soaked one beside a fresh one, in turns, under one load.

A trend over an hour holds whatever the machine did in that hour. Two services that take the same
load seconds apart on the same machine differ in their age alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from connect_loadgen.drive.lines import Lines, open_lines, p50_of, p99_of
from connect_loadgen.drive.load import Progress
from connect_loadgen.experiment.numbers import Spread, ratio_to
from connect_loadgen.experiment.results import Record
from connect_loadgen.experiment.turns import shuffled_rounds
from connect_loadgen.program.scratch import scratch_directory
from connect_loadgen.service.process import ServiceProcess
from connect_loadgen.service.sampling import cpu_seconds_of
from connect_loadgen.settings.soak import SoakSettings

__all__ = ["Ageing", "compare_with_fresh"]


class Ageing(Record):
    """The soaked service, of a fresh one under the same load, over rounds in turns."""

    p50: Spread | None
    p99: Spread | None
    """Of a turn's median second."""
    cpu: Spread | None
    """CPU of an operation."""
    failed: int
    """Operations of all turns that were refused, or answered wrongly."""


@dataclass(frozen=True, slots=True)
class _Turn:
    p50_ms: float | None
    p99_ms: float | None
    cpu_us: float | None
    failed: int


@dataclass(frozen=True, slots=True)
class _Side:
    service: ServiceProcess
    lines: Lines
    turns: list[_Turn] = field(default_factory=list)


async def compare_with_fresh(
    service: ServiceProcess,
    lines: Lines,
    rate: float,
    settings: SoakSettings,
    progress: Progress,
) -> Ageing:
    """Give a soaked service and a fresh one their turns, both at the same rate.

    Args:
        service: the soaked one.
        lines: to it, nothing in flight.
        rate: operations per second.
        settings: the load, and how many rounds of how many seconds.
        progress: told how it goes.

    Raises:
        ServiceError: the fresh service did not start, or died.
        TransportError: one of them could not be reached.
        MetricsError: a service does not tell what it uses.
    """
    progress.step("starting a fresh service beside it")
    with scratch_directory() as data_dir:
        options = replace(service.options, data_dir=data_dir)
        async with ServiceProcess(options, settings.timeout_seconds) as fresh:
            found = await fresh.while_alive(
                _take_turns(_Side(service, lines), fresh, rate, settings, progress)
            )
            await fresh.stop()
    return found


async def _take_turns(
    soaked: _Side,
    fresh_service: ServiceProcess,
    rate: float,
    settings: SoakSettings,
    progress: Progress,
) -> Ageing:
    async with open_lines(fresh_service.endpoint, settings, settings.connections) as lines:
        fresh = _Side(fresh_service, lines)
        # What grows at first (caches, tables, the journal) has grown by then.
        await _turn(fresh, rate, settings)
        rounds = shuffled_rounds((soaked, fresh), settings.fresh_rounds, settings.seed)
        for number, order in enumerate(rounds, 1):
            progress.step(f"beside a fresh service, round {number} of {settings.fresh_rounds}")
            for side in order:
                side.turns.append(await _turn(side, rate, settings))
    return _ageing(soaked.turns, fresh.turns)


async def _turn(side: _Side, rate: float, settings: SoakSettings) -> _Turn:
    phase = side.lines.begin(settings.fresh_seconds, min(1.0, settings.fresh_seconds))
    before = await cpu_seconds_of(side.service.metrics)
    await side.lines.open(phase, str(rate), settings)
    spent = await cpu_seconds_of(side.service.metrics) - before
    windows = phase.windows()
    answered = sum(each.finished for each in phase.recorders)
    return _Turn(
        p50_ms=p50_of(windows),
        p99_ms=p99_of(windows),
        cpu_us=spent / answered * 1e6 if answered else None,
        failed=phase.wrong + phase.errors.total(),
    )


def _ageing(soaked: Sequence[_Turn], fresh: Sequence[_Turn]) -> Ageing:
    return Ageing(
        p50=ratio_to([turn.p50_ms for turn in fresh], [turn.p50_ms for turn in soaked]),
        p99=ratio_to([turn.p99_ms for turn in fresh], [turn.p99_ms for turn in soaked]),
        cpu=ratio_to([turn.cpu_us for turn in fresh], [turn.cpu_us for turn in soaked]),
        failed=sum(turn.failed for turn in (*soaked, *fresh)),
    )
