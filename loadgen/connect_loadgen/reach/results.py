"""The form of what ``loadgen reach`` found."""

from collections.abc import Iterator
from enum import Enum
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict

from connect_loadgen.experiment.numbers import figure
from connect_loadgen.experiment.results import Ratio, Result, Spread
from connect_loadgen.program.exits import Exit

__all__ = ["REACH_SCHEMA", "Goal", "ReachResult", "RowResult", "Seen", "SideResult", "Verdict"]

REACH_SCHEMA: Final = "connect-actor.loadgen.reach/1"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Verdict(Enum):
    """What became of a row."""

    REACHED = "reached"
    NOT_REACHED = "not reached"
    NOT_MEASURED = "not measured"
    NO_VERDICT = "no verdict"
    """The generator was the limit in every round."""
    NO_GOAL = "no goal"
    """For orientation: nothing was set."""


class Goal(_Record):
    """What a row's median is to be."""

    of: Literal["ratio", "figure"]
    """Whether the ratio is held to it or the measured figure itself."""
    bound: float
    is_least: bool

    @classmethod
    def ratio_at_least(cls, bound: float) -> Self:
        """Return the goal of a ratio that is to be so large."""
        return cls(of="ratio", bound=bound, is_least=True)

    @classmethod
    def ratio_at_most(cls, bound: float) -> Self:
        """Return the goal of a ratio that is to be no larger."""
        return cls(of="ratio", bound=bound, is_least=False)

    @classmethod
    def at_least(cls, bound: float) -> Self:
        """Return the goal of a figure that is to be so large."""
        return cls(of="figure", bound=bound, is_least=True)

    @classmethod
    def at_most(cls, bound: float) -> Self:
        """Return the goal of a figure that is to be no larger."""
        return cls(of="figure", bound=bound, is_least=False)

    @property
    def words(self) -> str:
        """The goal as it stands in a table."""
        sign = ">=" if self.is_least else "<="
        return f"{'ratio ' if self.of == 'ratio' else ''}{sign} {figure(self.bound)}"

    def is_reached_by(self, value: float) -> bool:
        """Say whether a median is good enough."""
        return value >= self.bound if self.is_least else value <= self.bound


class Seen(_Record):
    """What one round of one side showed."""

    figures: dict[str, float | None]
    generator_bound: bool = False
    """Whether the generator, not the service, may have set the figures."""


class SideResult(_Record):
    """All rounds of one side: one thing that is measured, or that others are compared with."""

    name: str
    rounds: list[Seen]
    failure: str | None
    """Why it could not be measured; there are no rounds after that."""


class RowResult(_Record):
    """One row of the table."""

    name: str
    what: str
    unit: str
    measured: Spread | None
    compared_with: str
    """Empty if the figure stands for itself."""
    reference: Spread | None
    ratio: Ratio | None
    """Measured, divided by what it is compared with, round by round."""
    goal: Goal | None
    verdict: Verdict
    run_with: str
    remark: str
    """What a reader has to know; why it was not measured, if it was not."""


class ReachResult(Result):
    """Result of ``loadgen reach``."""

    schema_version: Literal["connect-actor.loadgen.reach/1"] = REACH_SCHEMA
    seconds: float
    rows: list[RowResult]
    groups: dict[str, list[SideResult]]
    """What the rows are made of, by the group whose sides took turns."""

    @property
    def is_wrong(self) -> bool:
        """Whether a row could not be measured."""
        return any(row.verdict is Verdict.NOT_MEASURED for row in self.rows)

    def withheld(self) -> Iterator[tuple[Exit, str]]:
        """Yield the rows without a verdict."""
        names = [row.name for row in self.rows if row.verdict is Verdict.NO_VERDICT]
        if names:
            yield (
                Exit.INVALID,
                f"No verdict on {', '.join(names)}: the generator was the limit in every round",
            )
