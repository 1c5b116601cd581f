"""Keeps the process's memory, which is full of keys, from being written down or read by others.

A core file holds every key that the process holds, and lies about unsealed. So may swap space.
Three guards:

- ``RLIMIT_CORE`` 0: the kernel writes no core file. It does not bind a ``core_pattern`` that pipes
  to a program (systemd-coredump, apport), which is why there is the other one.
- ``PR_SET_DUMPABLE`` 0: the kernel makes no core at all, and lets no process of the same user
  attach or read ``/proc/PID/mem``; only root (``CAP_SYS_PTRACE``) still may.
- ``mlockall``: no page is swapped out, where the process may lock as much as it likes. Under a
  limit a later allocation would fail as soon as that is reached, so nothing is locked then.

And keeps a process that is one of several from living on without the one that has started it.
"""

import ctypes
import logging
import os
import resource
import signal
from pathlib import Path

__all__ = ["die_with_parent", "forbid_dumps", "lock_memory"]

_log = logging.getLogger(__name__)

# linux/prctl.h
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
# linux/mman.h. The last one locks pages when they are first used: without it every thread's stack
# and every reserve of an allocator would be filled at once.
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
# linux/capability.h
_CAP_IPC_LOCK = 14


def forbid_dumps() -> None:
    """Let no core of this process be written, nor its memory be read by its user's others."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if not _prctl(_PR_SET_DUMPABLE, 0):
        _log.warning("the system doesn't let this process forbid that its memory be read")


def lock_memory() -> None:
    """Let nothing of this process be swapped out, as far as that can't make an allocation fail."""
    if not _may_lock_all():
        _log.info(
            "memory is not locked, so it may be swapped out: raise the limit of locked memory"
            " (ulimit -l unlimited, LimitMEMLOCK=infinity), or encrypt swap"
        )
    elif ctypes.CDLL(None, use_errno=True).mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT):
        reason = os.strerror(ctypes.get_errno())
        _log.warning("memory can't be locked, so it may be swapped out: %s", reason)


def _may_lock_all() -> bool:
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY:
        if soft != hard:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))
        return True
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    _, _, rest = status.partition("CapEff:")
    return bool(rest) and bool(int(rest.split()[0], 16) >> _CAP_IPC_LOCK & 1)


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
