"""The command line: ``connect-actor serve [flags]``, ``connect-actor health [flags]``."""

import argparse
import sys
from collections.abc import Sequence

import uvloop

from service.app import serve
from service.keyfiles import KeyFileError
from service.logs import configure_logging
from service.persistence.contract import JournalError
from service.rpc.probe import ask_health, reachable
from service.rpc.server import ListenError
from service.settings import SettingsError, load_settings

__all__ = ["main"]

_USAGE = """\
usage: connect-actor COMMAND [flags]

commands:
  serve     run the service
  health    ask a running service whether it serves; exit code 0 if it does

connect-actor COMMAND --help lists the flags.
"""
_EXIT_UNHEALTHY = 1
_EXIT_USAGE = 2
_EXIT_CANNOT_START = 3


def main() -> int:
    """Run the command that the arguments name; return the process's exit code."""
    match sys.argv[1:]:
        case ["-h" | "--help"]:
            sys.stdout.write(_USAGE)
            return 0
        case ["serve", *flags]:
            return _serve(flags)
        case ["health", *flags]:
            return _health(flags)
        case _:
            sys.stderr.write(_USAGE)
            return _EXIT_USAGE


def _serve(flags: Sequence[str]) -> int:
    try:
        settings = load_settings(flags)
    except SettingsError as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        return _EXIT_USAGE
    configure_logging(settings.log_level)
    try:
        uvloop.run(serve(settings))
    except (JournalError, KeyFileError, ListenError) as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        return _EXIT_CANNOT_START
    return 0


def _health(flags: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("connect-actor health")
    parser.add_argument(
        "--target", help="host:port; default: where this environment's serve listens"
    )
    parser.add_argument("--timeout", type=float, default=3.0, help="seconds (default: 3)")
    asked = parser.parse_args(flags)
    try:
        target = asked.target or reachable(load_settings([]).listen)
    except SettingsError as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        return _EXIT_USAGE
    status = ask_health(target, asked.timeout)
    sys.stdout.write(f"{status}\n")
    return 0 if status == "SERVING" else _EXIT_UNHEALTHY


if __name__ == "__main__":
    sys.exit(main())
