"""What ``loadgen soak`` is told."""

from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from connect_loadgen.settings.load import JournalName, LoadSettings, StrategyName, differing

__all__ = ["SoakSettings"]

_UNITS = {"s": 1, "m": 60, "h": 3_600}


def _seconds(value: object) -> object:
    """Read ``90``, ``90s``, ``15m`` or ``1h``."""
    if isinstance(value, str) and value[-1:] in _UNITS:
        try:
            return float(value[:-1]) * _UNITS[value[-1]]
        except ValueError:
            return value
    return value


class SoakSettings(LoadSettings):
    """Load a service for long, with channels that come and go, and check that nothing grows."""

    command: ClassVar[str] = "soak"

    duration: Annotated[float, BeforeValidator(_seconds)] = Field(
        3_600, ge=2, le=604_800, description="seconds of the soak itself, or 90s, 15m, 1h"
    )
    load: float = Field(0.7, gt=0, le=1, description="share of the capacity found at the start")
    strategy: StrategyName = Field("differential", description="started service: strategy")
    journal: JournalName = Field("sqlite", description="started service: journal")
    idle_timeout: float = Field(
        5, gt=0, description="started service: seconds until an idle channel is passivated"
    )
    channels: int = differing("channels", 1_000)
    # Some channels are then used all the time, others so rarely that they passivate in between.
    channel_skew: float = differing("channel_skew", 1.6)
    connections: int = Field(
        2, ge=1, le=256, description="connections, each with a stream, that share the load"
    )
    churn_rate: float = differing("churn_rate", 2.0)
    max_in_flight: int = differing("max_in_flight", 16_384)
    sample_seconds: float = Field(5, gt=0, le=600, description="between two samples")
    max_rss_growth: float = Field(5, ge=0, description="memory: per cent an hour, at most")
    max_journal_growth: float = Field(10, ge=0, description="journal: per cent an hour, at most")
    max_cpu_growth: float = Field(
        5, ge=0, description="CPU of the service an operation: per cent an hour, at most"
    )
    max_p99_growth: float = Field(25, ge=0, description="p99: per cent an hour, at most")
    fresh_rounds: int = Field(
        7, ge=0, description="turns beside a fresh service at the end; 0: none"
    )
    fresh_seconds: float = Field(10, ge=0.1, le=600, description="of each of those turns")

    @model_validator(mode="after")
    def _check_soak(self) -> Self:
        if self.connections > self.channels:
            raise ValueError("`connections` can't be more than `channels`")
        for field in ("rate", "processes", "storms", "stop_if", "think_seconds"):
            if field in self.model_fields_set:
                raise ValueError(f"soak paces its load itself: leave `{field}` out")
        return self
