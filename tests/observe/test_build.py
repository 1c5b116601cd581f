"""The wheel: with both extensions where they can be built, and whole without."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.support.compiler import COMPILER, needs_compiler, needs_openssl_headers
from tests.support.process import PATIENCE

ROOT = Path(__file__).parents[2]


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
    return sorted(
        name.rpartition("/")[2].partition(".")[0]
        for name in names
        if name.endswith((".so", ".pyd"))
    )


@needs_openssl_headers
def test_with_a_compiler_the_wheel_holds_the_extensions_and_names_its_platform(
    tmp_path: Path,
) -> None:
    wheel = build_wheel(tmp_path)
    assert compiled(wheel) == ["_allocation_hook", "_message_step"]
    assert not wheel.name.endswith("-none-any.whl")


@needs_compiler
def test_without_openssl_the_wheel_holds_the_allocation_hook_alone(tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(
        f'#!/bin/sh\ncase "$*" in *_message_step*) exit 1;; esac\nexec {COMPILER[0]} "$@"\n'
    )
    compiler.chmod(0o755)
    wheel = build_wheel(tmp_path / "wheels", CC=str(compiler))
    assert compiled(wheel) == ["_allocation_hook"]
    assert not wheel.name.endswith("-none-any.whl")


def test_without_a_compiler_the_wheel_is_for_every_platform(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, CC="/nonexistent/cc", PATH="/nonexistent")
    assert compiled(wheel) == []
    assert wheel.name.endswith("-py3-none-any.whl")
