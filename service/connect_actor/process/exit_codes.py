"""The exit codes of ``connect-actor``; ``docs/how-to/operate.md`` says what each means."""

__all__ = [
    "CANNOT_START",
    "DEFECT",
    "INTERRUPTED",
    "RIGHT",
    "TERMINATED",
    "UNHEALTHY",
    "UNSHOWN",
    "USAGE",
]

RIGHT = 0
UNHEALTHY = 1
USAGE = 2
CANNOT_START = 3
UNSHOWN = 4
# sysexits.h: EX_SOFTWARE.
DEFECT = 70
# Shells' own: 128 and the number of the signal.
INTERRUPTED = 130
TERMINATED = 143
