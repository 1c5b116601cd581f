"""The documents build as a website without a warning, where Material for MkDocs is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_site_builds_strictly_and_has_every_page(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="MkDocs is installed by `make site`")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    assert built.returncode == 0, built.stderr
    pages = {path.relative_to(ROOT / "docs").with_suffix("") for path in ROOT.glob("docs/**/*.md")}
    shown = {path.parent.relative_to(tmp_path) for path in tmp_path.glob("*/*/index.html")}
    assert pages - {Path("index")} <= shown
