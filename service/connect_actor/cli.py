"""The command line: ``connect-actor COMMAND [flags]``.

A command's module is imported when it runs: ``health`` is asked every few seconds beside a service,
at that service's cost, and must not load a second one to do it.
"""

import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from connect_actor.process.exit_codes import RIGHT, USAGE
from connect_actor.process.program import run_program

__all__ = ["main"]

_COMMANDS = {
    "serve": "run the service",
    "health": "ask a running service whether it serves; exit code 0 if it does",
    "token": "make a bearer token for a principal, and the line that stores it",
    "inspect": "show what a journal holds, or one channel of it",
    "verify": "open everything in a journal; exit code 0 if all of it is whole",
    "backup": "copy a journal and the identity, while the service runs",
    "restore": "put a backup in place, so that nothing is used twice",
    "reseal": "seal everything anew under the first master key",
}
"""``serve`` is a module of ``process``, each other one of ``operator``."""

_USAGE = (
    "usage: connect-actor COMMAND [flags]\n\ncommands:\n"
    + "".join(f"  {name:<9} {text}\n" for name, text in _COMMANDS.items())
    + "\nconnect-actor COMMAND --help lists the flags, connect-actor --version the version.\n"
)


# The setting by its name, or a key wherever it stands, as a word of its own.
_SEALING_KEY = re.compile(
    r"--?sealing[-_]keys|(?:^|[\s=,\"'])[0-9a-f]{64}(?:$|[\s,\"'])", re.IGNORECASE
)


def main() -> int:
    """Run the command that the arguments name; return the process's exit code."""
    return run_program("connect-actor", _run)


def _run() -> int:
    if any(map(_SEALING_KEY.search, sys.argv[1:])):
        sys.stderr.write(
            "connect-actor: every user of this machine can read a sealing key on a command line:"
            " give it by sealing_key_file, sealing_key_command or the environment"
            " (CONNECT_ACTOR_SEALING_KEYS), and replace the one that was shown"
            " (docs/how-to/operate.md, rotation)\n"
        )
        return USAGE
    # Read when gRPC is imported. Its core writes lines of its own to standard error, which are no
    # JSON, and as many as a stranger likes: of every handshake that fails, and of every bad header.
    # Its threads would also wait for a standard error that nobody reads.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Whoever forks here does so to exec, and gRPC's fork handlers can crash the child in between.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
    match sys.argv[1:]:
        case ["-h" | "--help"]:
            sys.stdout.write(_USAGE)
            return RIGHT
        case ["--version"]:
            from importlib.metadata import version  # noqa: PLC0415 - for this alone

            sys.stdout.write(f"connect-actor {version('connect-actor')}\n")
            return RIGHT
        case [command, *flags] if command in _COMMANDS:
            run: Callable[[Sequence[str]], int]
            room = "process" if command == "serve" else "operator"
            run = import_module(f"connect_actor.{room}.{command}").run
            return run(flags)
        case _:
            sys.stderr.write(_USAGE)
            return USAGE


if __name__ == "__main__":
    sys.exit(main())
