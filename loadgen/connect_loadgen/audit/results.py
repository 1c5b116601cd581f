"""The form of an audit's result."""

from collections.abc import Iterator
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from connect_loadgen.experiment.results import Result, Round, Spread, VariantSummary
from connect_loadgen.experiment.verdicts import Verdict
from connect_loadgen.program.exits import Exit

__all__ = [
    "AUDIT_SCHEMA",
    "AuditResult",
    "AuditRow",
    "CapacityProbe",
    "CapacitySearch",
    "Measured",
    "ShapeResult",
]

AUDIT_SCHEMA: Final = "connect-actor.loadgen.audit/1"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Measured(_Record):
    """One figure of ours."""

    spread: Spread
    unit: str
    """``ratio`` for a ratio to ``full``."""
    rounds: int
    how: str
    rounds_left_out: int = 0
    """Rounds in which the generator was the limit: the figure does not hold them."""


class AuditRow(_Record):
    """One number of the audit, and what became of it."""

    name: str
    subject: str
    text: str
    place: str
    claimed: str
    figure: str | None
    measured: Measured | None
    verdict: str
    remark: str


class CapacityProbe(_Record):
    """One number of channels, tried."""

    channels: int
    rate: float
    """Operations per second."""
    p99_ms: float | None
    skipped: int
    keeps_objective: bool
    generator_bound: bool = False
    """Whether the generator, not the service, may have set the figures."""


class CapacitySearch(_Record):
    """The largest number of channels that kept the objective, and how it was found."""

    channels: int
    probes: list[CapacityProbe]

    @property
    def is_valid(self) -> bool:
        """Whether it was the service that broke the objective, wherever it was broken."""
        return not any(each.generator_bound for each in self.probes if not each.keeps_objective)


class ShapeResult(_Record):
    """The strategies under one shape of load."""

    axis: str
    value: str
    variants: dict[str, VariantSummary]


class AuditResult(Result):
    """Result of ``loadgen audit``."""

    schema_version: Literal["connect-actor.loadgen.audit/1"] = AUDIT_SCHEMA
    seconds: float
    rows: list[AuditRow]
    missed: list[AuditRow]
    """Effects that the audit did not see."""
    shapes: list[ShapeResult]
    capacity: dict[str, list[CapacitySearch]]
    saturated: dict[str, list[Round]]
    """In a closed loop, by variant."""
    paced: dict[str, list[Round]]
    """In an open loop at ``paced_rate``, by variant."""
    paced_rate: float
    routers: dict[str, list[Round]]
    """Strategy ``full`` behind each router, by the router's name."""
    warnings: list[str]
    left_out: list[str] = Field(default_factory=list)
    """Parts, or rounds of them, that were not measured since the command ended early."""

    @property
    def is_wrong(self) -> bool:
        """Whether an answer was wrong or an operation failed."""
        loads = [
            round_.load
            for done in (self.saturated, self.paced, self.routers)
            for rounds in done.values()
            for round_ in rounds
        ]
        return any(load.verification_failures or load.errors for load in loads)

    def withheld(self) -> Iterator[tuple[Exit, str]]:
        """Yield how many claims have no verdict since the generator was the limit."""
        rows = (*self.rows, *self.missed)
        undecided = sum(row.verdict == Verdict.NO_VERDICT.value for row in rows)
        if undecided:
            yield (
                Exit.INVALID,
                f"No verdict on {undecided} rows: the generator was the limit in every round",
            )

    @property
    def notices(self) -> list[str]:
        """What stands above every answer, in sentences; what was left out, too."""
        return [*super().notices, *(f"Left out: {part}" for part in self.left_out)]
