"""Where a result was made: machine, versions, revision. A figure without these is a rumour."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import psutil

from connect_loadgen.experiment.results import Environment

__all__ = ["describe_environment"]

_DISTRIBUTIONS = (
    "connect-actor",
    "cryptography",
    "grpcio",
    "hdrhistogram",
    "protobuf",
    "pykka",
    "pyperf",
    "uvloop",
)
_GIT_TIMEOUT = 10.0


def describe_environment(directory: Path) -> Environment:
    """Describe this machine and this code.

    Args:
        directory: where the service keeps its data, or the result goes: an existing directory.
    """
    revision = _git("rev-parse", "HEAD")
    return Environment(
        git_revision=revision,
        git_dirty=None if revision is None else bool(_git("status", "--porcelain")),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        versions={name: _version(name) for name in _DISTRIBUTIONS},
        platform=platform.platform(),
        cpu_model=_cpu_model(),
        cpus=psutil.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
        filesystem=_filesystem(directory),
    )


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command
            ("git", *arguments),  # noqa: S607 - the user's own git
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
            timeout=_GIT_TIMEOUT,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None
    )


def _filesystem(directory: Path) -> str | None:
    # The mount with the longest matching path is the one that holds the directory.
    place = directory.resolve()
    mounts = [
        (len(Path(mount.mountpoint).parts), mount.fstype)
        for mount in psutil.disk_partitions(all=True)
        if place.is_relative_to(mount.mountpoint)
    ]
    return max(mounts)[1] if mounts else None
