"""What ``loadgen crash`` is told."""

from pathlib import Path
from typing import Annotated, ClassVar, get_args

from pydantic import BeforeValidator, Field

from connect_loadgen.settings.load import CommandSettings, StrategyName
from connect_loadgen.settings.types import ShellCommand, comma_separated

__all__ = ["CrashSettings"]


def _each(value: object) -> object:
    # A flag may be repeated, and each time name several.
    if isinstance(value, list | tuple):
        return [name for item in value for name in str(item).split(",")]
    return comma_separated(value)


class CrashSettings(CommandSettings):
    """Kill the service at random moments under load, and check every acknowledgement."""

    command: ClassVar[str] = "crash"

    seed: int = Field(
        1, ge=0, description="same seed, same plan of kills; what they hit depends on timing"
    )
    kills: int = Field(200, ge=1, le=100_000, description="kills for each strategy")
    strategy: Annotated[tuple[StrategyName, ...], BeforeValidator(_each)] = Field(
        get_args(StrategyName),
        min_length=1,
        description="strategies to run, one after another; may be repeated",
    )
    channels: int = Field(300, ge=1, le=100_000, description="channels that are open at a time")
    in_flight: int = Field(
        128, ge=1, le=4_096, description="operations kept in flight, on stream and unary together"
    )
    load_seconds: float = Field(
        1.0,
        gt=0,
        le=600,
        description="a kill under load comes within so long after all channels are proved",
    )
    hang_limit: float = Field(
        30, gt=0, le=600, description="seconds within which every operation must end"
    )
    snapshot_interval: int = Field(
        7, ge=1, description="service: records between snapshots; small, so that kills hit them"
    )
    idle_timeout: float = Field(
        0.3, gt=0, description="service: seconds until an idle channel passivates; likewise"
    )
    redelivery_window: int = Field(
        16, ge=0, le=1_024, description="service: deliveries a channel keeps to answer again"
    )
    data_dir: Path | None = Field(
        None,
        description="directory that gets a data directory for each strategy; without it, one that"
        " is removed after",
    )
    service_command: ShellCommand = Field(
        None, description="how to start the service, in shell words; 'serve ...' is added"
    )
