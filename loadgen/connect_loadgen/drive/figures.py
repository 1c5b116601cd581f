"""What a load did, as figures; each name carries its unit, and what is not known is null."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Generator", "Latency", "LoadFigures", "OperationLatency"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Latency(_Record):
    """A distribution of durations, in microseconds."""

    count: int
    mean_us: float
    p50_us: int
    p90_us: int
    p99_us: int
    p99_9_us: int
    p99_99_us: int
    max_us: int
    hdr: str = Field(repr=False)
    """The whole histogram, HdrHistogram V2 in base64: merge these, never the percentiles."""


class OperationLatency(_Record):
    """How long operations of one kind took; right answers only."""

    from_intended_send: Latency | None
    """Open loop only: from when the operation was due."""
    service_time: Latency
    """From when it was sent."""


class Generator(_Record):
    """How the generator itself fared: whether its figures can be believed."""

    cpu_share: float
    """CPU seconds per second; 1 is a whole core."""
    loop_lag: Latency | None
    """How late its event loop woke up."""
    send_lag: Latency | None
    """Open loop only: how late operations were sent."""
    warnings: list[str]
    """Why the generator, not the service, may have set the figures; empty if nothing says so."""
    verdict: Literal["valid", "INVALID: generator saturated"] = "valid"
    """Follows from the warnings, whatever is given."""

    @property
    def is_valid(self) -> bool:
        """Whether nothing says that the generator was the limit."""
        return not self.warnings

    @model_validator(mode="before")
    @classmethod
    def _judge(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic's "before" protocol
        if not isinstance(values, dict):
            return values
        is_valid = not values.get("warnings")
        return {**values, "verdict": "valid" if is_valid else "INVALID: generator saturated"}


class LoadFigures(_Record):
    """What the load did, as the generator saw it."""

    model: Literal["closed loop", "open loop"]
    duration_seconds: float
    intended_rate: float | None
    """Operations per second; open loop only."""
    operations_per_second: float
    """Operations whose last answer came within the duration."""
    messages_per_second: float
    """Messages that the service encrypted or decrypted, within the duration."""
    operations_sent: int
    operations_finished: int
    messages: int
    """All of them, those answered after the duration included."""
    reordered_messages: int
    verification_failures: int
    errors: dict[str, int]
    """Number of failed operations by gRPC status; ``NO_ANSWER`` for those given up."""
    skipped_at_cap: int
    skipped_by_late_generator: int
    latency: dict[str, OperationLatency]
    """By kind of operation."""
    lifecycle: dict[str, Latency] = {}
    """Of what was done to channels beside that: ``establish`` and ``close`` (churn), ``restore``
    and ``reconnect`` (storms); from its due time, if it went right."""
    replacements_skipped: int = 0
    """Channels that were not replaced in their turn, since too many were being replaced."""
    stopped: str | None = None
    """Why measuring ended early; ``duration_seconds`` is how long it lasted."""
    generator: Generator
    """Of all its processes together: the busiest one's CPU, everybody's lags and warnings."""
    processes: list[Generator] = []
    """Of each process, if there were several."""
