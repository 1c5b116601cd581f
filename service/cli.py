"""The command line: ``connect-actor serve [flags]``, ``connect-actor health [flags]``.

What a command needs is imported when it runs: ``health`` is asked every few seconds beside a
service, at that service's cost, and must not load a second one to do it.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from service.exit_codes import RIGHT, UNHEALTHY, USAGE

__all__ = ["main"]

_USAGE = """\
usage: connect-actor COMMAND [flags]

commands:
  serve     run the service
  health    ask a running service whether it serves; exit code 0 if it does

connect-actor COMMAND --help lists the flags.
"""


def main() -> int:
    """Run the command that the arguments name; return the process's exit code."""
    match sys.argv[1:]:
        case ["-h" | "--help"]:
            sys.stdout.write(_USAGE)
            return RIGHT
        case ["serve", *flags]:
            return _serve(flags)
        case ["health", *flags]:
            return _health(flags)
        case _:
            sys.stderr.write(_USAGE)
            return USAGE


def _serve(flags: Sequence[str]) -> int:
    # gRPC's core writes lines of its own to standard error, which are no JSON, and as many as a
    # stranger likes. It reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from service.serve_command import run_serve  # noqa: PLC0415 - see above

    return run_serve(flags)


def _health(flags: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("connect-actor health")
    parser.add_argument(
        "--target", help="host:port; default: where this environment's serve listens"
    )
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds (default: 3)")
    asked = parser.parse_args(flags)
    from service.rpc.probe import ask_health, reachable  # noqa: PLC0415 - see above

    target = asked.target
    if target is None:
        from service.settings import SettingsError, load_settings  # noqa: PLC0415 - see above

        try:
            target = reachable(load_settings([]).listen)
        except SettingsError as error:
            sys.stderr.write(f"connect-actor: {error}\n")
            return USAGE
    status = ask_health(target, asked.timeout)
    sys.stdout.write(f"{status}\n")
    return RIGHT if status == "SERVING" else UNHEALTHY


if __name__ == "__main__":
    sys.exit(main())
