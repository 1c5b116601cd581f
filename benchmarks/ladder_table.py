"""What a ladder run showed, as the table that is read."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from connect_loadgen.experiment.bounds import Verdict
from connect_loadgen.experiment.model import Asked, Quantity, judge
from connect_loadgen.experiment.numbers import Spread, figure, ratio_with_spread
from connect_loadgen.experiment.results import Record, Result, Row, Side

__all__ = ["PACED", "PACED_SHARE", "LadderDetail", "StepTold", "markdown_of"]

# Of what the first step bears: every step that is not slower has room at it.
PACED_SHARE = 0.7
PACED = "paced: "
"""Before the names of the sides at a fixed rate."""

_NONE = "-"


class StepTold(Record):
    """One step."""

    label: str
    commit: str
    flags: list[str]


class LadderDetail(Record):
    """What was run."""

    paced_rate: float | None
    """Operations per second; null if it was not asked for."""
    steps: list[StepTold]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A figure of the table."""

    name: str
    """As ``figures`` has it."""
    title: str
    prefix: str = ""
    factor: float = 1
    """From the figure's unit to that of the title."""


_CPU = "cpu_seconds_per_1000_messages"
_MICROSECONDS_EACH = 1000

_SATURATED = (
    _Shown("messages_per_second", "Throughput, messages/s"),
    _Shown("p99_ms", "p99, saturated, ms"),
    _Shown(_CPU, "Service CPU, µs/message", factor=_MICROSECONDS_EACH),
    _Shown("allocated_bytes_per_message", "Allocated, B/message"),
    _Shown("gc_collections_per_1000_messages", "GC collections per 1,000 messages"),
)


def markdown_of(result: Result[LadderDetail]) -> str:
    """Return the ladder as Markdown: what was measured, the table, and what casts doubt on it."""
    rows, absences = [], []
    steps = result.detail.steps
    for shown in _shown(result.detail):
        before = steps[0]
        for position, step in enumerate(steps):
            to_first, to_before = (
                _compared(result.sides, shown, step.label, other.label)
                for other in (steps[0], before)
            )
            before = step
            value = to_first.measured
            if value is None:
                absences.append(f"- {step.label}, {shown.title}: not known")
            cells = (
                "" if position else f"**{shown.title}**",
                step.label.replace("|", "\\|"),
                _NONE if value is None else _spread(value, shown.factor),
                *(
                    _NONE if row.ratio is None or not position else ratio_with_spread(row.ratio)
                    for row in (to_first, to_before)
                ),
            )
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        (
            *_head(result),
            "",
            "| | step | median [lowest, highest] | to the first | to the one before |",
            "|---|---|--:|--:|--:|",
            *rows,
            "",
            *(f"- {step.label}: `{step.commit[:10]}`{_flags(step)}" for step in steps),
            *absences,
            *(f"- **Warning**: {warning}" for warning in result.warnings),
        )
    )


def _compared(sides: Mapping[str, Side], shown: _Shown, label: str, base: str) -> Row:
    mine, other = (Quantity(f"{shown.prefix}{each}", shown.name) for each in (label, base))
    row = judge(Asked(label, label, "", mine, other, base), sides)
    if row.verdict is Verdict.NO_VERDICT:
        return row
    # Its own valid rounds, comparable or not.
    return row.model_copy(update={"measured": judge(Asked(label, label, "", mine), sides).measured})


def _spread(value: Spread, factor: float) -> str:
    median, low, high = (figure(each * factor) for each in (value.median, value.low, value.high))
    return f"{median} [{low}, {high}]"


def _head(result: Result[LadderDetail]) -> Iterator[str]:
    settings, environment = result.settings, result.environment
    yield (
        f"{settings['rounds']} rounds of {settings['duration_seconds']:g} s for each step,"
        f" {settings['channels']:,} channels, frames of {settings['frame_operations']},"
        f" weights {settings['encrypt_weight']:g} : {settings['decrypt_weight']:g} of Encrypt and"
        f" Decrypt, payloads of {settings['payload_bytes']} bytes;"
        f" {environment.cpu_model or 'unknown CPU'}, {environment.cpus} CPUs, {result.started_at}."
    )
    yield (
        f"Closed loop, {settings['concurrency']} operations in flight: its p99 is latency under"
        " saturation."
    )
    if result.detail.paced_rate is not None:
        yield (
            f"Then an open loop at {PACED_SHARE:.0%} of the first step's throughput, where p99"
            " counts from when an operation was due."
        )


def _shown(detail: LadderDetail) -> Sequence[_Shown]:
    if detail.paced_rate is None:
        return _SATURATED
    at = f"at {figure(detail.paced_rate)} messages/s"
    return (
        *_SATURATED,
        _Shown("p99_ms", f"p99 {at}, ms", PACED),
        _Shown(_CPU, f"Service CPU {at}, µs/message", PACED, _MICROSECONDS_EACH),
    )


def _flags(step: StepTold) -> str:
    return f" `{shlex.join(step.flags)}`" if step.flags else ""
