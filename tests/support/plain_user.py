"""Commands run as a user who is not root, also where the tests run as root."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

__all__ = ["as_plain_user", "plain_users_directory"]

# Of no account.
_UID = 54_321


@cache
def _prefix() -> tuple[str, ...]:
    if os.geteuid():
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root needs setpriv (util-linux) to run a command as another user")
    other = (setpriv, f"--reuid={_UID}", f"--regid={_UID}", "--clear-groups")
    can_run = subprocess.run(  # noqa: S603 - our own program
        [*other, sys.executable, "-c", "import connect_actor.cli"], capture_output=True, check=False
    )
    if can_run.returncode == 0:
        return other
    # Root's Python or this checkout is closed to others. Root without its capabilities is to the
    # kernel's checks of other processes as any user.
    return setpriv, "--bounding-set=-all", "--inh-caps=-all"


def as_plain_user(*command: str) -> tuple[str, ...]:
    """Return the command line that runs a command as a plain user."""
    return (*_prefix(), *command)


@contextmanager
def plain_users_directory() -> Iterator[Path]:
    """Make a directory of the plain user's; pytest's own is closed to others."""
    with tempfile.TemporaryDirectory() as directory:
        if any(part.startswith("--reuid") for part in _prefix()):
            os.chown(directory, _UID, _UID)
        yield Path(directory)
