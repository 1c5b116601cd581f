"""Keeps the process's memory, which is full of keys, from being written down or read by others.

A core file holds every key that the process holds, and lies about unsealed. Two guards:

- ``RLIMIT_CORE`` 0: the kernel writes no core file. It does not bind a ``core_pattern`` that pipes
  to a program (systemd-coredump, apport), which is why there is the other one.
- ``PR_SET_DUMPABLE`` 0: the kernel makes no core at all, and lets no process of the same user
  attach or read ``/proc/PID/mem``; only root (``CAP_SYS_PTRACE``) still may.

And keeps a process that is one of several from living on without the one that has started it.
"""

import ctypes
import logging
import os
import resource
import signal

__all__ = ["die_with_parent", "forbid_dumps"]

_log = logging.getLogger(__name__)

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4


def forbid_dumps() -> None:
    """Let no core of this process be written, nor its memory be read by its user's others."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not _prctl(_PR_SET_DUMPABLE, 0):
        _log.warning("the system doesn't let this process forbid that its memory be read")


def die_with_parent(parent: int) -> bool:
    """Have the kernel kill this process when ``parent``, which has started it, ends in any way.

    Returns:
        Whether it will; False also if the parent has ended already.
    """
    return _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) and os.getppid() == parent


def _prctl(option: int, value: int) -> bool:
    try:
        refused = ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
    except AttributeError:  # no Linux
        return False
    return not refused
