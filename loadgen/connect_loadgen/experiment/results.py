"""The one form of a result: what is written as JSON, and what reports are made from.

``format`` changes when a reader of an older file would misread this one. Names carry their unit. A
figure that is not known is null, never 0.
"""

from typing import Any, Final, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict

from connect_loadgen.drive.figures import LoadFigures
from connect_loadgen.experiment.bounds import Bound, Verdict
from connect_loadgen.experiment.numbers import Spread
from connect_loadgen.program.exits import Exit
from connect_loadgen.service.cost import Cost

__all__ = [
    "FORMAT",
    "Environment",
    "Record",
    "Recovery",
    "Result",
    "Round",
    "Row",
    "Side",
    "Withheld",
]

FORMAT: Final = "connect-actor.loadgen/2"

_Detail = TypeVar("_Detail")


class Record(BaseModel):
    """A part of a result."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Environment(Record):
    """Where and with what a result was made."""

    git_revision: str | None
    git_dirty: bool | None
    python: str
    versions: dict[str, str]
    platform: str
    cpu_model: str | None
    cpus: int
    memory_bytes: int
    filesystem: str | None
    """Of the service's data directory."""


class Recovery(Record):
    """What it took to come back after ``kill -9``."""

    channels: int
    start_seconds: float
    """From the start of the process until it is ready."""
    restore_seconds: float
    """From the first Restore, of all channels at once, until the last answer."""
    channels_per_second: float
    verified_channels: int
    """Channels that then carried a message each way, every byte checked."""
    restore_cpu_seconds: float | None = None
    """CPU time of the service from the first Restore until the last answer."""
    replayed_records: float | None = None
    """Records behind the channels' snapshots that were read for it, all channels together."""


class Round(Record):
    """What one turn of one side showed."""

    figures: dict[str, float | None]
    generator_bound: bool = False
    """Whether the generator, not the service, may have set the figures."""
    number: int = 1
    """Round, from 1."""
    position: int = 1
    """Place in the round's order, from 1."""
    load: LoadFigures | None = None
    cost: Cost | None = None
    recovery: Recovery | None = None

    @property
    def is_right(self) -> bool:
        """Whether every answer came and was right, to the end, and every channel came back."""
        load, back = self.load, self.recovery
        return (
            load is None or not (load.verification_failures or load.errors or load.stopped)
        ) and (back is None or back.verified_channels == back.channels)


class Side(Record):
    """All rounds of one thing that is measured, or that others are compared with."""

    name: str
    rounds: list[Round]
    failure: str | None = None
    """Why it could not be measured; there are no rounds after that."""

    @property
    def valid(self) -> list[Round]:
        """The rounds in which the generator was not the limit."""
        return [each for each in self.rounds if not each.generator_bound]


class Row(Record):
    """A figure, what it is compared with, its bound and the verdict."""

    name: str
    """Unique in its result."""
    subject: str = ""
    """Heading under which tables show it."""
    text: str
    unit: str
    measured: Spread | None
    compared_with: str = ""
    """Empty if the figure stands for itself."""
    reference: Spread | None = None
    ratio: Spread | None = None
    """Measured divided by what it is compared with, round by round."""
    bound: Bound | None = None
    claimed: str = ""
    """The bound in words."""
    verdict: Verdict
    is_promise: bool = False
    """Whether a broken bound is a fault of the service."""
    more_is_better: bool | None = None
    rounds: int = 0
    """Rounds that the figure rests on; those of the generator are left out."""
    how: str = ""
    """Under what load, and on what."""
    remark: str = ""
    """What a reader must know; why it was not measured, if it was not."""

    @property
    def is_broken(self) -> bool:
        """Whether it shows a fault of the service."""
        return self.is_promise and self.verdict is Verdict.DOES_NOT_HOLD

    @property
    def judged(self) -> Spread | None:
        """What is held against the bound."""
        return self.ratio if self.bound is not None and self.bound.of == "ratio" else self.measured


class Withheld(Record):
    """Why there is no verdict."""

    code: int
    """INVALID or NO_VERDICT, of ``Exit``."""
    why: str

    @classmethod
    def invalid(cls, why: str) -> Self:
        """The generator, not the service, was the limit."""
        return cls(code=Exit.INVALID, why=why)

    @classmethod
    def nothing_shown(cls, why: str) -> Self:
        """Nothing was shown."""
        return cls(code=Exit.NO_VERDICT, why=why)


class Result(Record, Generic[_Detail]):
    """Result of any command."""

    format: Literal["connect-actor.loadgen/2"] = FORMAT
    command: str
    started_at: str
    """UTC, ISO 8601."""
    seconds: float
    settings: dict[str, Any]
    environment: Environment
    cut_short: str | None = None
    """Why the command ended before it was done; the result holds what was measured until then."""
    left_out: list[str] = []
    """Parts, or rounds of them, that were planned and not measured."""
    answer: list[str] = []
    """What a hurried reader must see."""
    rows: list[Row] = []
    sides: dict[str, Side] = {}
    """What the rows are made of."""
    warnings: list[str] = []
    faults: list[str] = []
    """What was wrong, however much was measured."""
    withheld: list[Withheld] = []
    detail: _Detail

    @property
    def exit(self) -> Exit:
        """What the command's exit code says of what was measured."""
        is_broken = any(
            row.is_promise and row.verdict is Verdict.DOES_NOT_HOLD for row in self.rows
        )
        if self.faults or is_broken:
            return Exit.WRONG
        # A generator that was the limit may be why nothing else was shown.
        code = min((each.code for each in self.withheld), default=0)
        return next(each for each in Exit if each == code)

    @property
    def notices(self) -> list[str]:
        """What stands above the answer, in sentences."""
        cut_short = [] if self.cut_short is None else [f"CUT SHORT: {self.cut_short}"]
        left_out = [f"Left out: {'; '.join(self.left_out)}"] if self.left_out else []
        return [*cut_short, *(each.why for each in self.withheld), *left_out]
