"""Prometheus's programs: those on the PATH, or else Debian's package, unpacked in ``.cache/``.

Unpacked and not installed: no root is needed, and no service of the system starts.
"""

import fcntl
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CACHE", "InstallError", "Programs", "find_programs"]

CACHE = Path(__file__).parents[2] / ".cache" / "prometheus"

_PACKAGE = "prometheus"
_PATIENCE = 120


class InstallError(Exception):
    """There is no Prometheus here and none can be had; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the programs are."""

    prometheus: Path
    promtool: Path


def find_programs(cache: Path = CACHE) -> Programs:
    """Return the programs, unpacking Debian's package into ``cache`` if they are nowhere.

    Raises:
        InstallError: the package can't be had.
    """
    installed = shutil.which("prometheus"), shutil.which("promtool")
    if installed[0] is not None and installed[1] is not None:
        return Programs(Path(installed[0]), Path(installed[1]))
    programs = Programs(cache / "usr/bin/prometheus", cache / "usr/bin/promtool")
    with _locked(cache):
        if not (programs.prometheus.exists() and programs.promtool.exists()):
            _unpack(cache)
    return programs


@contextmanager
def _locked(cache: Path) -> Iterator[None]:
    # Several test processes may come here at once: one unpacks, the others wait.
    cache.parent.mkdir(parents=True, exist_ok=True)
    with cache.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _unpack(cache: Path) -> None:
    for tool in ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            raise InstallError(
                f"neither prometheus and promtool nor {tool} are on the PATH:"
                " install Prometheus (https://prometheus.io/download) and try again"
            )
    with tempfile.TemporaryDirectory(dir=cache.parent) as temporary:
        directory = Path(temporary)
        _download(directory)
        unpacked = directory / "package"
        _run(["dpkg", "-x", *map(str, directory.glob("*.deb")), str(unpacked)], directory)
        shutil.rmtree(cache, ignore_errors=True)
        unpacked.rename(cache)


def _download(directory: Path) -> None:
    """Fetch the package by the system's lists, or else by lists of our own, which takes longer."""
    download = ["apt-get", "-q", "-o", "APT::Sandbox::User=", "download", _PACKAGE]
    try:
        _run(download, directory)
    except InstallError:
        # No lists, as in a fresh container, or old ones. Ours need no root.
        (directory / "lists" / "partial").mkdir(parents=True)
        ours = [
            "-o",
            f"Dir::State::lists={directory / 'lists'}",
            "-o",
            f"Dir::Cache={directory}",
            "-o",
            "APT::Sandbox::User=",
        ]
        _run(["apt-get", "-q", *ours, "update"], directory)
        _run(["apt-get", "-q", *ours, "download", _PACKAGE], directory)


def _run(command: list[str], directory: Path) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - the words are this file's own
            command, cwd=directory, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise InstallError(_explain(command, f"no end within {_PATIENCE} s")) from None
    if done.returncode != 0:
        raise InstallError(_explain(command, done.stderr.strip()))


def _explain(command: list[str], reason: str) -> str:
    return (
        f"Prometheus is not installed, and `{' '.join(command)}` failed ({reason}):"
        " is there a network? `apt-get install prometheus` or a prometheus and a promtool on the"
        " PATH do as well"
    )


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{find_programs()}\n")
    except InstallError as error:
        sys.exit(str(error))
