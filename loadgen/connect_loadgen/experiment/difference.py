"""Two saved results of one command beside each other: what differs, and what got worse.

Figures of two results were measured at different times, so a difference counts only if it is larger
than a threshold and, where there are several rounds, larger than what rounds of the same result
differ by: the two ranges have no value in common.
"""

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from connect_loadgen.experiment.bounds import Bound, Verdict
from connect_loadgen.experiment.numbers import Spread
from connect_loadgen.experiment.results import Environment, Record, Result, Row, Withheld
from connect_loadgen.settings.load import ConfigurationError

__all__ = ["Differences", "diff_results", "read_result"]

# Where a result goes says nothing about it.
_IMMATERIAL = frozenset({"config", "output", "dry_run"})


class Differences(Record):
    """Settings, and facts of the machine, that differ: name, before, after."""

    settings: list[tuple[str, str, str]]
    environment: list[tuple[str, str, str]]


def read_result(path: Path) -> Result[Any]:
    """Read a saved result.

    Raises:
        ConfigurationError: the file can't be read, or is no result of this version.
    """
    try:
        return Result[Any].model_validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from None
    except ValidationError:
        raise ConfigurationError(f"{path}: no result of loadgen, of this version") from None


def diff_results(before: Result[Any], after: Result[Any], threshold: float) -> Result[Differences]:
    """Put two results beside each other; a row that got worse has a broken bound.

    Args:
        before: what is divided by.
        after: what is divided.
        threshold: share by which a figure may be worse.

    Raises:
        ConfigurationError: they are of two commands.
    """
    if before.command != after.command:
        raise ConfigurationError(
            f"results of {before.command} and of {after.command} can't be compared: give two of a"
            " kind"
        )
    begun, old = time.monotonic(), {row.name: row for row in before.rows}
    rows = [_changed(old[row.name], row, threshold) for row in after.rows if _comparable(old, row)]
    withheld = []
    if before != after and not rows:
        is_bound = any(row.verdict is Verdict.NO_VERDICT for row in (*before.rows, *after.rows))
        why = "the generator was the limit" if is_bound else "no figure is in both results"
        made = Withheld.invalid if is_bound else Withheld.nothing_shown
        withheld = [made(f"Nothing can be compared, {why}: no verdict")]
    worse = [row.text for row in rows if row.verdict is Verdict.DOES_NOT_HOLD]
    return Result(
        command="diff",
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=time.monotonic() - begun,
        settings={"threshold": threshold},
        environment=after.environment,
        answer=["Nothing differs: the two results are the same"]
        if before == after
        else [f"Worse: {', '.join(worse)}" if worse else f"Of {len(rows)} figures none got worse"],
        rows=[] if before == after else rows,
        warnings=[*_doubts("before", before), *_doubts("after", after), *_single(rows)],
        withheld=withheld,
        detail=Differences(
            settings=_differences(_material(before.settings), _material(after.settings)),
            environment=_differences(_facts(before.environment), _facts(after.environment)),
        ),
    )


def _comparable(old: Mapping[str, Row], row: Row) -> bool:
    return row.name in old and row.measured is not None and old[row.name].measured is not None


def _changed(before: Row, after: Row, threshold: float) -> Row:
    old, new = before.measured, after.measured
    if old is None or new is None:
        raise ValueError(f"row {after.name} was not measured")
    ratio = None
    if old.low > 0:
        ratio = Spread(
            median=new.median / old.median, low=new.low / old.high, high=new.high / old.low
        )
    verdict, bound = Verdict.NO_BOUND, None
    if ratio is not None and after.more_is_better is not None:
        bound = (
            Bound.at_least(1 - threshold, "ratio")
            if after.more_is_better
            else Bound.at_most(1 + threshold, "ratio")
        )
        overlap = ratio.low <= 1 <= ratio.high
        verdict = Verdict.HOLDS if overlap else bound.judge(ratio)
    return after.model_copy(
        update={
            "compared_with": "before",
            "reference": old,
            "ratio": ratio,
            "bound": bound,
            "claimed": "" if bound is None else str(bound),
            "verdict": verdict,
            "is_promise": True,
            "remark": "before it was 0" if ratio is None else "",
        }
    )


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (name, str(before.get(name, "-")), str(after.get(name, "-")))
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]


def _material(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _IMMATERIAL}


def _facts(environment: Environment) -> dict[str, Any]:
    facts = environment.model_dump()
    return {**facts.pop("versions"), **facts}


def _doubts(which: str, result: Result[Any]) -> list[str]:
    """Return what makes a result doubtful."""
    return [f"{which}: {doubt}" for doubt in (*result.notices, *result.faults, *result.warnings)]


def _single(rows: list[Row]) -> list[str]:
    if not rows or max(row.rounds for row in rows) > 1:
        return []
    return [
        "With a single round nothing tells a difference from chance; loadgen compare has rounds."
    ]
