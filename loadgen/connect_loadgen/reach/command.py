"""``loadgen reach``: measures the rows asked for and returns the table."""

import fnmatch
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from connect_loadgen.experiment.environment import describe_environment
from connect_loadgen.experiment.model import Group, Row
from connect_loadgen.experiment.turns import take_turns
from connect_loadgen.program.ending import Ended, ending
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.reach.judgement import judge
from connect_loadgen.reach.results import ReachResult, RowResult, SideResult
from connect_loadgen.reach.settings import ReachSettings
from connect_loadgen.reach.table import groups_of
from connect_loadgen.settings.load import ConfigurationError

__all__ = ["execute_reach", "rows_chosen"]


def rows_chosen(settings: ReachSettings) -> list[Row]:
    """Return the rows that the settings ask for.

    Raises:
        ConfigurationError: there is none for one of the patterns.
    """
    rows = [row for group in groups_of(settings) for row in group.rows]
    for pattern in settings.only:
        if not any(_matches(row.name, pattern) for row in rows):
            raise ConfigurationError(
                f"--only: no row is called like {pattern!r}; --list names them"
            )
    if not settings.only:
        return rows
    return [row for row in rows if any(_matches(row.name, each) for each in settings.only)]


def _matches(name: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(name, pattern) or pattern in name


async def execute_reach(settings: ReachSettings, progress: CommandProgress) -> ReachResult:
    """Measure the rows, group by group.

    Raises:
        Ended: the command ended before a round was complete.
        ConfigurationError: no row is called like that.
    """
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    begun = time.monotonic()
    names = {row.name for row in rows_chosen(settings)}
    rows: list[RowResult] = []
    groups: dict[str, list[SideResult]] = {}
    for group in groups_of(settings):
        chosen = [row for row in group.rows if row.name in names]
        if chosen:
            with progress.within(f"{group.name}, "):
                sides = await _measure(group, chosen, settings, progress)
            if not any(side.rounds or side.failure for side in sides):
                # The command ended before a round was complete.
                break
            groups[group.name] = sides
            found = {side.name: side for side in sides}
            rows.extend(judge(row, found) for row in chosen)
    if not rows:
        raise Ended(ending().reason)
    return ReachResult(
        started_at=started_at,
        seconds=time.monotonic() - begun,
        settings=settings.model_dump(mode="json"),
        environment=describe_environment(Path(tempfile.gettempdir())),
        cut_short=ending().reason,
        rows=rows,
        groups=groups,
    )


async def _measure(
    group: Group, rows: Sequence[Row], settings: ReachSettings, progress: CommandProgress
) -> list[SideResult]:
    rounds = min(settings.rounds, group.most_rounds or settings.rounds)
    return await take_turns(group.needed_by(rows), rounds, settings.seed, progress)
