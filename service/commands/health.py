"""The command ``connect-actor health``: asks a running service whether it serves.

It is asked every few seconds beside a service, at that service's cost, so it loads little.
"""

import argparse
import sys
from collections.abc import Sequence

from service.exit_codes import RIGHT, UNHEALTHY, USAGE
from service.rpc.probe import ask_health, reachable

__all__ = ["run"]


def run(flags: Sequence[str]) -> int:
    """Print the service's status; return 0 if it serves."""
    parser = argparse.ArgumentParser("connect-actor health")
    parser.add_argument(
        "--target", help="host:port; default: where this environment's serve listens"
    )
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds (default: 3)")
    asked = parser.parse_args(flags)
    target = asked.target
    if target is None:
        # Pydantic is a third of this command's cost: only if it is needed.
        from service.settings import SettingsError, load_settings  # noqa: PLC0415

        try:
            target = reachable(load_settings([]).listen)
        except SettingsError as error:
            sys.stderr.write(f"connect-actor: {error}\n")
            return USAGE
    status = ask_health(target, asked.timeout)
    sys.stdout.write(f"{status}\n")
    return RIGHT if status == "SERVING" else UNHEALTHY
