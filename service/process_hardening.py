"""Keeps the process's memory, which is full of keys, from being written down or read by others.

A core file holds every key that the process holds, and lies about unsealed. Two guards:

- ``RLIMIT_CORE`` 0: the kernel writes no core file. It does not bind a ``core_pattern`` that pipes
  to a program (systemd-coredump, apport), which is why there is the other one.
- ``PR_SET_DUMPABLE`` 0: the kernel makes no core at all, and lets no process of the same user
  attach or read ``/proc/PID/mem``; only root (``CAP_SYS_PTRACE``) still may.
"""

import ctypes
import logging
import resource

__all__ = ["forbid_dumps"]

_log = logging.getLogger(__name__)

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def forbid_dumps() -> None:
    """Let no core of this process be written, nor its memory be read by its user's others."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        refused = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    except AttributeError:  # no Linux
        refused = 1
    if refused:
        _log.warning("the system doesn't let this process forbid that its memory be read")
