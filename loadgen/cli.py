"""The command line: ``loadgen run``, ``compare`` and the others below.

Exit codes: 0 all went well; 1 the load ran, but an answer was wrong, operations failed or a bound
was broken (``diff``, ``bench``: something got worse, or a benchmark failed; ``crash``,
``overload``, ``soak``: a promise was broken); 2 the configuration is not usable; 3 the service did
not start, died or could not be reached; 4 the result was shown, but could not be written; 130 and
143 ended by SIGINT and SIGTERM.
"""

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console

from loadgen.audit.command import execute_audit
from loadgen.audit.report import write_audit
from loadgen.audit.settings import AuditSettings
from loadgen.bench.command import execute_bench, select
from loadgen.bench.report import read_saved, write_bench
from loadgen.bench.settings import BenchSettings
from loadgen.bench.workers import BenchError
from loadgen.compare import execute_compare
from loadgen.crash.command import execute_crash
from loadgen.crash.report import write_crash
from loadgen.crash.settings import CrashSettings
from loadgen.diff import diff_results, read_result
from loadgen.overload.command import execute_overload
from loadgen.overload.report import write_overload
from loadgen.overload.settings import OverloadSettings
from loadgen.plan import plan_of_compare, plan_of_run
from loadgen.progress import CommandProgress
from loadgen.report import ReportError, require_writable, show_diff, write_compare, write_run
from loadgen.run import execute_run
from loadgen.service_cost import MetricsError
from loadgen.service_process import ServiceError
from loadgen.settings import (
    CompareSettings,
    ConfigurationError,
    DiffSettings,
    RunSettings,
    load_settings,
)
from loadgen.soak.command import execute_soak
from loadgen.soak.report import write_soak
from loadgen.soak.settings import SoakSettings
from loadgen.transport import TransportError

__all__ = ["EXIT_RIGHT", "EXIT_WRONG", "guarded", "main"]

EXIT_RIGHT = 0
EXIT_WRONG = 1
EXIT_CONFIGURATION = 2
EXIT_SERVICE = 3
EXIT_UNWRITTEN = 4
_EXIT_SIGNAL_BASE = 128

