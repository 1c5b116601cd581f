"""The form of what ``loadgen soak`` found."""

from collections.abc import Iterator
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from connect_loadgen.drive.figures import Generator
from connect_loadgen.experiment.results import Ratio, Result
from connect_loadgen.program.exits import Exit
from connect_loadgen.report.promises import Promise

__all__ = ["SOAK_SCHEMA", "Ageing", "SoakResult", "SoakSample"]

SOAK_SCHEMA: Final = "connect-actor.loadgen.soak/3"


class SoakSample(BaseModel):
    """The service at one moment, and the load since the sample before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    at_seconds: float
    """From the beginning of the soak."""
    rss_bytes: int
    descriptors: int
    threads: int
    database_bytes: int
    wal_bytes: int
    live_actors: float
    streams_open: float | None
    cpu_share: float
    """CPU seconds per second since the sample before."""
    gc_collections: float | None
    """Since the service began."""
    gc_pause_seconds: float | None
    """Likewise."""
    right_per_second: float
    errors: dict[str, int]
    p50_ms: float | None
    p99_ms: float | None
    generator_cpu_share: float
    """CPU seconds per second of the generator, which shares the machine."""
    generator_lag_p99_ms: float | None
    """How late its event loop woke up: every latency holds that, too."""

    def of_operation(self, cpu_share: float) -> float | None:
        """Return the CPU seconds of such a share for each operation that was answered."""
        return cpu_share / self.right_per_second if self.right_per_second else None


class Ageing(BaseModel):
    """The soaked service, of a fresh one under the same load, over rounds in turns."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    p50: Ratio | None
    p99: Ratio | None
    """Of a turn's median second."""
    cpu: Ratio | None
    """CPU of an operation."""
    failed: int
    """Operations of all turns that were refused, or answered wrongly."""


class SoakResult(Result):
    """Result of ``loadgen soak``."""

    schema_version: Literal["connect-actor.loadgen.soak/3"] = SOAK_SCHEMA
    capacity_per_second: float
    intended_per_second: float
    achieved_per_second: float
    soaked_seconds: float
    """How long the load was on."""
    operations: int
    wrong_answers: int
    errors: dict[str, int]
    skipped_at_cap: int
    skipped_by_late_generator: int
    channels_established: int
    channels_closed: int
    samples: list[SoakSample]
    ageing: Ageing | None
    """Null if no fresh service was asked for."""
    generator: Generator
    promises: list[Promise]

    @property
    def is_wrong(self) -> bool:
        """Whether a promise was broken."""
        return any(each.is_broken for each in self.promises)

    def withheld(self) -> Iterator[tuple[Exit, str]]:
        """Yield why the promises have no verdict."""
        if not self.generator.is_valid:
            yield Exit.INVALID, f"{self.generator.verdict}: no verdict"
