"""What the operator's commands share: flags, settings, errors, and how figures are shown."""

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from connect_actor.keys.keyring import KeyRing
from connect_actor.keys.sources import KeyFileError
from connect_actor.persistence.contract import JournalError
from connect_actor.persistence.sqlite.restoring import finish_restore
from connect_actor.process.exit_codes import CANNOT_START, USAGE
from connect_actor.process.paths import IDENTITY_FILE, journal_file, key_source
from connect_actor.process.shares import require_layout
from connect_actor.settings import Settings, SettingsError, load_settings
from connect_actor.workers.member import worker_of

__all__ = ["Lines", "Operation", "at", "operator_parser", "perform"]

_PASSED_ON = ("config", "data_dir", "workers", "sealing_key_file", "sealing_key_command")

Lines = Iterable[tuple[str, object]]
"""Names and values."""


def operator_parser(command: str, description: str) -> ArgumentParser:
    """Return a parser with the flags that all of these commands have.

    Everything else is configured where ``serve`` reads it: environment and file.
    """
    parser = ArgumentParser(f"connect-actor {command}", description=description)
    parser.add_argument("--config", help="TOML file, as for serve")
    parser.add_argument("--data-dir", help="directory of the journal, as for serve")
    parser.add_argument("--workers", type=int, help="worker processes, as for serve")
    parser.add_argument("--worker", type=int, help="whose journal, from 0, if there are several")
    parser.add_argument("--sealing-key-file", help="file with the master keys, as for serve")
    parser.add_argument("--sealing-key-command", help="prints the master keys, as for serve")
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser


@dataclass(frozen=True, slots=True)
class Operation:
    """One command as it was given, with what it works on."""

    asked: Namespace
    settings: Settings

    @property
    def journal(self) -> Path:
        """Where the journal is, or is to be.

        Raises:
            JournalError: the directory is that of another number of workers, or is none.
            SettingsError: there are several journals, and none of them was chosen.
        """
        workers, worker = self.settings.workers, self.asked.worker
        if worker is None and workers == 1:
            worker = 0
        if worker is None or not 0 <= worker < workers:
            raise SettingsError(
                f"{workers} workers have a journal each: give one of --worker 0 to {workers - 1}"
                if workers > 1
                else "1 worker has the only journal: leave --worker out"
            )
        return self._journal_of(worker)

    @property
    def present_journal(self) -> Path:
        """Where the journal is.

        Raises:
            JournalError: as ``journal``, and if there is no journal.
            SettingsError: likewise.
        """
        return _present(self.journal)

    def journal_of_channel(self, connect_id: int) -> Path:
        """Where the journal that a channel is in lies.

        Raises:
            JournalError: as ``present_journal``.
        """
        return _present(self._journal_of(worker_of(connect_id, self.settings.workers)))

    def _journal_of(self, worker: int) -> Path:
        directory, workers = self.settings.data_dir, self.settings.workers
        require_layout(directory, workers)
        journal = directory / journal_file(worker, workers)
        finish_restore(journal)
        return journal

    @property
    def identity(self) -> Path:
        """Where the identity is."""
        return self.settings.data_dir / IDENTITY_FILE

    def keys(self) -> KeyRing:
        """Return the master keys; none is ever made here.

        Raises:
            KeyFileError: there are none, or they can't be read.
        """
        return key_source(self.settings).load(os.urandom, may_make=False)

    def show(self, result: Mapping[str, object], lines: Lines) -> None:
        """Print a result, as it was asked for: one JSON object, or aligned lines."""
        if self.asked.json:
            sys.stdout.write(json.dumps(result, indent=2) + "\n")
            return
        shown = list(lines)
        width = max(len(name) for name, _ in shown)
        for name, value in shown:
            sys.stdout.write(f"{name:<{width}}  {value}\n")


def _present(journal: Path) -> Path:
    if not journal.parent.exists():
        raise JournalError(f"there is no directory {journal.parent}: name it by --data-dir")
    if not journal.exists():
        raise JournalError(f"{journal.parent} holds no {journal.name}: no service has run on it")
    return journal


def perform(parser: ArgumentParser, flags: Sequence[str], work: Callable[[Operation], int]) -> int:
    """Do a command's work; return its exit code, having said in one line why there was none."""
    asked = parser.parse_args(flags)
    passed_on = [
        f"--{name.replace('_', '-')}={value}"
        for name in _PASSED_ON
        if (value := getattr(asked, name)) is not None
    ]
    try:
        return work(Operation(asked, load_settings(passed_on)))
    except SettingsError as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        return USAGE
    except (JournalError, KeyFileError) as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        return CANNOT_START


def at(nanoseconds: int) -> str:
    """Return a moment, given in nanoseconds since 1970, as people and programs read it."""
    return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).isoformat()
