"""What a ladder run showed: the record of it, and the table that is read."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from connect_loadgen.compare import summarise
from connect_loadgen.experiment.figures import FIGURES
from connect_loadgen.experiment.numbers import figure, ratio_with_spread, with_spread
from connect_loadgen.experiment.results import Ratio, Result, Round, Spread
from connect_loadgen.program.exits import Exit

__all__ = [
    "PACED_SHARE",
    "LadderResult",
    "StepFigures",
    "StepResult",
    "figures_of",
    "markdown_of",
]

# Of what the first step bears: every step that is not slower has room at it.
PACED_SHARE = 0.7

_SCHEMA: Final = "connect-actor.ladder/1"

_NONE = "-"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StepFigures(_Record):
    """What one step did under one load; by the names of ``figures``."""

    rounds: list[Round]
    figures: dict[str, Spread | None]
    to_first: dict[str, Ratio | None]
    """Divided by the first step's of the same round."""
    to_before: dict[str, Ratio | None]
    """Divided by those of the step before."""


class StepResult(_Record):
    """One step."""

    label: str
    commit: str
    flags: list[str]
    saturated: StepFigures
    paced: StepFigures | None
    """Null if it was not asked for."""


class LadderResult(Result):
    """What a whole run showed."""

    schema_version: Literal["connect-actor.ladder/1"] = _SCHEMA
    seconds: float
    paced_rate: float | None
    """Operations per second."""
    steps: list[StepResult]
    warnings: list[str]

    @property
    def is_wrong(self) -> bool:
        """Whether an answer was wrong or missing."""
        return not all(each.is_right for figures in self._measured() for each in figures.rounds)

    def withheld(self) -> Iterator[tuple[Exit, str]]:
        """Yield the steps that no round says anything about."""
        for step in self.steps:
            for figures in (step.saturated, step.paced):
                if figures and figures.rounds and not any(each.is_valid for each in figures.rounds):
                    yield (
                        Exit.INVALID,
                        f"{step.label}: the generator was the limit in every round: no verdict",
                    )

    def _measured(self) -> list[StepFigures]:
        return [each for step in self.steps for each in (step.saturated, step.paced) if each]


def figures_of(done: Mapping[str, Sequence[Round]]) -> dict[str, StepFigures]:
    """Return the figures of all steps; ``done`` has the steps' rounds in their order."""
    names = list(done)
    figures = {}
    for name, before in zip(names, [names[0], *names], strict=False):
        summary = summarise(done[name], done[names[0]])
        figures[name] = StepFigures(
            rounds=list(done[name]),
            figures=summary.figures,
            to_first=summary.ratios,
            to_before=summarise(done[name], done[before]).ratios,
        )
    return figures


def markdown_of(result: LadderResult) -> str:
    """Return the ladder as Markdown: what was measured, the table, and what casts doubt on it."""
    return "\n".join(
        (
            *_head(result),
            "",
            "| | step | median [lowest, highest] | to the first | to the one before |",
            "|---|---|--:|--:|--:|",
            *_figure_rows(result),
            "",
            *(f"- {step.label}: `{step.commit[:10]}`{_flags(step)}" for step in result.steps),
            *(f"- {reason}" for reason in _absences(result)),
            *(f"- **Warning**: {warning}" for warning in result.warnings),
        )
    )


def _head(result: LadderResult) -> Iterator[str]:
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
    if result.paced_rate is not None:
        yield (
            f"Then an open loop at {PACED_SHARE:.0%} of the first step's throughput, where p99"
            " counts from when an operation was due."
        )


@dataclass(frozen=True, slots=True)
class _Shown:
    """A figure of the table."""

    name: str
    """As ``figures`` has it."""
    title: str
    is_paced: bool = False
    factor: float = 1
    """From the figure's unit to that of the title."""

    def of(self, step: StepResult) -> StepFigures | None:
        return step.paced if self.is_paced else step.saturated


_CPU = "cpu_seconds_per_1000_messages"
_MICROSECONDS_EACH = 1000

_SATURATED = (
    _Shown("messages_per_second", "Throughput, messages/s"),
    _Shown("p99_ms", "p99, saturated, ms"),
    _Shown(_CPU, "Service CPU, µs/message", factor=_MICROSECONDS_EACH),
    _Shown("allocated_bytes_per_message", "Allocated, B/message"),
    _Shown("gc_collections_per_1000_messages", "GC collections per 1,000 messages"),
)


def _shown(result: LadderResult) -> Sequence[_Shown]:
    if result.paced_rate is None:
        return _SATURATED
    at = f"at {figure(result.paced_rate)} messages/s"
    return (
        *_SATURATED,
        _Shown("p99_ms", f"p99 {at}, ms", is_paced=True),
        _Shown(_CPU, f"Service CPU {at}, µs/message", is_paced=True, factor=_MICROSECONDS_EACH),
    )


def _figure_rows(result: LadderResult) -> Iterator[str]:
    for shown in _shown(result):
        for position, step in enumerate(result.steps):
            figures = shown.of(step)
            if figures is None:
                continue
            value = figures.figures[shown.name]
            cells = (
                "" if position else f"**{shown.title}**",
                step.label.replace("|", "\\|"),
                _NONE if value is None else with_spread(_times(value, shown.factor)),
                _ratio(figures.to_first[shown.name], position),
                _ratio(figures.to_before[shown.name], position),
            )
            yield f"| {' | '.join(cells)} |"


def _times(value: Spread, factor: float) -> Spread:
    return Spread(median=value.median * factor, low=value.low * factor, high=value.high * factor)


def _ratio(value: Ratio | None, position: int) -> str:
    return _NONE if value is None or position == 0 else ratio_with_spread(value)


def _flags(step: StepResult) -> str:
    return f" `{shlex.join(step.flags)}`" if step.flags else ""


def _absences(result: LadderResult) -> Iterator[str]:
    why = {figure.name: figure.absent for figure in FIGURES}
    for shown in _shown(result):
        for step in result.steps:
            figures = shown.of(step)
            if figures is not None and figures.figures[shown.name] is None:
                yield f"{step.label}, {shown.title}: {why[shown.name]}"
