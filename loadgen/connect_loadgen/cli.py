"""The command line: ``loadgen run``, ``compare`` and the others below."""

import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import version
from importlib.util import find_spec

from connect_actor.process.program import run_program

__all__ = ["COMMAND_HELP", "main"]

_LIBRARIES = ("hdrh", "jinja2", "matplotlib", "psutil", "pyperf", "rich")
"""What is imported of the package's extra ``loadgen``."""

COMMAND_HELP: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "to compare strategies": {
        "compare": ("put the same load on each persistence strategy", "loadgen compare --quick"),
        "diff": (
            "show how two saved results differ, and fail if a figure got worse",
            "loadgen diff before/compare.json after/compare.json",
        ),
    },
    "to check the audit": {
        "audit": (
            "measure every number that the audit states, and judge each",
            "loadgen audit --quick",
        ),
    },
    "to operate the service": {
        "run": (
            "put load on a service and measure it",
            "loadgen run --target 127.0.0.1:50051 --rate 2000",
        ),
        "overload": (
            "ask for three times what a service can do, and open idle connections",
            "loadgen overload --quick",
        ),
        "soak": (
            "load a service for an hour, and check that nothing grows",
            "loadgen soak --duration 15m",
        ),
        "crash": (
            "kill the service at random moments, and verify that nothing acknowledged is lost",
            "loadgen crash --kills 20",
        ),
    },
    "to develop the service": {
        "reach": (
            "measure the service against its performance targets, row by row",
            "loadgen reach --only durable",
        ),
        "bench": (
            "time the parts of the service, and count what they allocate",
            "loadgen bench --quick",
        ),
    },
}
"""By who needs it: each command's line, and an example."""

_TAIL = """
loadgen COMMAND --help lists the flags. Settings also come from a TOML file (--config FILE, tables
named as the commands) and from the environment (LOADGEN_CHANNELS=500); flags win over both.
Results go to --output DIRECTORY as JSON, CSV, JUnit's XML, Markdown, SVG and HTML.
source <(loadgen --completion) completes commands and flags in bash and in zsh.

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


def _help() -> str:
    from connect_loadgen.program.exits import exit_table  # noqa: PLC0415

    lines = ["usage: loadgen COMMAND [flags]"]
    for subject, commands in COMMAND_HELP.items():
        lines += ["", f"{subject}:"]
        for name, (about, example) in commands.items():
            lines += [f"  {name:<10} {about}", f"  {'':<10} {example}"]
    return "\n".join(lines) + f"\n{_TAIL}{exit_table()}"


def _run_command(given: list[str]) -> int:
    from connect_loadgen.program.exits import Exit  # noqa: PLC0415

    if not given:
        sys.stderr.write(_help())
        return Exit.CONFIGURATION
    if given in (["-h"], ["--help"], ["--version"]):
        told = f"loadgen {version('connect-actor')}\n"
        sys.stdout.write(told if given == ["--version"] else _help())
        return Exit.RIGHT
    missing = [name for name in _LIBRARIES if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"loadgen: {', '.join(missing)} not installed: pip install 'connect-actor[loadgen]'\n"
        )
        return Exit.CONFIGURATION
    from connect_loadgen.commands import COMMANDS, completion  # noqa: PLC0415
    from connect_loadgen.runner import run_command  # noqa: PLC0415

    name, *flags = given
    if name in COMMANDS:
        return run_command(f"loadgen {name}", COMMANDS[name], flags)
    if name == "--completion":
        sys.stdout.write(completion())
        return Exit.RIGHT
    near = get_close_matches(name, COMMANDS, n=1)
    hint = f"did you mean {near[0]}?" if near else "loadgen --help lists the commands"
    sys.stderr.write(f"loadgen: no command {name!r}: {hint}\n")
    return Exit.CONFIGURATION


if __name__ == "__main__":
    sys.exit(main())
