"""File descriptors: every connection takes one, and a process is given few unless it asks."""

import resource

__all__ = ["raise_descriptor_limit"]


def raise_descriptor_limit() -> int:
    """Raise this process's limit as far as it may go itself; return the limit that holds then."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
