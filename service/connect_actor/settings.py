"""What can be configured: one immutable value, read at start and handed to whoever needs a part.

Sources in rising order: defaults, a TOML file (``--config FILE`` or ``CONNECT_ACTOR_CONFIG``),
environment variables (``CONNECT_ACTOR_…``), flags.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveInt,
    SecretStr,
    ValidationInfo,
    field_validator,
    model_validator,
)

from connect_actor.network.addresses import UnixSocket, parse, parse_host_port
from connect_actor.protocol.limits import (
    MAX_LIFETIME,
    MAX_ONE_TIME_PREKEYS,
    MAX_REDELIVERY_WINDOW,
    MAX_UINT32,
)
from connect_actor.setting_sources import SettingsError, SourcedSettings, read_settings

__all__ = ["ENVIRONMENT_PREFIX", "Settings", "SettingsError", "load_settings"]

ENVIRONMENT_PREFIX = "CONNECT_ACTOR_"

# What a timer can hold: a year is longer than anyone waits, and infinity is no time.
_YEAR = 365 * 24 * 60 * 60
_Seconds = Annotated[float, Field(gt=0, le=_YEAR)]
# No machine does as much, and what is refilled by it stays a number.
_Rate = Annotated[float, Field(ge=0, le=1e12)]
# gRPC's own limits are signed 32-bit integers, and its times are in milliseconds.
_GrpcCount = Annotated[int, Field(gt=0, lt=2**31)]
_GrpcSeconds = Annotated[float, Field(gt=0, le=24 * 24 * 60 * 60)]
_ChannelLimit = Annotated[int, Field(gt=0, le=MAX_UINT32)]
# Each two of them are linked.
_MAX_WORKERS = 64


class Settings(SourcedSettings):
    """How the service runs. Every field is a flag, an environment variable and a TOML key."""

    config: Path | None = Field(None, description="TOML file with any of these settings")

    listen: str = Field(
        "127.0.0.1:50051",
        description="host:port for gRPC (IPv6 in brackets), or unix:path; port 0 picks a free one",
    )
    metrics_listen: str = Field(
        "127.0.0.1:9464",
        description="host:port for Prometheus (IPv6 in brackets); port 0 picks a free one",
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file, the server's certificate first; with it gRPC is TLS only"
    )
    tls_private_key: Path | None = Field(None, description="PEM file, without a passphrase")
    tls_client_ca: Path | None = Field(
        None, description="PEM file; each client then needs a certificate from these roots"
    )
    allow_plaintext: bool = Field(
        default=False,
        description="gRPC without TLS may listen beyond the loopback address",
    )
    token_file: Path | None = Field(
        None, description="names and hashes of bearer tokens; each call then needs one"
    )
    max_channels_per_principal: NonNegativeInt = Field(0, description="0: any number")
    max_channels: NonNegativeInt = Field(
        200_000,
        description="channels in all, where callers are not authenticated; beyond: none is made;"
        " 0: any number",
    )
    max_operations_per_second: _Rate = Field(
        0.0,
        description="of each principal; of each address where callers are not authenticated, as"
        " the next two; 0: any number",
    )
    max_bytes_per_second: _Rate = Field(
        0.0, description="of each principal's requests; 0: any number"
    )
    max_derivations_per_second: _Rate = Field(
        50_000.0,
        description="of each principal: skipped message keys, and what forged messages cost;"
        " beyond: streams that caused it are not read, larger skips are refused; 0: any number",
    )
    rate_burst: _Seconds = Field(
        1.0, description="how much of a rate may come at once, in seconds' worth"
    )

    data_dir: Path = Field(Path("data"), description="directory of journal and key files")
    workers: int = Field(
        1,
        ge=1,
        le=_MAX_WORKERS,
        description="processes that share the channels, each with a journal of its own; fixed for"
        " a data_dir",
    )

    worker_timeout: Annotated[float, Field(ge=0, le=_YEAR)] = Field(
        30.0,
        description="seconds after which a worker that stands still is killed, which ends the"
        " service; 0: never",
    )

    sealing_key_file: Path | None = Field(
        None,
        description="file with the master keys of everything at rest: lines of 64 hex digits, the"
        " first one seals; default: sealing.key in data_dir, made at the first start",
    )
    sealing_keys: SecretStr | None = Field(
        None,
        description="the master keys themselves, in the environment; refused on a command line, and"
        " in a file that others may read",
    )
    sealing_key_command: str | None = Field(
        None, description="command that prints the master keys, run without a shell"
    )

    strategy: str = Field("differential", description="full, cached or differential")
    journal: Literal["sqlite", "memory"] = Field(
        "sqlite", description="memory loses everything at stop: for measuring only"
    )
    router: Literal["forwarding", "awaiting"] = Field(
        "forwarding", description="awaiting = one operation at a time, as the audited server"
    )
    snapshot_interval: PositiveInt = Field(50, description="changes between a channel's snapshots")
    commit_delay: Annotated[float, Field(ge=0, le=1)] = Field(
        0.01,
        description="seconds that a commit waits at most for more to join it, while the event loop"
        " is busy and has brought fewer than 32; in a service that has time nobody waits",
    )
    journal_timeout: _Seconds = Field(
        10.0, description="seconds until a request to the journal is given up"
    )
    journal_lease: _Seconds = Field(
        10.0,
        description="seconds without a sign of life after which another service may take the"
        " journal over",
    )

    dh_ratchet_every: _ChannelLimit = Field(
        10, description="messages on a sending chain until a due DH ratchet turn; 1 = classic"
    )
    max_skip: _ChannelLimit = Field(1_000, description="messages that may be missing on a chain")
    max_skipped_keys: _ChannelLimit = Field(
        2_000, description="skipped message keys a channel keeps"
    )
    channel_lifetime: Annotated[float, Field(gt=0, le=MAX_LIFETIME)] = Field(
        86_400.0, description="seconds until a channel expires"
    )
    one_time_prekeys: int = Field(
        10, ge=0, le=MAX_ONE_TIME_PREKEYS, description="one-time prekeys in our bundles"
    )
    redelivery_window: int = Field(
        16,
        ge=0,
        le=MAX_REDELIVERY_WINDOW,
        description="answers a new channel keeps to give again; 0: a used key is gone at once",
    )

    idle_timeout: _Seconds = Field(60.0, description="seconds until an idle actor passivates")
    max_live_actors: PositiveInt = Field(
        200_000, description="live actors; beyond: the least recently used one passivates"
    )
    max_concurrent_recoveries: PositiveInt = Field(64, description="channels loaded at a time")
    max_waiting_recoveries: PositiveInt = Field(
        65_536, description="channels that may wait to be loaded; beyond: refused"
    )
    recovery_wait_timeout: _Seconds = Field(
        10.0, description="seconds that a channel may wait to be loaded; then: refused"
    )
    max_waiting_writes: PositiveInt = Field(65_536, description="writes waiting for a commit")
    restart_backoff: _Seconds = Field(
        0.2, description="seconds before a crashed actor restarts; doubles with each crash in a row"
    )
    max_restart_backoff: _Seconds = Field(30.0, description="seconds, at the most")

    max_message_bytes: _GrpcCount = Field(
        1_048_576, description="largest plaintext or ciphertext of one operation"
    )
    max_frame_bytes: _GrpcCount = Field(4_194_304, description="largest gRPC message")
    max_operations_in_flight: PositiveInt = Field(
        2_048, description="operations of one stream under way; beyond: the stream is not read"
    )
    max_stream_bytes: PositiveInt = Field(
        8_388_608,
        description="bytes held for one stream, unread answers included; beyond: it is not read",
    )
    max_operations_in_service: PositiveInt = Field(
        4_096,
        description="operations under way in all; beyond three quarters: streams are not read,"
        " beyond: refused",
    )
    max_bytes_in_service: PositiveInt = Field(
        1_073_741_824,
        description="bytes held for all of them and for unread answers; the process may take four"
        " times as much for what callers send and don't read",
    )
    slow_reader_timeout: _Seconds = Field(
        30.0, description="seconds that an answer may wait to be read until its call is ended"
    )
    message_timeout: _Seconds = Field(
        10.0, description="seconds that a unary call's message may be on its way; then: refused"
    )
    stream_idle_timeout: _Seconds = Field(
        3_600.0, description="seconds that a stream may be without work until it is ended"
    )
    max_connections: _GrpcCount = Field(
        20_000, description="connections; beyond, or beyond the file descriptors: closed at once"
    )
    max_calls: _GrpcCount = Field(
        20_000,
        description="calls and streams open, at most one for each 128 KiB of max_bytes_in_service;"
        " beyond: refused",
    )
    max_calls_per_connection: _GrpcCount = Field(
        256, description="calls and streams of one connection; beyond: held up by HTTP/2"
    )
    keepalive_interval: _GrpcSeconds = Field(
        60.0, description="seconds of silence until a connection is asked for a sign of life"
    )
    keepalive_timeout: _GrpcSeconds = Field(20.0, description="seconds that this sign may take")
    connection_idle_timeout: _GrpcSeconds = Field(
        900.0, description="seconds without a call until a connection is closed"
    )
    handshake_timeout: _GrpcSeconds = Field(
        10.0, description="seconds that a new connection may take to speak HTTP/2"
    )
    shutdown_grace: _Seconds = Field(
        20.0, description="seconds for finishing what was accepted when stopped"
    )
    native_message_step: bool = Field(
        default=True,
        description="do the cryptography of a message in one native call, where that is built",
    )
    allow_debugger: bool = Field(
        default=False,
        description="let cores be written and debuggers attach: they see every key",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe level that is logged"
    )

    @field_validator("listen", "metrics_listen")
    @classmethod
    def _an_address(cls, value: str, info: ValidationInfo) -> str:
        # Sockets of the metrics are TCP: Prometheus asks for nothing else.
        (parse if info.field_name == "listen" else parse_host_port)(value)
        return value

    @field_validator("strategy")
    @classmethod
    def _known_strategy(cls, value: str) -> str:
        # The names are those of the classes: a strategy is code, which is loaded to know them.
        from connect_actor.persistence.strategies import STRATEGIES  # noqa: PLC0415

        if value not in STRATEGIES:
            raise ValueError(f"unknown strategy {value!r}: one of {', '.join(STRATEGIES)}")
        return value

    @model_validator(mode="after")
    def _one_source_of_keys(self) -> Self:
        given = (self.sealing_key_file, self.sealing_keys, self.sealing_key_command)
        if sum(source is not None for source in given) > 1:
            raise ValueError(
                "give one of `sealing_key_file`, `sealing_keys` and `sealing_key_command`,"
                " not several"
            )
        return self

    @model_validator(mode="after")
    def _workers_can_share(self) -> Self:
        if self.workers > 1 and isinstance(parse(self.listen), UnixSocket):
            raise ValueError(
                "`workers` above 1 need a host:port to share: `listen` names a unix socket"
            )
        if self.workers > 1 and self.router == "awaiting":
            raise ValueError("`router` awaiting is for one worker: leave `workers` out")
        return self

    @model_validator(mode="after")
    def _access_makes_sense(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_private_key is None):
            raise ValueError("`tls_certificate` and `tls_private_key` belong together: give both")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ValueError("`tls_client_ca` needs a `tls_certificate`")
        if self.max_channels_per_principal and not self.authenticates:
            raise ValueError(
                "`max_channels_per_principal` needs callers that are known: give a `token_file` or"
                " a `tls_client_ca`"
            )
        in_clear = self.tls_certificate is None and not parse(self.listen).is_loopback
        if in_clear and not self.allow_plaintext:
            raise ValueError(
                f"`listen` {self.listen} would be in clear text beyond this machine: give a"
                " `tls_certificate`, listen on a loopback address, or set `allow_plaintext` if"
                " the network is all yours"
            )
        return self

    @property
    def authenticates(self) -> bool:
        """Whether callers have to show who they are."""
        return self.token_file is not None or self.tls_client_ca is not None


def load_settings(arguments: Sequence[str]) -> Settings:
    """Read the settings from all sources.

    Args:
        arguments: the flags, as on a command line.

    Raises:
        SettingsError: a file that can't be read, or a value that isn't acceptable; the message
            names each.
        SystemExit: ``--help`` was asked for.
    """
    return read_settings(
        Settings, arguments, program="connect-actor serve", prefix=ENVIRONMENT_PREFIX
    )
