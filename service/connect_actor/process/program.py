"""How a program of ours begins and ends, whatever it has inherited.

Both programs run through ``run_program``. Before any other work it

- opens ``/dev/null`` in place of descriptors 0 to 2 that are closed: what is opened next would
  otherwise get their numbers, be written to by mistake, and abort libuv when it is closed;
- takes standard output and error as they are: a reader that has gone, a full disk or a descriptor
  that doesn't block never raises where something is printed;
- unblocks signals and has ended children reported: a parent may have left both otherwise;
- lets the owner use the files that are made, whatever the umask is.

An error that nothing expects becomes one line, or a traceback, and an exit code of its own.
"""

import io
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from connect_actor.observe.line_writer import LineWriter
from connect_actor.process.exit_codes import (
    CANNOT_START,
    DEFECT,
    INTERRUPTED,
    RIGHT,
    TERMINATED,
    UNSHOWN,
)

__all__ = [
    "announce_ready",
    "detach_output",
    "finish_output",
    "in_words",
    "raise_descriptor_limit",
    "run_program",
]

# Seconds that the last lines of a service may take to be written: its reader may have stalled.
_LAST_LINES = 2.0
_OWNER = 0o700
# Linux's own limit for one process (fs.nr_open), unless it was changed.
_UNLIMITED = 1 << 20


def run_program(name: str, command: Callable[[], int]) -> int:
    """Run a program and return its exit code; nothing is raised.

    Args:
        name: what its lines begin with.
        command: does the work and returns the exit code.
    """
    output = _take_what_is_inherited()
    try:
        code = command()
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else RIGHT
    except KeyboardInterrupt:
        sys.stderr.write(f"{name}: interrupted\n")
        code = INTERRUPTED
    except OSError as error:
        sys.stderr.write(f"{name}: {in_words(error)}\n")
        code = CANNOT_START
    except BaseException:  # noqa: BLE001 - the last resort
        traceback.print_exc()
        code = DEFECT
    sys.stdout.flush()
    if output.lost is not None:
        sys.stderr.write(f"{name}: the output can't be written: {output.lost.strerror}\n")
        code = code or UNSHOWN
    finish_output()
    return code


def in_words(error: OSError) -> str:
    """Return what an operating system's error says, with the file that it is about."""
    reason = error.strerror or str(error) or type(error).__name__
    return reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}"


def detach_output() -> None:
    """Have standard output and error written by threads of their own from now on.

    For a service: its event loop must not wait for who reads them. What doesn't fit is dropped.
    """
    sys.stdout, sys.stderr = LineWriter(sys.stdout), LineWriter(sys.stderr)


def finish_output() -> None:
    """Write what waits to be written; give up soon where that stalls."""
    until = time.monotonic() + _LAST_LINES
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, LineWriter):
            stream.finish(max(until - time.monotonic(), 0))
        else:
            stream.flush()


def announce_ready(*, listen: str, metrics: str, identity: str) -> None:
    """Print one line of JSON, once calls are served: addresses, identity (hex) and process id.

    Nothing else is printed on a service's standard output.
    """
    ready = {"event": "ready", "listen": listen, "metrics": metrics, "identity": identity}
    sys.stdout.write(json.dumps({**ready, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()


def raise_descriptor_limit() -> int:
    """Raise this process's soft limit of file descriptors to the hard one; return what holds.

    Every connection takes a descriptor, and the usual soft limit is low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _UNLIMITED if hard == resource.RLIM_INFINITY else hard
    with suppress(OSError, ValueError):  # the system may refuse
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return soft


def _take_what_is_inherited() -> "_Output":
    for descriptor in range(3):
        with suppress(OSError):
            os.fstat(descriptor)
            continue
        # The lowest number that is free, so this one.
        os.open(os.devnull, os.O_RDWR)
        os.set_inheritable(descriptor, True)  # noqa: FBT003 - as the system calls it
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as we live
    output = _Output(1)
    sys.stdout = _text(output, sys.stdout, line_buffering=output.isatty())
    sys.stderr = _text(_Output(2), sys.stderr, line_buffering=True)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if os.getpid() == 1 and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        # The kernel has no default for a container's first process: it would not end.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    os.umask(os.umask(0) & ~_OWNER)
    return output


def _text(raw: "_Output", before: TextIO | None, *, line_buffering: bool) -> io.TextIOWrapper:
    # What an encoding has no character for is shown by its number.
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=line_buffering,
    )


class _Output(io.RawIOBase):
    """A descriptor that may always be written to.

    Attributes:
        lost: why what was written is not there; None if it is, or if its reader has gone, who
            wanted no more.
    """

    def __init__(self, descriptor: int) -> None:
        """Write to a descriptor that stays open."""
        self._descriptor = descriptor
        self.lost: OSError | None = None

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Say whether it is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Say that it is written to."""
        return True

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - whatever has bytes
        """Write some of it, or take all of it if nothing can be written any more."""
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                # Somebody who shares it has asked for this.
                select.select([], [self._descriptor], [])
            except OSError as error:
                if not isinstance(error, BrokenPipeError):
                    self.lost = error
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._descriptor)
                os.close(nowhere)
                return len(data)
