"""The form of an audit's result."""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from loadgen.results import Environment, Round, Spread, VariantSummary

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


class CapacitySearch(_Record):
    """The largest number of channels that kept the objective, and how it was found."""

    channels: int
    probes: list[CapacityProbe]


class ShapeResult(_Record):
    """The strategies under one shape of load."""

    axis: str
    value: str
    variants: dict[str, VariantSummary]


class AuditResult(_Record):
    """Result of ``loadgen audit``."""

    schema_version: Literal["connect-actor.loadgen.audit/1"] = AUDIT_SCHEMA
    started_at: str
    """UTC, ISO 8601."""
    seconds: float
    settings: dict[str, Any]
    environment: Environment
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