_USAGE = """\
usage: loadgen COMMAND [flags]

commands:
  run        put load on a service and say how it did
  compare    put the same load on each persistence strategy and compare
  diff       say how two saved results differ, and fail if a figure got worse
  audit      measure every number that the audit states, and say which of them hold
  bench      time the parts of the service, and count what they allocate
  crash      kill the service at random moments, and hold it to everything that it said
  overload   ask for three times what a service can do, and open ten thousand idle connections
  soak       load a service for an hour, and see that nothing grows

loadgen COMMAND --help lists the flags. Settings also come from a TOML file (--config FILE, tables
named as the commands) and from the environment (LOADGEN_CHANNELS=500); flags win over both.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name and return the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    commands: dict[str, Callable[[list[str]], Coroutine[Any, Any, int]]] = {
        RunSettings.command: _run,
        CompareSettings.command: _compare,
        AuditSettings.command: _audit,
        BenchSettings.command: _bench,
        OverloadSettings.command: _overload,
        SoakSettings.command: _soak,
        DiffSettings.command: _diff,
        CrashSettings.command: _crash,
    }
    match given:
        case ["-h" | "--help"]:
            sys.stdout.write(_USAGE)
            return EXIT_RIGHT
        case [name, *flags] if name in commands:
            return guarded(commands[name], name, flags)
        case [name, *_]:
            sys.stderr.write(f"loadgen: no command {name!r}: {', '.join(commands)}\n")
            return EXIT_CONFIGURATION
        case _:
            sys.stderr.write(_USAGE)
            return EXIT_CONFIGURATION


async def _run(flags: list[str]) -> int:
    settings = load_settings(RunSettings, flags)
    if settings.dry_run:
        return _say(plan_of_run(settings))
    _require_writable(settings.output, settings.report)
    # Where the metrics are is told in a pipe, too: the port may have been chosen by the system.
    with CommandProgress(lines_in_pipe=settings.serve_metrics is not None) as progress:
        result = await execute_run(settings, progress)
    return EXIT_RIGHT if write_run(result, settings, Console()) else EXIT_WRONG


async def _compare(flags: list[str]) -> int:
    settings = load_settings(CompareSettings, flags)
    if settings.dry_run:
        return _say(plan_of_compare(settings))
    _require_writable(settings.output / "compare.json", settings.output / "compare.html")
    with CommandProgress(lines_in_pipe=True) as progress:
        result = await execute_compare(settings, progress)
    return EXIT_RIGHT if write_compare(result, settings, Console()) else EXIT_WRONG


async def _audit(flags: list[str]) -> int:
    settings = load_settings(AuditSettings, flags)
    _require_writable(settings.output / "audit.json")
    with CommandProgress(lines_in_pipe=True) as progress:
        result = await execute_audit(settings, progress)
    return EXIT_RIGHT if write_audit(result, settings, Console()) else EXIT_WRONG


async def _bench(flags: list[str]) -> int:
    settings = load_settings(BenchSettings, flags)
    if settings.list:
        sys.stdout.write("".join(f"{benchmark.name}\n" for benchmark in select(settings)))
        return EXIT_RIGHT
    saved = read_saved(settings)
    _require_writable(settings.output / "bench.json", settings.output / "bench.html")
    with CommandProgress(lines_in_pipe=False) as progress:
        result = await execute_bench(settings, progress)
    return EXIT_RIGHT if write_bench(result, saved, settings, Console()) else EXIT_WRONG


async def _crash(flags: list[str]) -> int:
    settings = load_settings(CrashSettings, flags)
    _require_writable(settings.output / "crash.json")
    with CommandProgress(lines_in_pipe=True) as progress:
        result = await execute_crash(settings, progress)
    return EXIT_RIGHT if write_crash(result, settings, Console()) else EXIT_WRONG


async def _overload(flags: list[str]) -> int:
    settings = load_settings(OverloadSettings, flags)
    _require_writable(settings.output / "overload.json", settings.output / "overload.html")
    with CommandProgress(lines_in_pipe=True) as progress:
        result = await execute_overload(settings, progress)
    return EXIT_RIGHT if write_overload(result, settings, Console()) else EXIT_WRONG


async def _soak(flags: list[str]) -> int:
    settings = load_settings(SoakSettings, flags)
    _require_writable(*(settings.output / f"soak.{kind}" for kind in ("json", "html", "png")))
    with CommandProgress(lines_in_pipe=True) as progress:
        result = await execute_soak(settings, progress)
    return EXIT_RIGHT if write_soak(result, settings, Console()) else EXIT_WRONG


async def _diff(flags: list[str]) -> int:
    settings = load_settings(DiffSettings, flags)
    before, after = read_result(settings.before), read_result(settings.after)
    diff = diff_results(before, after, settings.threshold)
    show_diff(diff, settings.threshold, Console())
    return EXIT_WRONG if diff.got_worse else EXIT_RIGHT


def _say(lines: Sequence[str]) -> int:
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return EXIT_RIGHT


def _require_writable(*paths: Path | None) -> None:
    # Told before the load, not after minutes of it.
    try:
        for path in paths:
            if path is not None:
                require_writable(path)
    except ReportError as error:
        raise ConfigurationError(str(error)) from None


def guarded(
    command: Callable[[list[str]], Coroutine[Any, Any, int]], name: str, flags: list[str]
) -> int:
    """Run a command, given up in order at a signal, and tell its errors in a line each.

    Args:
        command: takes the flags and returns the exit code.
        name: how the lines name it.
        flags: what comes behind its name.
    """
    try:
        return uvloop.run(_until_signalled(command(flags)))
    except ConfigurationError as error:
        sys.stderr.write(f"loadgen {name}: {error}\n")
        return EXIT_CONFIGURATION
    except (ServiceError, TransportError, MetricsError) as error:
        sys.stderr.write(f"loadgen {name}: {error}\n")
        return EXIT_SERVICE
    except BenchError as error:
        sys.stderr.write(f"loadgen {name}: {error}\n")
        return EXIT_WRONG
    except ReportError as error:
        sys.stderr.write(f"loadgen {name}: {error}\n")
        return EXIT_UNWRITTEN


async def _until_signalled(work: Coroutine[Any, Any, int]) -> int:
    """Do the work, giving it up in order at SIGINT or SIGTERM."""
    loop = asyncio.get_running_loop()
    task = loop.create_task(work)
    received: list[int] = []

    def give_up(number: int) -> None:
        received.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, give_up, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not received:
            raise
        name = signal.Signals(received[0]).name
        sys.stderr.write(f"loadgen: ended by {name}; what was started is stopped\n")
        return _EXIT_SIGNAL_BASE + received[0]


if __name__ == "__main__":
    sys.exit(main())
