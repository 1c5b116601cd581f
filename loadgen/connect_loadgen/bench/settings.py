"""What ``loadgen bench`` is told."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from connect_loadgen.settings.load import CommandSettings, fill_in_quick
from connect_loadgen.settings.types import comma_separated

__all__ = ["BenchSettings"]


def _share(value: object) -> object:
    if isinstance(value, str) and value.endswith("%"):
        try:
            return float(value.removesuffix("%")) / 100
        except ValueError:
            return value
    return value


_QUICK: Mapping[str, object] = {"rounds": 2, "values": 2}


class BenchSettings(CommandSettings):
    """Time the parts of the service, and count what they allocate."""

    command: ClassVar[str] = "bench"

    only: Annotated[tuple[str, ...], BeforeValidator(comma_separated)] = Field(
        (),
        description="parts of names, or whole names with * and ?, comma separated; all without it",
    )
    list: bool = Field(default=False, description="only say which benchmarks there are")
    quick: bool = Field(
        default=False, description="fewer rounds and values: rough figures, sooner; flags still win"
    )
    rounds: int = Field(
        5, ge=1, le=100, description="turns of each benchmark, each in a process of its own"
    )
    values: int = Field(4, ge=2, le=100, description="values that are taken in each round")
    output: Path = Field(
        Path("results/bench"), description="directory for bench.json and bench.html"
    )
    compare: Path | None = Field(
        None, description="a saved bench.json; exit code 1 if a benchmark became slower"
    )
    threshold: Annotated[float, BeforeValidator(_share)] = Field(
        0.1,
        gt=0,
        le=10,
        description="how much slower than the saved one is too slow: 10% or 0.1",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_quick(cls, values: Any) -> Any:  # noqa: ANN401 - pydantic's "before" protocol
        return fill_in_quick(values, _QUICK)
