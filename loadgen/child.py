"""Processes that do not outlive us: in a group of their own, killed by the kernel if we are."""

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

__all__ = ["end_child", "how_ended", "kill_child", "start_child"]

_LAUNCHER = Path(__file__).with_name("_bound_to_parent.py")


# Of asyncio's streams, unless more is asked for.
_LONGEST_LINE = 1 << 16


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
    return await asyncio.create_subprocess_exec(
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
        # A session, so a process group, of its own: Ctrl-C reaches us alone, and we end it in
        # order.
        start_new_session=True,
    )


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


def how_ended(code: int) -> str:
    """Return in words what an exit code says."""
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"
