"""The shim, compiled once; and how much is tried: a little, or with ``make faults`` all."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.shim import Shim, build

UnderShim = Callable[..., dict[str, Any]]

THOROUGH = os.environ.get("FAULTS") == "thorough"
SEED = int(os.environ.get("FAULTS_SEED", "1"))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("shim"))


@pytest.fixture
def shim(tmp_path: Path) -> Shim:
    return Shim(tmp_path / "control")


@pytest.fixture(scope="module")
def under_shim(library: Path, tmp_path_factory: pytest.TempPathFactory) -> UnderShim:
    """Run a module under the shim, and return the figures that it prints."""

    def run(module: str, argument: object) -> dict[str, Any]:
        control = Shim(tmp_path_factory.mktemp("control") / "control")
        done = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-m", module, json.dumps(argument)],
            env=control.environment(library),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        figures: dict[str, Any] = json.loads(done.stdout)
        print(module, argument, {k: v for k, v in figures.items() if not isinstance(v, list)})  # noqa: T201
        return figures

    return run
