"""The one line that a service prints: to whoever has started it, once it serves calls."""

import json
import os
import sys

__all__ = ["announce_ready"]


def announce_ready(*, listen: str, metrics: str, identity: str) -> None:
    """Print the addresses, the identity (hex) and this process's id as one line of JSON."""
    ready = {"event": "ready", "listen": listen, "metrics": metrics, "identity": identity}
    sys.stdout.write(json.dumps({**ready, "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
