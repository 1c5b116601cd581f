"""``loadgen diff``: two saved results of one command beside each other."""

import asyncio
from typing import Any

from connect_loadgen.drive.load import Progress
from connect_loadgen.experiment.difference import Differences, diff_results, read_result
from connect_loadgen.experiment.results import Result
from connect_loadgen.report.blocks import Table
from connect_loadgen.report.page import Look
from connect_loadgen.report.tables import plain_table
from connect_loadgen.settings.load import DiffSettings

__all__ = ["LOOK", "run_diff"]


async def run_diff(settings: DiffSettings, _: Progress) -> Result[Differences]:
    """Read two results and put them beside each other.

    Raises:
        ConfigurationError: a file can't be read or is no result, or they are of two commands.
    """
    await asyncio.sleep(0)
    before, after = read_result(settings.before), read_result(settings.after)
    return diff_results(before, after, settings.threshold)


def _tables(result: Result[Any]) -> list[Table]:
    found = {
        "Settings that differ": result.detail.settings,
        "Machine, versions and revision that differ": result.detail.environment,
    }
    return [
        plain_table(title, ("What", "Before", "After"), rows)
        for title, rows in found.items()
        if rows
    ]


LOOK = Look(
    "Two results",
    "A figure got worse if its median did by more than the threshold, and if no round of the one"
    " result reaches a round of the other.",
    _tables,
)
