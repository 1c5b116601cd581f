"""What can be configured: one immutable value, read at start and handed to whoever needs a part.

Sources in rising order: defaults, a TOML file (``--config FILE`` or ``CONNECT_ACTOR_CONFIG``),
environment variables (``CONNECT_ACTOR_…``), flags.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    ConfigDict,
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

# What a timer can hold: no wait is longer than a year.
_YEAR = 365 * 24 * 60 * 60
_Seconds = Annotated[float, Field(gt=0, le=_YEAR)]
# Far beyond any machine, and small enough for the arithmetic of token buckets.
_Rate = Annotated[float, Field(ge=0, le=1e12)]
# gRPC's own limits are signed 32-bit integers, and its times are in milliseconds.
_GrpcCount = Annotated[int, Field(gt=0, lt=2**31)]
_GrpcSeconds = Annotated[float, Field(gt=0, le=24 * 24 * 60 * 60)]
_ChannelLimit = Annotated[int, Field(gt=0, le=MAX_UINT32)]
# Every two workers have a connection.
_MAX_WORKERS = 64


class Settings(SourcedSettings):
    """How the service runs. Every field is a flag, an environment variable and a TOML key."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    config: Path | None = None
    """TOML file with any of these settings"""

    listen: str = "127.0.0.1:50051"
    """host:port for gRPC (IPv6 in brackets), or unix:path; port 0 picks a free one"""
    metrics_listen: str = "127.0.0.1:9464"
    """host:port for Prometheus (IPv6 in brackets); port 0 picks a free one"""
    tls_certificate: Path | None = None
    """PEM file, the server's certificate first; with it gRPC is TLS only"""
    tls_private_key: Path | None = None
    """PEM file, without a passphrase"""
    tls_client_ca: Path | None = None
    """PEM file; each client then needs a certificate from these roots"""
    allow_plaintext: bool = False
    """gRPC without TLS may listen beyond the loopback address"""
    token_file: Path | None = None
    """names and hashes of bearer tokens; each call then needs one"""
    max_channels_per_principal: NonNegativeInt = 0
    """channels of one principal; 0: no limit"""
    max_channels: NonNegativeInt = 200_000
    """channels in all, where callers are not authenticated; beyond: Establish is rejected; 0: no
    limit"""
    max_operations_per_second: _Rate = 0.0
    """of each principal; of each address where callers are not authenticated, as the next two; 0:
    no limit"""
    max_bytes_per_second: _Rate = 0.0
    """of each principal's requests; 0: no limit"""
    max_derivations_per_second: _Rate = 50_000.0
    """of each principal: skipped message keys, and the work of forged messages; beyond: streams
    that caused it are not read, larger skips are rejected; 0: no limit"""
    rate_burst: _Seconds = 1.0
    """burst that each rate allows, in seconds' worth of it"""

    data_dir: Path = Path("data")
    """directory of journal and key files"""
    workers: Annotated[int, Field(ge=1, le=_MAX_WORKERS)] = 1
    """processes that share the channels, each with a journal of its own; fixed for a data_dir"""
    worker_timeout: Annotated[float, Field(ge=0, le=_YEAR)] = 30.0
    """seconds without a heartbeat after which a worker is killed, which ends the service; 0:
    never"""

    sealing_key_file: Path | None = None
    """file with the master keys of everything at rest: lines of 64 hex digits, the first one seals;
    default: sealing.key in data_dir, made at the first start"""
    sealing_keys: SecretStr | None = None
    """the master keys themselves, in the environment; rejected on a command line, and in a file
    that others may read"""
    sealing_key_command: str | None = None
    """command that prints the master keys, run without a shell"""

    strategy: str = "differential"
    """full, cached or differential"""
    journal: Literal["sqlite", "memory"] = "sqlite"
    """memory loses everything at stop: for measuring only"""
    router: Literal["forwarding", "awaiting"] = "forwarding"
    """awaiting = one operation at a time, as the audited server"""
    snapshot_interval: PositiveInt = 50
    """changes between a channel's snapshots"""
    commit_delay: Annotated[float, Field(ge=0, le=1)] = 0.01
    """seconds that a commit waits at most for more to join it, while the event loop is busy and has
    brought fewer than 32; an idle service commits at once"""
    journal_timeout: _Seconds = 10.0
    """seconds until a request to the journal is given up"""
    journal_lease: _Seconds = 10.0
    """seconds without a renewal after which another service may take the journal over"""

    dh_ratchet_every: _ChannelLimit = 10
    """messages on a sending chain until a due DH ratchet step; 1 = classic"""
    max_skip: _ChannelLimit = 1_000
    """messages that may be missing on a chain"""
    max_skipped_keys: _ChannelLimit = 2_000
    """skipped message keys a channel keeps"""
    channel_lifetime: Annotated[float, Field(gt=0, le=MAX_LIFETIME)] = 86_400.0
    """seconds until a channel expires"""
    one_time_prekeys: Annotated[int, Field(ge=0, le=MAX_ONE_TIME_PREKEYS)] = 10
    """one-time prekeys in our bundles"""
    redelivery_window: Annotated[int, Field(ge=0, le=MAX_REDELIVERY_WINDOW)] = 16
    """answers that a new channel keeps for redelivery; 0: a used key is erased at once"""

    idle_timeout: _Seconds = 60.0
    """seconds until an idle actor passivates"""
    max_live_actors: PositiveInt = 200_000
    """live actors; beyond: the least recently used one passivates"""
    max_concurrent_recoveries: PositiveInt = 64
    """channels loaded at a time"""
    max_waiting_recoveries: PositiveInt = 65_536
    """channels that may wait to be loaded; beyond: rejected"""
    recovery_wait_timeout: _Seconds = 10.0
    """seconds that a channel may wait to be loaded; then: rejected"""
    max_waiting_writes: PositiveInt = 65_536
    """writes waiting for a commit"""
    restart_backoff: _Seconds = 0.2
    """seconds before a crashed actor restarts; doubles with each crash in a row"""
    max_restart_backoff: _Seconds = 30.0
    """seconds, at the most"""

    max_message_bytes: _GrpcCount = 1_048_576
    """largest plaintext or ciphertext of one operation"""
    max_frame_bytes: _GrpcCount = 4_194_304
    """largest gRPC message"""
    max_operations_in_flight: PositiveInt = 2_048
    """operations in flight on one stream; beyond: the stream is not read"""
    max_stream_bytes: PositiveInt = 8_388_608
    """bytes held for one stream, unread answers included; beyond: it is not read"""
    max_operations_in_service: PositiveInt = 4_096
    """operations in flight in all; beyond three quarters: streams are not read, beyond: rejected"""
    max_bytes_in_service: PositiveInt = 1_073_741_824
    """bytes held for all of them and for unread answers; the process may take four times as much
    for what callers send and don't read"""
    slow_reader_timeout: _Seconds = 30.0
    """seconds that an answer may wait to be read until its call is ended"""
    message_timeout: _Seconds = 10.0
    """seconds within which a unary call's message must arrive; then: rejected"""
    stream_idle_timeout: _Seconds = 3_600.0
    """seconds without work after which a stream is ended"""
    max_connections: _GrpcCount = 20_000
    """connections; beyond, or beyond the file descriptors: closed at once"""
    max_calls: _GrpcCount = 20_000
    """open calls and streams, at most one for each 128 KiB of max_bytes_in_service; beyond:
    rejected"""
    max_calls_per_connection: _GrpcCount = 256
    """calls and streams of one connection; beyond: delayed by HTTP/2 flow control"""
    keepalive_interval: _GrpcSeconds = 60.0
    """seconds of silence after which a connection is sent a keepalive ping"""
    keepalive_timeout: _GrpcSeconds = 20.0
    """keepalive reply timeout, in seconds"""
    connection_idle_timeout: _GrpcSeconds = 900.0
    """seconds without a call until a connection is closed"""
    handshake_timeout: _GrpcSeconds = 10.0
    """seconds within which a new connection must complete its TLS and HTTP/2 handshake"""
    shutdown_grace: _Seconds = 20.0
    """seconds for finishing what was accepted when stopped"""
    native_message_step: bool = True
    """do the cryptography of a message in one native call, where that is built"""
    allow_debugger: bool = False
    """allow core dumps and attached debuggers, which can read every key"""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """least severe level that is logged"""

    @field_validator("listen", "metrics_listen")
    @classmethod
    def _an_address(cls, value: str, info: ValidationInfo) -> str:
        # Prometheus scrapes TCP only.
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
                " the network is private"
            )
        return self

    @property
    def authenticates(self) -> bool:
        """Whether callers are authenticated."""
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
