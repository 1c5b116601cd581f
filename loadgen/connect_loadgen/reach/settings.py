"""What ``loadgen reach`` is told."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from connect_loadgen.settings.load import CommandSettings, LoadSettings, fill_in_quick
from connect_loadgen.settings.types import PayloadSizes, ShellCommand, comma_separated

__all__ = ["IN_FLIGHT", "ReachSettings"]

# Below six minutes on two shared cores.
_QUICK: Mapping[str, object] = {
    "rounds": 2,
    "messages": 30_000,
    "warm_up_seconds": 0.5,
    "duration_seconds": 2.0,
    "live_channels": 10_000,
    "restored_channels": 2_000,
    "established_channels": 500,
}


IN_FLIGHT = 1_024
"""Operations of most rows, enough that a commit does not leave the service without work."""


class ReachSettings(CommandSettings):
    """Measure how near the service comes to what is in reach, each row beside its peer."""

    command: ClassVar[str] = "reach"

    only: Annotated[tuple[str, ...], BeforeValidator(comma_separated)] = Field(
        (),
        description="parts of names, or whole names with * and ?, comma separated; all without it",
    )
    list: bool = Field(default=False, description="only say which rows there are")
    quick: bool = Field(
        default=False,
        description="fewer rounds, channels and seconds, below six minutes; flags still win",
    )
    seed: int = Field(1, ge=0, description="same seed, same operations, payloads and order")
    rounds: int = Field(
        5, ge=1, le=100, description="turns of each side; where one takes minutes, at most 3"
    )
    channels: int = Field(1_000, ge=1, le=100_000, description="channels of the usual load")
    payload_bytes: PayloadSizes = Field(
        "64,1024", description="plaintext sizes, written as for loadgen run"
    )
    messages: int = Field(
        80_000, ge=100, le=10_000_000, description="in a turn of one kind; unary: a tenth of it"
    )
    warm_up_seconds: float = Field(
        1.5, ge=0, le=3_600, description="before a turn of several kinds of messages"
    )
    duration_seconds: float = Field(
        4, gt=0, le=3_600, description="of a turn of several kinds of messages"
    )
    live_channels: int = Field(
        100_000, ge=1, le=150_000, description="live channels of the row about many of them"
    )
    restored_channels: int = Field(
        10_000, ge=1, le=100_000, description="channels that a restart has to bring back"
    )
    established_channels: int = Field(
        2_000, ge=1, le=100_000, description="handshakes of the row about them"
    )
    idle_channels: int = Field(
        10_000, ge=100, le=100_000, description="channels whose memory is looked at"
    )
    workers: int = Field(2, ge=2, le=64, description="worker processes of the row about them")
    timeout_seconds: float = Field(
        60, gt=0, le=600, description="how long an answer, or the service's start, may take"
    )
    service_command: ShellCommand = Field(
        None, description="how to start the service, in shell words; 'serve ...' is added"
    )
    output: Path = Field(
        Path("results/reach"), description="directory for reach.json, reach.md and reach.html"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_quick(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic's "before" protocol
        return fill_in_quick(values, _QUICK)

    def load(self, **differing: object) -> LoadSettings:
        """Return a load of encrypts in a closed loop, as these settings have it.

        Neither environment nor file is read again: what is for another command says nothing here.

        Args:
            differing: settings that differ from these and from the defaults of a load.
        """
        told: dict[str, Any] = {
            "seed": self.seed,
            "channels": self.channels,
            "payload_bytes": self.payload_bytes,
            "decrypt_weight": 0.0,
            "concurrency": IN_FLIGHT,
            "warm_up_seconds": self.warm_up_seconds,
            "duration_seconds": self.duration_seconds,
            "timeout_seconds": self.timeout_seconds,
            "service_command": self.service_command,
            **differing,
        }
        return LoadSettings.model_construct(**told)
