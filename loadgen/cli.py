"""The command line: ``loadgen run``, ``compare`` and the others below."""

import signal
import sys
from collections.abc import Sequence

__all__ = ["main"]

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
    """Run the command that the arguments name and return the exit code, one of ``Exit``."""
    if arguments is None:
        # Imports take a second or two: Ctrl-C meanwhile ends the process without a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from loadgen.ending import Ended, heeding_signals  # noqa: PLC0415
    from loadgen.exits import Exit  # noqa: PLC0415
    from loadgen.streams import complain, open_missing_descriptors  # noqa: PLC0415

    open_missing_descriptors()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        with heeding_signals():
            return _main(given)
    except Ended as error:
        complain(f"loadgen: {error}")
        return Exit.INTERRUPTED


def _main(given: list[str]) -> int:
    from loadgen.commands import COMMANDS  # noqa: PLC0415
    from loadgen.exits import Exit, exit_table  # noqa: PLC0415
    from loadgen.runner import run_command, show_text  # noqa: PLC0415
    from loadgen.streams import complain  # noqa: PLC0415

    match given:
        case ["-h" | "--help"]:
            return show_text("loadgen", f"{_USAGE}{exit_table()}")
        case [name, *flags] if name in COMMANDS:
            return run_command(f"loadgen {name}", COMMANDS[name], flags)
        case [name, *_]:
            complain(f"loadgen: no command {name!r}: {', '.join(COMMANDS)}")
        case _:
            complain(f"{_USAGE}{exit_table()}")
    return Exit.CONFIGURATION


if __name__ == "__main__":
    sys.exit(main())
