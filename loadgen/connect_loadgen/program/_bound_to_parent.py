"""Runs a command that does not outlive whoever started it.

Started as a script: ``python -I -S _bound_to_parent.py PARENT_PID COMMAND...``. It asks the kernel
for SIGKILL at the parent's death, which survives the ``exec`` that follows (prctl(2)). Done here
and not between fork and exec in the parent, which runs gRPC's threads.
"""

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1
_SIGKILL = 9
_EXIT_CANNOT_EXECUTE = 127


def main() -> None:
    """Bind this process to its parent, then become the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, _SIGKILL) != 0:
        sys.exit(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:
        # It died before the kernel was asked.
        sys.exit("the parent is gone")
    try:
        os.execvp(command[0], command)  # noqa: S606 - the command is the user's own
    except OSError as error:
        sys.stderr.write(f"can't execute {command[0]}: {error.strerror}\n")
        sys.exit(_EXIT_CANNOT_EXECUTE)


if __name__ == "__main__":
    main()
