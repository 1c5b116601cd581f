"""Making files durable."""

import os
from pathlib import Path

__all__ = ["sync"]


def sync(path: Path) -> None:
    """Make a file, or what a directory lists, durable.

    Raises:
        OSError: it can't be.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
