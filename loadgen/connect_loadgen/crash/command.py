"""``loadgen crash``: the crash run of each strategy, one after another."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from connect_loadgen.crash.results import StrategyFigures
from connect_loadgen.crash.run import CrashRun
from connect_loadgen.crash.settings import CrashSettings
from connect_loadgen.experiment.conduct import Conduct
from connect_loadgen.experiment.results import Result, Withheld
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.program.scratch import scratch_directory
from connect_loadgen.report.blocks import Table
from connect_loadgen.report.page import Look
from connect_loadgen.report.tables import plain_table

__all__ = ["LOOK", "parts_of", "run_crash"]

_NO_FAULT = (
    "No fault: nothing acknowledged was lost, no place on a chain and no nonce bore two messages,"
    " every channel goes on talking, nothing hung."
)
# More would hide the first ones; all that were kept are in the file.
_SHOWN_FAULTS = 20


async def run_crash(
    settings: CrashSettings, progress: CommandProgress
) -> Result[list[StrategyFigures]]:
    """Run all strategies; what a service does wrong is in the result and raises nothing.

    Raises:
        Ended: the command ended before an operation was acknowledged.
    """
    conduct, strategies = Conduct(settings), []
    with scratch_directory() as temporary:
        data_dir = settings.data_dir or temporary
        data_dir.mkdir(parents=True, exist_ok=True)
        for number, strategy in enumerate(settings.strategy, 1):
            progress.step(f"{number} of {len(settings.strategy)}, {strategy}")
            report = partial(_show, progress, settings.kills)
            if ending().reason is None:
                run = CrashRun(settings, strategy, data_dir / strategy, report)
                strategies.append(await run.run())
        if not any(figures.done for figures in strategies) and ending().reason is not None:
            raise Ended(ending().reason)
        return conduct.result(data_dir, strategies, **parts_of(strategies))


def parts_of(strategies: Sequence[StrategyFigures]) -> dict[str, Any]:
    """Return what the result says of these runs."""
    withheld = [
        Withheld.nothing_shown(
            f"{each.strategy}: nothing was {what}, so nothing is proved: no verdict",
        )
        for each in strategies
        for number, what in ((each.total_kills, "killed"), (each.done, "acknowledged"))
        if not number
    ]
    faults = [fault for each in strategies for fault in _faults(each)]
    answer = []
    if not (faults or withheld or ending().reason):
        answer = [_NO_FAULT]
    return {"answer": answer, "faults": faults, "withheld": withheld}


def _show(
    progress: CommandProgress, planned: int, kills: int, operations: int, faults: int
) -> None:
    text = f"{kills} of {planned} kills, {operations:,} operations, {faults} faults"
    progress.tick(min(kills / planned, 1.0), text)


# --- The report -----------------------------------------------------------------------------------


def _tables(result: Result[Any]) -> Iterator[Table]:
    yield _table("Kills, by what the service was doing", result.detail, _kills)
    yield _table("What the ledger holds", result.detail, _holdings)
    yield _table("Operations", result.detail, _operations)


def _table(
    title: str,
    strategies: Sequence[StrategyFigures],
    rows: Callable[[StrategyFigures], Mapping[str, int]],
) -> Table:
    """Return a table with a row for each figure and a column for each strategy."""
    columns = [rows(figures) for figures in strategies]
    names = dict.fromkeys(name for column in columns for name in column)
    return plain_table(
        title,
        ("", *(f"{figures.strategy}|" for figures in strategies)),
        ((name, *(column.get(name, 0) for column in columns)) for name in names),
    )


def _kills(figures: StrategyFigures) -> dict[str, int]:
    return {
        "kills": figures.total_kills,
        **figures.kills,
        **{f"with {name} in flight": kills for name, kills in figures.kills_with_in_flight.items()},
        "lives in which every channel was proved": figures.lives_proved,
        "stopped in order before the kill was due": figures.ended_before_the_kill,
    }


def _holdings(figures: StrategyFigures) -> dict[str, int]:
    return {
        "faults": sum(figures.faults.values()),
        "messages seen, all different": figures.messages,
        "acknowledged, sent again, refused as replays": figures.replays_refused,
        "acknowledged, sent again, redelivered": figures.redelivered,
        "without answer, sent again, refused as replays": figures.undecided_refused,
        "channels established": figures.channels,
        "channels closed": figures.closed,
        "channels open at the end, all proved": figures.proved_at_the_end,
        **{
            f"{name} of the service, at least": value
            for name, value in figures.service_work.items()
        },
    }


def _operations(figures: StrategyFigures) -> dict[str, int]:
    return {
        f"{name}, {end}": operations
        for name, ends in figures.operations.items()
        for end, operations in ends.items()
    }


def _faults(figures: StrategyFigures) -> Iterator[str]:
    for kind, faults in figures.faults.items():
        yield f"{figures.strategy}: {faults:,} x {kind}"
    for record in figures.fault_records[:_SHOWN_FAULTS]:
        channel = "" if record.connect_id is None else f", channel {record.connect_id}"
        yield f"life {record.life}{channel}: {record.kind}: {record.text}"


LOOK = Look(
    "Crash run",
    "The service was killed at planned moments (kill -9) while it started, recovered, worked and"
    " stopped, and started again on the same data. A ledger holds every answer; after each start"
    " every channel was proved.",
    lambda result: tuple(_tables(result)),
)
