"""The form of results that bench still has; it goes with bench's own report."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from connect_loadgen.experiment.results import Environment
from connect_loadgen.program.exits import Exit

__all__ = ["FormerResult"]


class FormerResult(BaseModel):
    """What the result of every command has."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: str
    started_at: str
    """UTC, ISO 8601."""
    settings: dict[str, Any]
    environment: Environment
    cut_short: str | None = None
    """Why the command ended before it was done; the result holds what was measured until then."""

    @property
    def is_wrong(self) -> bool:
        """Whether an answer, a promise or a bound was broken, however much was measured."""
        return False

    def withheld(self) -> Iterator[tuple[Exit, str]]:
        """Yield why there is no verdict, INVALID or NO_VERDICT each with a sentence."""
        yield from ()

    @property
    def exit(self) -> Exit:
        """What the command's exit code says of what was measured."""
        if self.is_wrong:
            return Exit.WRONG
        # A generator that was the limit may be why nothing else was shown.
        return min((code for code, _ in self.withheld()), default=Exit.RIGHT)

    @property
    def notices(self) -> list[str]:
        """What stands above every answer, in sentences."""
        cut_short = [] if self.cut_short is None else [f"CUT SHORT: {self.cut_short}"]
        return [*cut_short, *(why for _, why in self.withheld())]
