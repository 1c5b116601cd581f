"""Files that hold secrets, as the service wants them."""

from pathlib import Path

__all__ = ["write_secret"]


def write_secret(path: Path, content: bytes | str) -> Path:
    """Write a file that nobody else may read; return where it is."""
    path.touch(0o600)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
