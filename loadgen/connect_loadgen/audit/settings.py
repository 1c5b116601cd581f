"""What ``loadgen audit`` is told."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from connect_loadgen.settings.load import LoadSettings, fill_in_quick

__all__ = ["AuditSettings"]

# Fits into five minutes on two cores that have nothing else to do.
_QUICK: Mapping[str, object] = {
    "rounds": 2,
    "warm_up_seconds": 0.5,
    "duration_seconds": 2.5,
}


class AuditSettings(LoadSettings):
    """Measure every number that the audit states, and say which of them hold."""

    command: ClassVar[str] = "audit"

    quick: bool = Field(
        default=False,
        description="fewer rounds and shapes, and no more than five minutes: what doesn't fit in is"
        " left out; flags still win",
    )
    rounds: int = Field(3, ge=1, le=100, description="times that each variant is run")
    # Some 250 loads: shorter than those of a comparison, or they would take half a day.
    warm_up_seconds: float = Field(1, ge=0, le=3600, description="load before measuring")
    duration_seconds: float = Field(6, gt=0, le=86_400, description="load that is measured")
    p99_objective_ms: float = Field(
        50, gt=0, description="p99 that the service has to keep while channels are added"
    )
    channel_rate: float = Field(
        10, gt=0, description="messages per second of each channel while channels are added"
    )
    output: Path = Field(
        Path("results/audit"), description="directory for audit.json and audit.html"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_quick(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic's "before" protocol
        return fill_in_quick(values, _QUICK)
