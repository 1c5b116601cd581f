"""File descriptors: every connection takes one, and a process is given few unless it asks."""

import resource
from contextlib import suppress

__all__ = ["raise_descriptor_limit"]

# Linux's own bound of what one process may have (fs.nr_open), where nothing has set another.
_UNLIMITED = 1 << 20


def raise_descriptor_limit() -> int:
    """Raise this process's limit as far as it may go itself; return the limit that holds then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _UNLIMITED if hard == resource.RLIM_INFINITY else hard
    with suppress(OSError, ValueError):  # as far as the system lets it
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return soft
