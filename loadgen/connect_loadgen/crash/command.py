"""``loadgen crash``: the crash run of each strategy, one after another."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from connect_loadgen.crash.results import CrashResult
from connect_loadgen.crash.run import CrashRun
from connect_loadgen.crash.settings import CrashSettings
from connect_loadgen.experiment.environment import describe_environment
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.program.scratch import scratch_directory

__all__ = ["execute_crash"]

# In a pipe, where no bar moves.
_KILLS_A_LINE = 20


async def execute_crash(settings: CrashSettings, progress: CommandProgress) -> CrashResult:
    """Run all strategies; what a service does wrong is in the result and raises nothing.

    Raises:
        Ended: the command ended before an operation was acknowledged.
    """
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    with _data_dir(settings) as data_dir:
        environment = describe_environment(data_dir)
        strategies = []
        for number, strategy in enumerate(settings.strategy, 1):
            progress.step(f"{number} of {len(settings.strategy)}, {strategy}")
            report = partial(_show, progress, settings.kills)
            if ending().reason is None:
                run = CrashRun(settings, strategy, data_dir / strategy, report)
                strategies.append(await run.run())
        if not any(figures.done for figures in strategies) and ending().reason is not None:
            raise Ended(ending().reason)
    return CrashResult(
        started_at=started_at,
        settings=settings.model_dump(mode="json"),
        environment=environment,
        cut_short=ending().reason,
        strategies=strategies,
    )


def _show(
    progress: CommandProgress, planned: int, kills: int, operations: int, faults: int
) -> None:
    text = f"{kills} of {planned} kills, {operations:,} operations, {faults} faults"
    progress.tick(min(kills / planned, 1.0), text)
    if kills % _KILLS_A_LINE == 0:
        progress.note(text)


@contextmanager
def _data_dir(settings: CrashSettings) -> Iterator[Path]:
    if settings.data_dir is not None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        yield settings.data_dir
        return
    with scratch_directory() as directory:
        yield directory
