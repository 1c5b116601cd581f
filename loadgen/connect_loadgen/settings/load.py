"""What a command is told: immutable settings from a TOML file, the environment and flags.

Later ones win, in that order. A key that no command knows, or a value that makes no sense, is one
line for the user (``ConfigurationError``), never a traceback and never a silent default.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import (
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo

from connect_actor.setting_sources import SettingsError, SourcedSettings, read_settings
from connect_loadgen.settings.storms import parse_storms
from connect_loadgen.settings.types import (
    Durations,
    HttpListen,
    HttpTarget,
    Listen,
    PayloadSizes,
    Rate,
    ShellCommand,
    StopConditions,
    Storms,
    Target,
)

__all__ = [
    "CommandSettings",
    "ConfigurationError",
    "DiffSettings",
    "JournalName",
    "LoadSettings",
    "QuickSettings",
    "RouterName",
    "RunSettings",
    "StrategyName",
    "differing",
    "load_settings",
]

_TABLES = ("run", "compare", "audit", "bench", "diff", "crash", "overload", "soak", "reach")

StrategyName = Literal["full", "cached", "differential"]
JournalName = Literal["sqlite", "memory"]
RouterName = Literal["forwarding", "awaiting"]


_BOOLEAN = TypeAdapter(bool)


class ConfigurationError(Exception):
    """The settings can't be used as they are; the message is one line that says which and why."""


class CommandSettings(SourcedSettings):
    """What all commands have in common."""

    command: ClassVar[str]

    config: Path | None = Field(
        None, description="TOML file; its table of the command's name holds the settings"
    )
    output: Path | None = Field(
        None,
        description="directory for the result as NAME.json, .html, .md, .svg (its plots), .csv and"
        " .xml (JUnit); by default results/NAME, and none of run and diff",
    )

    @property
    def directory(self) -> Path | None:
        """Where the result goes, if it is written."""
        return self.output or Path("results") / self.command


