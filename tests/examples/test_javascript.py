"""The peer in JavaScript: another language, another library, the same protocol."""

import importlib
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.process import PATIENCE, Start

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "javascript"


def why_not() -> str | None:
    if shutil.which("node") is None:
        return "NOT TESTED: the JavaScript peer. Install Node 20 or later and run make setup"
    if not (EXAMPLE / "node_modules" / ".package-lock.json").exists():
        return "NOT TESTED: the JavaScript peer. make setup could not install its npm packages"
    return None


needs_node = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own script
        ["node", *arguments],  # noqa: S607 - the one on the PATH
        cwd=EXAMPLE,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@needs_node
def test_the_javascript_peer_makes_the_golden_vectors() -> None:
    done = run("vectors.mjs")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "2 channels, 5 signatures: as the vectors say\n"


@needs_node
@pytest.mark.parametrize("every", [1, 10])
def test_the_javascript_peer_talks_to_the_service(start: Start, every: int) -> None:
    done = run("talk.mjs", start(f"--dh-ratchet-every={every}").ready["listen"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"established a channel that turns its ratchet every {every} messages",
        "the peer reads: to the peer",
        "the service reads: to the service",
        "the service reads: second",
        "the service reads: first",
        "the peer reads: late before early",
        "both ends have turned",
        "given again: true once",
        "given again: true once more",
        "refused: MESSAGE_REPLAYED",
        "exchanged 64 operations; refused: CHANNEL_NOT_FOUND",
        "closed",
    ]


@pytest.mark.parametrize("name", ["status", "error_details"])
def test_googles_proto_files_are_those_that_the_python_modules_come_from(name: str) -> None:
    """They are copies, so that protos/ is complete for every language."""
    module = importlib.import_module(f"google.rpc.{name}_pb2")
    original = Path(str(module.__file__)).with_name(f"{name}.proto")
    assert (ROOT / "protos/google/rpc" / original.name).read_bytes() == original.read_bytes()
