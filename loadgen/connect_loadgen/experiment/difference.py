"""``loadgen diff``: two saved results beside each other: what differs, and what got worse.

Figures of two results were measured at different times, so a difference counts only if it is larger
than a threshold and, where there are several rounds, larger than what rounds of the same result
differ by: the two ranges have no value in common.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from connect_loadgen.drive.load import Progress
from connect_loadgen.experiment.figures import FIGURES, Figure
from connect_loadgen.experiment.results import (
    COMPARE_SCHEMA,
    RUN_SCHEMA,
    CompareResult,
    Environment,
    Ratio,
    Round,
    RunResult,
    Spread,
)
from connect_loadgen.experiment.statistics import spread_of
from connect_loadgen.program.exits import Exit
from connect_loadgen.service.cost import Cost
from connect_loadgen.settings.load import ConfigurationError, DiffSettings

__all__ = ["Change", "Diff", "Difference", "diff_results", "execute_diff", "read_result"]

Result = RunResult | CompareResult

_SCHEMAS: Mapping[str, type[Result]] = {RUN_SCHEMA: RunResult, COMPARE_SCHEMA: CompareResult}

# Where a result goes says nothing about it.
_IMMATERIAL = frozenset({"config", "output", "report", "dry_run"})

# What is had of a load alone, when the service's counters were not read.
_OF_LOAD = frozenset({"messages_per_second", "p50_ms", "p99_ms", "p99_9_ms"})

# Stands where they were not; no figure is made of it.
_NO_COST = Cost(
    messages=0,
    cpu_seconds=None,
    cpu_share=None,
    peak_rss_bytes=None,
    records=0,
    record_bytes=0,
    commits=0,
    snapshots=0,
    snapshot_bytes=0,
    journal_growth_bytes=0,
    disk_write_bytes=None,
    file_growth_bytes=None,
    duration_seconds=0,
    gc_collections=None,
    gc_pause_seconds=None,
    allocated_bytes=None,
    allocations=None,
)


@dataclass(frozen=True, slots=True)
class Difference:
    """A setting, or a fact of the machine, that is not the same."""

    name: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of one variant, before and after."""

    variant: str
    figure: Figure
    before: Spread
    after: Spread
    ratio: Ratio | None
    """After divided by before; from the lowest to the highest that any two rounds give. Nothing if
    it would be divided by 0."""
    is_worse: bool
    """By more than the threshold, and by more than the rounds differ among themselves."""


@dataclass(frozen=True, slots=True)
class Diff:
    """Two results beside each other."""

    settings: list[Difference]
    environment: list[Difference]
    changes: list[Change]
    notes: list[str]
    threshold: float
    """Share by which a figure may be worse."""
    is_invalid: bool
    """Whether there are no changes since the generator was the limit in every round."""
    is_nothing: bool
    """Whether the two results are the same."""

    @property
    def exit(self) -> Exit:
        """Whether a figure got worse, or nothing could be compared."""
        if any(change.is_worse for change in self.changes):
            return Exit.WRONG
        if self.changes:
            return Exit.RIGHT
        return Exit.INVALID if self.is_invalid else Exit.NO_VERDICT

    @property
    def notices(self) -> Sequence[str]:
        """What stands above all else."""
        if self.is_nothing:
            return ["Nothing differs: the two results are the same"]
        if self.changes:
            return []
        why = "the generator was the limit" if self.is_invalid else "no figure is in both results"
        return [f"Nothing can be compared, {why}: no verdict"]


async def execute_diff(settings: DiffSettings, _: Progress) -> Diff:
    """Read two results and put them beside each other.

    Raises:
        ConfigurationError: a file can't be read or is no result, or they are of two kinds.
    """
    before, after = read_result(settings.before), read_result(settings.after)
    return diff_results(before, after, settings.threshold)


def read_result(path: Path) -> Result:
    """Read a saved result.

    Raises:
        ConfigurationError: the file can't be read, or is no result of a run or a comparison.
    """
    try:
        text = path.read_bytes()
        schema = _Schema.model_validate_json(text).schema_version
        return _SCHEMAS[schema].model_validate_json(text)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except (ValidationError, KeyError):
        raise ConfigurationError(
            f"{path}: no result of loadgen run or loadgen compare, of this version"
        ) from None


class _Schema(BaseModel):
    schema_version: str


