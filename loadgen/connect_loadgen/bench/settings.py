"""What ``loadgen bench`` is told."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field

from connect_loadgen.settings.load import QuickSettings
from connect_loadgen.settings.types import comma_separated

__all__ = ["BenchSettings"]


def _share(value: object) -> object:
    if isinstance(value, str) and value.endswith("%"):
        try:
            return float(value.removesuffix("%")) / 100
        except ValueError:
            return value
    return value


class BenchSettings(QuickSettings):
    """Time the parts of the service, and count what they allocate."""

    command: ClassVar[str] = "bench"
    quick_values: ClassVar[Mapping[str, object]] = {"rounds": 2, "values": 2}

    only: Annotated[tuple[str, ...], BeforeValidator(comma_separated)] = Field(
        (),
        description="parts of names, or whole names with * and ?, comma separated; all without it",
    )
    list: bool = Field(default=False, description="only say which benchmarks there are")
    rounds: int = Field(
        5, ge=1, le=100, description="turns of each benchmark, each in a process of its own"
    )
    values: int = Field(4, ge=2, le=100, description="values that are taken in each round")
    compare: Path | None = Field(
        None, description="a saved bench.json; exit code 1 if a benchmark became slower"
    )
    threshold: Annotated[float, BeforeValidator(_share)] = Field(
        0.1,
        gt=0,
        le=10,
        description="how much slower than the saved one is too slow: 10% or 0.1",
    )
