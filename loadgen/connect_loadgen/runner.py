"""How every command runs: its settings, its work, its files, what it shows, its exit code.

Files are written before anything is shown, so nothing that becomes of the terminal, or of the pipe
in its place, takes a result away.
"""

import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import uvloop
from rich.console import Console

from connect_actor.process.program import in_words
from connect_loadgen.bench.workers import BenchError
from connect_loadgen.drive.transport import TransportError
from connect_loadgen.program.ending import Ended, Ending, heeding_signals
from connect_loadgen.program.exits import Exit
from connect_loadgen.program.files import ReportError, require_writable, write_whole
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.report.blocks import Block
from connect_loadgen.report.terminal import show_all
from connect_loadgen.service.cost import MetricsError
from connect_loadgen.service.process import ServiceError
from connect_loadgen.settings.load import ConfigurationError

__all__ = ["Command", "Outcome", "Render", "run_command"]


class Outcome(Protocol):
    """What a command found; ``Result`` is one."""

    @property
    def exit(self) -> Exit:
        """What the exit code says of it."""


_Settings = TypeVar("_Settings")
_Outcome = TypeVar("_Outcome", bound=Outcome)

Render = Callable[[_Outcome], str | bytes]
"""Makes the content of a file."""


@dataclass(frozen=True, slots=True)
class Command(Generic[_Settings, _Outcome]):
    """One command."""

    read: Callable[[Sequence[str]], _Settings]
    """Reads the settings from the flags and all else that has some. Raises ConfigurationError."""
    execute: Callable[[_Settings, CommandProgress], Coroutine[Any, Any, _Outcome]]
    """Does the work. If the command ends early it returns what was measured, or raises Ended."""
    blocks: Callable[[_Outcome], Iterable[Block | str]]
    """Returns what is shown of it."""
    files: Callable[[_Settings], Mapping[Path, Render[_Outcome]]] = lambda _: {}
    """Returns the files that are written, first the one that matters most."""
    preview: Callable[[_Settings], Sequence[str] | None] = lambda _: None
    """Returns lines to show instead of working, or nothing."""


def run_command(name: str, command: Command[_Settings, _Outcome], flags: Sequence[str]) -> Exit:
    """Run a command, ended early in order at a signal, and tell its errors in a line each.

    Args:
        name: how the lines name it.
        command: what to run.
        flags: what comes behind its name.

    Raises:
        SystemExit: after ``--help``.
    """

    def fail(code: Exit, error: BaseException | str) -> Exit:
        sys.stderr.write(f"{name}: {error}\n")
        return code

    with heeding_signals() as ending:
        try:
            return _run(name, command, flags, ending)
        except Ended as error:
            return fail(Exit.INTERRUPTED, f"{error} before anything was measured: no result")
        except ConfigurationError as error:
            return fail(Exit.CONFIGURATION, error)
        except (ServiceError, TransportError, MetricsError) as error:
            return fail(Exit.SERVICE, error)
        except BenchError as error:
            return fail(Exit.WRONG, error)
        except OSError as error:
            return fail(Exit.SERVICE, in_words(error))


def _run(
    name: str,
    command: Command[_Settings, _Outcome],
    flags: Sequence[str],
    ending: Ending,
) -> Exit:
    settings = command.read(flags)
    if (lines := command.preview(settings)) is not None:
        show_all(Console(), lines)
        return Exit.RIGHT
    files = command.files(settings)
    try:
        for path in files:
            require_writable(path)
    except ReportError as error:
        # Told before the load, not after minutes of it.
        raise ConfigurationError(str(error)) from None
    with CommandProgress() as progress:
        outcome = uvloop.run(ending.part(command.execute(settings, progress)))
    return _deliver(name, command, files, outcome, ending)


def _deliver(
    name: str,
    command: Command[_Settings, _Outcome],
    files: Mapping[Path, Render[_Outcome]],
    outcome: _Outcome,
    ending: Ending,
) -> Exit:
    written, code = [], outcome.exit
    with ending.put_off():
        for path, rendered in files.items():
            try:
                write_whole(path, rendered(outcome))
            except ReportError as error:
                sys.stderr.write(f"{name}: {error}\n")
                code = Exit.UNWRITTEN
            else:
                written.append(f"written: {path}")
    if ending.by_signal:
        code = Exit.INTERRUPTED
        sys.stderr.write(
            f"{name}: {ending.reason}; the result holds what was measured until then\n"
        )
    with suppress(Ended):
        show_all(Console(), [*command.blocks(outcome), *written])
        return code
    return Exit.INTERRUPTED