def diff_results(before: Result, after: Result, threshold: float) -> Diff:
    """Put two results beside each other.

    Args:
        before: what is divided by.
        after: what is divided.
        threshold: share by which a figure may be worse.

    Raises:
        ConfigurationError: one is of a run, the other of a comparison.
    """
    if type(before) is not type(after):
        raise ConfigurationError("a run and a comparison can't be compared: give two of a kind")
    old, new = _rounds(before), _rounds(after)
    known_old, known_new = _valid(old), _valid(new)
    return Diff(
        settings=_differences(
            {name: value for name, value in before.settings.items() if name not in _IMMATERIAL},
            {name: value for name, value in after.settings.items() if name not in _IMMATERIAL},
        ),
        environment=_differences(_facts(before.environment), _facts(after.environment)),
        changes=[
            change
            for variant in known_old
            if variant in known_new
            for change in _changes(variant, known_old[variant], known_new[variant], threshold)
        ],
        notes=[
            *_doubts("before", before, old),
            *_doubts("after", after, new),
            *_spread_note(old, new),
        ],
        threshold=threshold,
        is_invalid=any(variant in new for variant in old),
        is_nothing=before == after,
    )


@dataclass(frozen=True, slots=True)
class _Measured:
    """One variant of a result."""

    rounds: Sequence[Round]
    knows_cost: bool


_Rounds = Mapping[str, _Measured]


def _rounds(result: Result) -> _Rounds:
    """Return what was measured of each variant; a run has one, of one round."""
    if isinstance(result, CompareResult):
        return {
            variant.name: _Measured(variant.rounds, knows_cost=True) for variant in result.variants
        }
    cost = result.cost or _NO_COST
    round_ = Round(number=1, position=1, load=result.load, cost=cost, recovery=None)
    return {"run": _Measured([round_], knows_cost=result.cost is not None)}


def _valid(rounds: _Rounds) -> _Rounds:
    """Return what says something about the service: the generator was not the limit."""
    valid = {
        name: replace(measured, rounds=[each for each in measured.rounds if each.is_valid])
        for name, measured in rounds.items()
    }
    return {name: measured for name, measured in valid.items() if measured.rounds}


def _changes(variant: str, old: _Measured, new: _Measured, threshold: float) -> list[Change]:
    changes = []
    for figure in FIGURES:
        if figure.name not in _OF_LOAD and not (old.knows_cost and new.knows_cost):
            continue
        before = spread_of([figure.value(round_) for round_ in old.rounds])
        after = spread_of([figure.value(round_) for round_ in new.rounds])
        if before is not None and after is not None:
            ratio = _ratio(before, after)
            changes.append(
                Change(variant, figure, before, after, ratio, _is_worse(figure, ratio, threshold))
            )
    return changes


def _ratio(before: Spread, after: Spread) -> Ratio | None:
    if not before.low:
        return None
    return Ratio(
        median=after.median / before.median,
        low=after.low / before.high,
        high=after.high / before.low,
    )


def _is_worse(figure: Figure, ratio: Ratio | None, threshold: float) -> bool:
    if ratio is None or figure.more_is_better is None:
        return False
    if figure.more_is_better:
        return ratio.median < 1 - threshold and ratio.high < 1
    return ratio.median > 1 + threshold and ratio.low > 1


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    return [
        Difference(name, str(before.get(name, "-")), str(after.get(name, "-")))
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]


def _facts(environment: Environment) -> dict[str, Any]:
    facts = environment.model_dump()
    return {**facts.pop("versions"), **facts}


def _doubts(which: str, result: Result, rounds: _Rounds) -> list[str]:
    """Return what makes a result doubtful, each once."""
    doubts = [] if result.cut_short is None else [f"cut short: {result.cut_short}"]
    for variant, measured in rounds.items():
        loads = [round_.load for round_ in measured.rounds]
        doubts += [
            f"{variant}: {load.generator.verdict}; such rounds are left out"
            for load in loads
            if not load.generator.is_valid
        ]
        doubts += [f"{variant}: answers were WRONG" for load in loads if load.verification_failures]
        doubts += [f"{variant}: operations failed" for load in loads if load.errors]
        doubts += [f"{variant}: stopped, {load.stopped}" for load in loads if load.stopped]
    return [f"{which}, {doubt}" for doubt in dict.fromkeys(doubts)]


def _spread_note(before: _Rounds, after: _Rounds) -> list[str]:
    fewest = min(len(of.rounds) for each in (before, after) for of in each.values())
    if fewest > 1:
        return []
    return [
        "With a single round nothing tells a difference from chance; loadgen compare has rounds."
    ]
