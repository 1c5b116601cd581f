"""The form of a result: what is written as JSON, and what reports are made from.

``schema_version`` goes up with every change that a reader of an older file would trip over. Names
carry their unit. A figure that could not be had is null, never 0.
"""

from collections.abc import Iterator
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from connect_loadgen.drive.figures import Latency, LoadFigures
from connect_loadgen.program.exits import Exit
from connect_loadgen.service.cost import Cost

__all__ = [
    "COMPARE_SCHEMA",
    "RUN_SCHEMA",
    "CompareResult",
    "Environment",
    "Ratio",
    "Recovery",
    "Result",
    "Round",
    "RunResult",
    "Spread",
    "VariantFigures",
    "VariantSummary",
]

RUN_SCHEMA: Final = "connect-actor.loadgen.run/1"
COMPARE_SCHEMA: Final = "connect-actor.loadgen.compare/1"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Environment(_Record):
    """Where and with what a result was made."""

    git_revision: str | None
    git_dirty: bool | None
    python: str
    versions: dict[str, str]
    platform: str
    cpu_model: str | None
    cpus: int
    memory_bytes: int
    filesystem: str | None
    """Of the service's data directory."""


class Result(_Record):
    """What the result of every command has."""

    schema_version: str
    started_at: str
    """UTC, ISO 8601."""
    settings: dict[str, Any]
    environment: Environment
    cut_short: str | None = None
    """Why the command ended before it was done; the result holds what was measured until then."""

    @property
    def is_wrong(self) -> bool:
        """Whether an answer, a promise or a bound was broken, however much was measured."""
        return False

    def withheld(self) -> Iterator[tuple[Exit, str]]:
        """Yield why there is no verdict, INVALID or NO_VERDICT each with a sentence."""
        yield from ()

    @property
    def exit(self) -> Exit:
        """What the command's exit code says of what was measured."""
        if self.is_wrong:
            return Exit.WRONG
        # A generator that was the limit may be why nothing else was shown.
        return min((code for code, _ in self.withheld()), default=Exit.RIGHT)

    @property
    def notices(self) -> list[str]:
        """What stands above every answer, in sentences."""
        cut_short = [] if self.cut_short is None else [f"CUT SHORT: {self.cut_short}"]
        return [*cut_short, *(why for _, why in self.withheld())]


class RunResult(Result):
    """Result of ``loadgen run``."""

    schema_version: Literal["connect-actor.loadgen.run/1"] = RUN_SCHEMA
    load: LoadFigures
    cost: Cost | None
    """Null without access to the service's metrics."""

    @property
    def is_wrong(self) -> bool:
        """Whether an answer was wrong or missing, or a bound ended the load."""
        load = self.load
        is_stopped = load.stopped is not None and self.cut_short is None
        return bool(load.verification_failures or load.errors or is_stopped)

    def withheld(self) -> Iterator[tuple[Exit, str]]:
        """Yield why the figures say nothing about the service."""
        if not self.load.generator.is_valid:
            yield Exit.INVALID, f"{self.load.generator.verdict}: no verdict on the service"
        if not self.load.operations_finished:
            yield Exit.NO_VERDICT, "No operation was finished: no verdict"


class Recovery(_Record):
    """What it took to come back after ``kill -9``."""

    channels: int
    start_seconds: float
    """From the start of the process until it is ready."""
    restore_seconds: float
    """From the first Restore, of all channels at once, until the last answer."""
    channels_per_second: float
    verified_channels: int
    """Channels that then carried a message each way, every byte checked."""
    restore_cpu_seconds: float | None = None
    """CPU time of the service from the first Restore until the last answer."""
    replayed_records: float | None = None
    """Records behind the channels' snapshots that were read for it, all channels together."""


class Round(_Record):
    """One run of one variant."""

    number: int
    """Round, from 1."""
    position: int
    """Place in the round's order, from 1."""
    load: LoadFigures
    cost: Cost
    recovery: Recovery | None
    """Null for the memory journal: it has nothing to recover from."""

    @property
    def is_valid(self) -> bool:
        """Whether it says something about the service: the generator was not the limit."""
        return self.load.generator.is_valid

    @property
    def is_right(self) -> bool:
        """Whether every answer came and was right, to the end, and every channel came back."""
        load, back = self.load, self.recovery
        return (
            not load.verification_failures
            and not load.errors
            and load.stopped is None
            and (back is None or back.verified_channels == back.channels)
        )


class Spread(_Record):
    """A figure over the rounds."""

    median: float
    low: float
    high: float


class Ratio(Spread):
    """A figure divided by the baseline's of the same round, over the rounds."""


class VariantSummary(_Record):
    """One variant's figures over its valid rounds; null where a figure can't be had."""

    figures: dict[str, Spread | None]
    ratios: dict[str, Ratio | None]
    """To the baseline, over rounds in which both are valid; null for the baseline itself too."""
    latency_all_rounds: Latency | None
    """Of all operations of all valid rounds, from their merged histograms."""
    rounds_left_out: int = 0
    """Rounds in which the generator was the limit: no figure holds them."""


class VariantFigures(_Record):
    """All that is known of one variant."""

    name: str
    strategy: str
    journal: str
    rounds: list[Round]
    summary: VariantSummary


class CompareResult(Result):
    """Result of ``loadgen compare``."""

    schema_version: Literal["connect-actor.loadgen.compare/1"] = COMPARE_SCHEMA
    seconds: float
    baseline: str
    variants: list[VariantFigures]
    warnings: list[str]

    @property
    def is_wrong(self) -> bool:
        """Whether a round went wrong."""
        return not all(each.is_right for variant in self.variants for each in variant.rounds)

    def withheld(self) -> Iterator[tuple[Exit, str]]:
        """Yield the variants that no round says anything about."""
        for variant in self.variants:
            if variant.rounds and variant.summary.rounds_left_out == len(variant.rounds):
                yield (
                    Exit.INVALID,
                    f"{variant.name}: the generator was the limit in every round: no verdict",
                )