class QuickSettings(CommandSettings):
    """Settings of commands that have a shorter form."""

    quick_values: ClassVar[Mapping[str, object]]
    """What a quick run takes instead of the defaults."""

    quick: bool = Field(
        default=False, description="a shorter form, of a few minutes; flags still win"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_quick(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic's "before" protocol
        if not isinstance(values, dict):
            return values
        try:
            asked = _BOOLEAN.validate_python(values.get("quick", False))
        except ValidationError:
            # Told when the field itself is read.
            return values
        return {**cls.quick_values, **values} if asked else values


def differing(name: str, default: object) -> Any:  # noqa: ANN401 - what pydantic's Field returns
    """Return a setting of ``LoadSettings`` with another default."""
    return FieldInfo.merge_field_infos(LoadSettings.model_fields[name], default=default)


class LoadSettings(CommandSettings):
    """The load itself: which channels, which operations, how they are paced and for how long."""

    seed: int = Field(1, ge=0, description="same seed, same sequence of operations and payloads")
    channels: int = Field(200, ge=1, le=1_000_000, description="channels to establish and use")
    one_time_prekeys: int = Field(
        10, ge=0, le=200, description="one-time prekeys in each peer's bundle"
    )
    channel_skew: float = Field(
        0, ge=0, le=5, description="exponent of the Zipf choice of channels; 0: all alike"
    )
    payload_bytes: PayloadSizes = Field(
        "64,1024",
        description=(
            "plaintext sizes: a number, 64,1024 (each as likely), 64*3,1024 (weights),"
            " uniform:LOW:HIGH, lognormal:MEDIAN:SIGMA or exponential:MEAN"
        ),
    )
    encrypt_weight: float = Field(1, ge=0, description="share of Encrypt in the mix")
    decrypt_weight: float = Field(1, ge=0, description="share of Decrypt in the mix")
    round_trip_weight: float = Field(
        0, ge=0, description="share of round trips in the mix: Encrypt, then Decrypt of the answer"
    )
    out_of_order: float = Field(
        0.01,
        ge=0,
        le=0.5,
        description="share of the peers' messages that are held back and sent after later ones",
    )
    hold_back: int = Field(
        4, ge=1, le=100, description="how many later messages overtake a held one, at most"
    )
    skipped_keys: int = Field(
        0,
        ge=0,
        le=1_000,
        description="message keys that each channel keeps for peers' messages that never come",
    )
    transport: Literal["stream", "unary"] = Field(
        "stream", description="one bidirectional stream of frames, or a call for each operation"
    )
    frame_operations: int = Field(
        64, ge=1, le=4096, description="operations in a frame of the stream, at most"
    )
    concurrency: int = Field(
        512,
        ge=1,
        le=100_000,
        description="closed loop: operations kept in flight, as nearly as full frames allow",
    )
    think_seconds: Durations = Field(
        "0",
        description=(
            "closed loop: time between an answer and what is sent in its place; a number or a"
            " distribution, written as payload sizes are"
        ),
    )
    rate: Rate | None = Field(
        None,
        description=(
            "open loop: operations per second, sent on time whatever the answers do: 1000,"
            " 100..1000 (ramp), 100,200,400 (steps), 100^1000 (spike in the middle tenth), each"
            " evenly or, as poisson:1000, by chance; batch:64:640: 64 at a time"
        ),
    )
    alternate_seconds: float | None = Field(
        None,
        gt=0,
        le=3600,
        description=(
            "turns of so long: the open loop of `rate`, then the closed loop of `concurrency`, by"
            " the wall clock, so that the generators of several services change over together"
        ),
    )
    max_in_flight: int = Field(
        4096, ge=1, description="open loop: at so many in flight a send is skipped, and counted"
    )
    warm_up_seconds: float = Field(2, ge=0, le=3600, description="load before measuring")
    duration_seconds: float = Field(10, gt=0, le=86_400, description="load that is measured")
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="generator processes, which share channels, rate and what is in flight",
    )
    churn_rate: float = Field(
        0, ge=0, le=10_000, description="channels closed and replaced by new ones, per second"
    )
    storms: Storms = Field(
        "",
        description=(
            "moments, in seconds, at which the peers of all channels come back at once:"
            " restore@5,reconnect@8 (over the same connection; over a new one each)"
        ),
    )
    stop_if: StopConditions = Field(
        "",
        description=(
            "conditions that end the measuring early, as a failure: errors>0.01,p99>50 (share of"
            " the operations; milliseconds)"
        ),
    )
    timeout_seconds: float = Field(
        30, gt=0, le=600, description="how long an answer, or the service's start, may take"
    )
    service_command: ShellCommand = Field(
        None, description="how to start the service, in shell words; 'serve ...' is added"
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if not (self.encrypt_weight or self.decrypt_weight or self.round_trip_weight):
            raise ValueError("the mix is empty: give one of the weights a value above 0")
        if self.processes > self.channels:
            raise ValueError(f"{self.processes} processes can't share {self.channels} channels")
        thinks = self.think_seconds != "0"
        has_closed_loop = self.rate is None or self.alternate_seconds is not None
        if thinks and self.rate is not None:
            raise ValueError("`think_seconds` is for closed loops: leave it or `rate` out")
        if self.alternate_seconds is not None and self.rate is None:
            raise ValueError("`alternate_seconds` needs `rate`")
        if self.churn_rate and self.skipped_keys:
            raise ValueError(
                "channels that `churn_rate` brings hold no `skipped_keys`: leave one out"
            )
        if any(storm.at >= self.duration_seconds for storm in parse_storms(self.storms)):
            raise ValueError("`storms`: one comes after the load has ended")
        if (
            self.transport == "stream"
            and has_closed_loop
            and not thinks
            and self.concurrency < self.frame_operations * self.processes
        ):
            of_each = " for each process" if self.processes > 1 else ""
            raise ValueError(
                f"concurrency {self.concurrency} can't fill a frame of {self.frame_operations}"
                f" operations{of_each}: raise `concurrency` or lower `frame_operations`"
            )
        if has_closed_loop and self.concurrency < self.processes:
            raise ValueError(
                f"{self.processes} processes can't share a concurrency of {self.concurrency}"
            )
        return self


class RunSettings(LoadSettings):
    """Put load on a service and say how it did."""

    command: ClassVar[str] = "run"

    target: Target | None = Field(
        None,
        description="HOST:PORT or unix:PATH of a running service; without it, one is started",
    )
    target_metrics: HttpTarget | None = Field(
        None, description="HOST:PORT of its metrics, for the figures of cost per message"
    )
    target_tls_ca: Path | None = Field(
        None,
        description="PEM file, roots of its certificate, or that itself; without it, clear text",
    )
    target_tls_certificate: Path | None = Field(
        None, description="PEM file of the certificate that it wants to see, if it wants one"
    )
    target_tls_private_key: Path | None = Field(None, description="PEM file of the key of that")
    target_tls_server_name: str | None = Field(
        None, description="the name that its certificate has, if it isn't the target's"
    )
    target_token_file: Path | None = Field(
        None, description="file that holds the bearer token that it wants to see"
    )
    strategy: StrategyName = Field("differential", description="started service: strategy")
    journal: JournalName = Field("sqlite", description="started service: journal")
    router: RouterName = Field("forwarding", description="started service: router mode")
    dh_ratchet_every: int = Field(
        10, ge=1, description="started service: messages that make an end turn its DH ratchet"
    )
    snapshot_interval: int = Field(
        50, ge=1, description="started service: records between snapshots"
    )
    redelivery_window: int = Field(
        0, ge=0, description="started service: answers that a channel keeps to give again"
    )
    workers: int = Field(1, ge=1, description="started service: processes that share the channels")
    listen: Listen = Field("127.0.0.1:0", description="started service: where it listens")
    metrics_listen: HttpListen = Field(
        "127.0.0.1:0", description="started service: where it serves its metrics"
    )
    data_dir: Path | None = Field(
        None, description="started service: data directory; without it, one that is removed after"
    )
    serve_metrics: HttpListen | None = Field(
        None, description="HOST:PORT where to serve the generator's own metrics to Prometheus"
    )
    dry_run: bool = Field(default=False, description="only say what would be done")

    @property
    def directory(self) -> Path | None:
        """Where the result goes, if it is written."""
        return self.output

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        started = {
            "strategy",
            "journal",
            "router",
            "dh_ratchet_every",
            "snapshot_interval",
            "redelivery_window",
            "workers",
            "listen",
            "metrics_listen",
            "data_dir",
            "service_command",
        }
        if self.target is not None and (useless := sorted(started & self.model_fields_set)):
            raise ValueError(
                f"with `target` no service is started, so `{useless[0]}` can't be obeyed"
            )
        if self.serve_metrics is not None and self.processes > 1:
            raise ValueError("`serve_metrics` shows one generator process: leave `processes` out")
        of_target = sorted(name for name in self.model_fields_set if name.startswith("target_"))
        if self.target is None and of_target:
            raise ValueError(f"`{of_target[0]}` needs `target`")
        if (self.target_tls_certificate is None) != (self.target_tls_private_key is None):
            raise ValueError(
                "`target_tls_certificate` and `target_tls_private_key` belong together: give both"
            )
        of_tls = sorted(name for name in of_target if name.startswith("target_tls_"))
        if self.target_tls_ca is None and of_tls:
            raise ValueError(f"`{of_tls[0]}` needs `target_tls_ca`")
        return self


class DiffSettings(CommandSettings):
    """Say how two saved results of the same command differ."""

    command: ClassVar[str] = "diff"

    before: Path = Field(description="saved result, JSON: what is compared with")
    after: Path = Field(description="saved result, JSON: what is compared")
    threshold: float = Field(
        0.1, ge=0, le=10, description="share by which a figure may be worse, before it is a failure"
    )

    @property
    def directory(self) -> Path | None:
        """Where the result goes, if it is written."""
        return self.output


_Settings = TypeVar("_Settings", bound=CommandSettings)


def load_settings(
    settings_type: type[_Settings],
    arguments: Sequence[str],
    environment: Mapping[str, str] | None = None,
) -> _Settings:
    """Read the settings of one command.

    Args:
        settings_type: the command's settings.
        arguments: the flags behind the command's name.
        environment: where variables are looked up; the process's own if not given.

    Raises:
        ConfigurationError: names what is wrong.
        SystemExit: after ``--help``.
    """
    try:
        return read_settings(
            settings_type,
            arguments,
            program=f"loadgen {settings_type.command}",
            prefix="LOADGEN_",
            environment=environment,
            tables=_TABLES,
            table=settings_type.command,
            # The environment may be that of several commands.
            also_known=(*RunSettings.model_fields, *QuickSettings.model_fields, "rounds"),
        )
    except SettingsError as error:
        raise ConfigurationError(str(error)) from None
