"""Processes that do not outlive us: in a group of their own, killed by the kernel if we are."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from connect_loadgen.program.scratch import helpers_directory

__all__ = ["end_child", "how_ended", "kill_all_children", "kill_child", "start_child"]

_LAUNCHER = Path(__file__).with_name("_bound_to_parent.py")


# Of asyncio's streams, unless more is asked for.
_LONGEST_LINE = 1 << 16

_children: "set[asyncio.subprocess.Process]" = set()


async def start_child(
    *command: str,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] | None,
    stderr: int | IO[bytes] | None,
    longest_line: int = _LONGEST_LINE,
) -> asyncio.subprocess.Process:
    """Start a command whose end is bound to ours.

    Args:
        command: the program and its arguments.
        stdin: nothing comes in, if not said otherwise.
        stdout: where its output goes.
        stderr: likewise.
        longest_line: bytes that a line read from it may have.
    """
    _children.difference_update([each for each in _children if each.returncode is not None])
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-S",
        str(_LAUNCHER),
        str(os.getpid()),
        *command,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        limit=longest_line,
        # What it leaves behind when it is killed is removed with ours.
        env={**os.environ, "TMPDIR": str(helpers_directory())},
        # A session, so a process group, of its own: Ctrl-C reaches us alone, and we end it in
        # order.
        start_new_session=True,
    )
    _children.add(child)
    return child


async def end_child(process: asyncio.subprocess.Process, patience: float) -> int:
    """Ask it to end, wait until it has, and return its exit code.

    Args:
        process: what ``start_child`` returned.
        patience: seconds to wait.

    Raises:
        TimeoutError: it did not end in time; it still runs.
    """
    with suppress(ProcessLookupError):
        process.terminate()
    return await asyncio.wait_for(process.wait(), patience)


def kill_child(process: asyncio.subprocess.Process) -> None:
    """Kill its whole group, in case the command was a wrapper that started another process."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def kill_all_children() -> None:
    """Kill the groups of all children that still run, and return at once."""
    for process in list(_children):
        if process.returncode is None:
            kill_child(process)


def how_ended(code: int) -> str:
    """Return in words what an exit code says."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
