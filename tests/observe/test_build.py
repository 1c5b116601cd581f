"""The wheel: with the allocation hook where there is a C compiler, and whole without."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.compiler import needs_compiler
from tests.support.process import PATIENCE

ROOT = Path(__file__).parents[2]
HOOK = "connect_actor/observe/_allocation_hook."


def build_wheel(directory: Path, **environment: str) -> Path:
    subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", str(directory)],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    (wheel,) = directory.glob("*.whl")
    return wheel


def compiled(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "connect_actor/cli.py" in names
    return [name for name in names if name.startswith(HOOK) and name.endswith((".so", ".pyd"))]


@needs_compiler
def test_with_a_compiler_the_wheel_holds_the_hook_and_names_its_platform(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    assert len(compiled(wheel)) == 1
    assert not wheel.name.endswith("-none-any.whl")


def test_without_a_compiler_the_wheel_is_for_every_platform(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, CC="/nonexistent/cc", PATH="/nonexistent")
    assert compiled(wheel) == []
    assert wheel.name.endswith("-py3-none-any.whl")
