"""What ``loadgen bench`` is told."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from loadgen.setting_types import comma_separated
from loadgen.settings import CommandSettings

__all__ = ["BenchSettings"]


class BenchSettings(CommandSettings):
    """Time the parts of the service, and count what they allocate."""

    model_config = SettingsConfigDict(cli_prog_name="loadgen bench")
    command: ClassVar[str] = "bench"

    only: Annotated[tuple[str, ...], NoDecode, BeforeValidator(comma_separated)] = Field(
        (), description="names or parts of names, comma separated, * and ? match any; all without"
    )
    list: bool = Field(default=False, description="only say which benchmarks there are")
    quick: bool = Field(default=False, description="one process each: rough figures, soon")
    processes: int = Field(
        5, ge=1, le=100, description="worker processes for each benchmark, one after another"
    )
    values: int = Field(4, ge=2, le=100, description="values that each process takes")
    output: Path = Field(
        Path("results/bench"), description="directory for bench.json and bench.html"
    )
    against: Path | None = Field(None, description="a saved bench.json to compare with")
    threshold: float = Field(
        0.1, gt=0, le=10, description="share by which a benchmark may be slower than the saved one"
    )
