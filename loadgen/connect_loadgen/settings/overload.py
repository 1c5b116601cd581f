"""What ``loadgen overload`` is told."""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from connect_loadgen.settings.load import (
    JournalName,
    LoadSettings,
    QuickSettings,
    StrategyName,
    differing,
)

__all__ = ["CALLS_AT_ONCE", "OverloadSettings", "TransportName"]

TransportName = Literal["stream", "unary"]

CALLS_AT_ONCE = 256
"""As many as the service takes of one connection (``--max-calls-per-connection``): more would wait
at the caller, and go on waiting there when the service has long had room again."""

_TRANSPORTS: tuple[TransportName, ...] = ("stream", "unary")


class OverloadSettings(QuickSettings, LoadSettings):
    """Ask a service for three times what it can do, and check what it must still do."""

    command: ClassVar[str] = "overload"
    quick_values: ClassVar[Mapping[str, object]] = {
        "duration_seconds": 3.0,
        "warm_up_seconds": 1.0,
        "idle_connections": 1_000,
    }

    strategy: StrategyName = Field("differential", description="started service: strategy")
    journal: JournalName = Field("sqlite", description="started service: journal")
    transport: TransportName = Field(
        "stream", description="this one only; without the flag both, each on a service of its own"
    )
    connections: int = Field(
        4, ge=1, le=256, description="connections, each with a stream or calls, that share the load"
    )
    # A refused Decrypt leaves a gap that the service then has to skip, which would make the load
    # heavier and heavier; a refused Encrypt leaves nothing.
    decrypt_weight: float = differing("decrypt_weight", 0.0)
    max_in_flight: int = Field(
        8_192,
        ge=1,
        description="open loop: at so many in flight a send is skipped, and counted; unary calls:"
        f" at {CALLS_AT_ONCE} a connection, too",
    )
    overload_factor: float = Field(3, gt=1, le=20, description="of the sustainable rate")
    window_seconds: float = Field(0.5, gt=0, le=60, description="resolution of what is shown")
    idle_connections: int = Field(
        10_000, ge=0, le=100_000, description="connections without a call, beside a light load"
    )

    @model_validator(mode="after")
    def _check_overload(self) -> Self:
        if self.connections > self.channels:
            raise ValueError("`connections` can't be more than `channels`")
        for field in ("rate", "processes", "churn_rate", "storms", "stop_if"):
            if field in self.model_fields_set:
                raise ValueError(f"overload makes its load itself: leave `{field}` out")
        return self

    @property
    def transports(self) -> tuple[TransportName, ...]:
        """Those that are tried, in order."""
        return (self.transport,) if "transport" in self.model_fields_set else _TRANSPORTS

    def over(self, transport: TransportName) -> Self:
        """Return these settings for one of the transports."""
        at_once = self.max_in_flight
        if transport == "unary":
            at_once = min(at_once, self.connections * CALLS_AT_ONCE)
        return self.model_copy(update={"transport": transport, "max_in_flight": at_once})
