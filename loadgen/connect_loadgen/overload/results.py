"""The form of what ``loadgen overload`` found."""

from collections.abc import Iterator
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from connect_loadgen.drive.figures import Generator
from connect_loadgen.drive.timeline import Window
from connect_loadgen.experiment.results import Ratio, Result
from connect_loadgen.overload.settings import TransportName
from connect_loadgen.program.exits import Exit
from connect_loadgen.report.promises import Promise

__all__ = [
    "OVERLOAD_PHASE",
    "OVERLOAD_SCHEMA",
    "ConnectionsFound",
    "Course",
    "OverloadResult",
    "Phase",
    "RefusalCost",
]

OVERLOAD_SCHEMA: Final = "connect-actor.loadgen.overload/4"


OVERLOAD_PHASE: Final = 2
"""Index of the phase in which more is asked for than the service sustains."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Phase(_Record):
    """One rate, held for a while."""

    name: str
    begins_seconds: float
    seconds: float
    offered_per_second: float
    accepted_per_second: float
    """Operations answered rightly while it lasted."""
    refused: dict[str, int]
    """Operations answered by another status, by its name."""
    p50_ms: float | None
    """Median over its windows, of what was accepted, from when it was due."""
    p99_ms: float | None
    cpu_share: float
    """CPU seconds of the service per second."""
    peak_rss_bytes: int


class RefusalCost(_Record):
    """What it costs the service to refuse, beside what it costs to accept."""

    accepted_cpu_us: float
    refused_cpu_us: float
    refused: int
    has_retry_info: bool
    """Whether every refusal said when to try again."""
    bare_cpu_us: float | None
    """What the same call costs a bare gRPC server that answers it; null for streams."""
    of_bare: Ratio | None
    """The one of the other, over rounds in which both had a turn; null for streams."""


class ConnectionsFound(_Record):
    """What many connections, and many new ones, do to others."""

    idle: int
    rss_per_idle_connection_bytes: float
    p99_alone_ms: float | None
    p99_with_idle_ms: float | None
    flood_connections: int
    """Connections that were opened and closed, or fed with garbage, during the flood."""
    flood_seconds: float
    p99_in_flood_ms: float | None
    errors: dict[str, int]
    """Of the load beside all that."""


class Course(_Record):
    """All phases over one transport, and what was seen beside them."""

    transport: TransportName
    sustainable_per_second: float
    """What a closed loop showed."""
    phases: list[Phase]
    windows: list[Window]
    """Throughput and refusals of all; latencies of the lines, whose every answer was opened."""
    held_back: int
    """Operations beyond the sustainable rate that were not sent: the service did not read the
    stream, or had as many calls of the connection under way as it takes."""
    skipped_at_cap: int
    skipped_by_late_generator: int
    wrong_answers: int
    recovery_seconds: float | None
    """From the end of the overload until latency is normal and stays so; null: never."""
    refusal: RefusalCost
    connections: ConnectionsFound | None
    """Tried beside the first transport only: they have nothing to do with it."""
    generator: Generator
    promises: list[Promise]

    def withheld(self) -> Iterator[tuple[Exit, str]]:
        """Yield why the promises have no verdict."""
        if not self.generator.is_valid:
            yield Exit.INVALID, f"Over {self.transport}: {self.generator.verdict}: no verdict"
        if not sum(self.phases[OVERLOAD_PHASE].refused.values()):
            yield (
                Exit.NO_VERDICT,
                f"Over {self.transport}: not overloaded, not one operation was refused: no verdict",
            )


class OverloadResult(Result):
    """Result of ``loadgen overload``."""

    schema_version: Literal["connect-actor.loadgen.overload/4"] = OVERLOAD_SCHEMA
    courses: list[Course]
    """One for each transport, at least one."""

    @property
    def is_wrong(self) -> bool:
        """Whether a promise was broken."""
        return any(each.is_broken for course in self.courses for each in course.promises)

    def withheld(self) -> Iterator[tuple[Exit, str]]:
        """Yield why promises have no verdict."""
        for course in self.courses:
            yield from course.withheld()
