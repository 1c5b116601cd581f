"""The command line: ``loadgen run``, ``compare`` and the others below."""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec

from connect_actor.process.program import run_program

__all__ = ["main"]

_LIBRARIES = ("hdrh", "jinja2", "matplotlib", "psutil", "pyperf", "rich")
"""What is imported of the package's extra ``loadgen``."""

_USAGE = """\
usage: loadgen COMMAND [flags]

commands:
  run        put load on a service and measure it
  compare    put the same load on each persistence strategy and compare
  diff       show how two saved results differ, and fail if a figure got worse
  audit      measure every number that the audit states, and judge each
  bench      time the parts of the service, and count what they allocate
  crash      kill the service at random moments, and verify that nothing acknowledged is lost
  overload   ask for three times what a service can do, and open ten thousand idle connections
  soak       load a service for an hour, and check that nothing grows
  reach      measure the service against its performance targets, row by row

loadgen COMMAND --help lists the flags. Settings also come from a TOML file (--config FILE, tables
named as the commands) and from the environment (LOADGEN_CHANNELS=500); flags win over both.

exit codes:
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name and return the exit code, one of ``Exit``.

    Args:
        arguments: by default the process's own, and all of it is this program.
    """
    if arguments is None:
        return run_program("loadgen", lambda: _run(sys.argv[1:]))
    return _run(list(arguments))


def _run(given: list[str]) -> int:
    # Imports take a second or two: a signal meanwhile ends the program in order, too.
    from connect_loadgen.program.ending import Ended, heeding_signals  # noqa: PLC0415
    from connect_loadgen.program.exits import Exit  # noqa: PLC0415

    try:
        with heeding_signals():
            return _run_command(given)
    except Ended as error:
        sys.stderr.write(f"loadgen: {error}\n")
        return Exit.INTERRUPTED


def _run_command(given: list[str]) -> int:
    from connect_loadgen.program.exits import Exit, exit_table  # noqa: PLC0415

    match given:
        case ["-h" | "--help"]:
            sys.stdout.write(f"{_USAGE}{exit_table()}")
            return Exit.RIGHT
        case ["--version"]:
            sys.stdout.write(f"loadgen {version('connect-actor')}\n")
            return Exit.RIGHT
        case []:
            sys.stderr.write(f"{_USAGE}{exit_table()}")
            return Exit.CONFIGURATION
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"loadgen: {', '.join(missing)} not installed: pip install 'connect-actor[loadgen]'\n"
        )
        return Exit.CONFIGURATION
    from connect_loadgen.commands import COMMANDS  # noqa: PLC0415
    from connect_loadgen.runner import run_command  # noqa: PLC0415

    name, *flags = given
    if name in COMMANDS:
        return run_command(f"loadgen {name}", COMMANDS[name], flags)
    sys.stderr.write(f"loadgen: no command {name!r}: {', '.join(COMMANDS)}\n")
    return Exit.CONFIGURATION


if __name__ == "__main__":
    sys.exit(main())
