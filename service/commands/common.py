"""What the operator's commands share: flags, settings, errors, and how figures are shown."""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from service.exit_codes import CANNOT_START, USAGE
from service.keyfiles import KeyFileError
from service.paths import JOURNAL_FILE
from service.persistence.contract import JournalError
from service.persistence.keyring import KeyRing
from service.randomness import BlockRandom
from service.settings import Settings, SettingsError, load_settings

__all__ = [
    "Report",
    "at",
    "journal_of",
    "keys_of",
    "operator_parser",
    "print_json",
    "print_text",
    "reporting",
    "settings_of",
]

_PASSED_ON = ("config", "data_dir", "sealing_key_file", "sealing_key_command")

Report = Iterable[tuple[str, object]]
"""Lines of a name and a value."""


def operator_parser(command: str, description: str) -> ArgumentParser:
    """Return a parser with the flags that all of these commands have.

    Everything else is configured where ``serve`` reads it: environment and file.
    """
    parser = ArgumentParser(f"connect-actor {command}", description=description)
    parser.add_argument("--config", help="TOML file, as for serve")
    parser.add_argument("--data-dir", help="directory of the journal, as for serve")
    parser.add_argument("--sealing-key-file", help="file with the master keys, as for serve")
    parser.add_argument("--sealing-key-command", help="prints the master keys, as for serve")
    parser.add_argument("--json", action="store_true", help="for machines")
    return parser


def settings_of(asked: Namespace) -> Settings:
    """Return the settings that ``serve`` would have, with these flags.

    Raises:
        SettingsError: they can't be used.
    """
    return load_settings(
        [
            f"--{name.replace('_', '-')}={value}"
            for name in _PASSED_ON
            if (value := getattr(asked, name)) is not None
        ]
    )


def keys_of(settings: Settings) -> KeyRing:
    """Return the master keys; none is ever made here.

    Raises:
        KeyFileError: there are none, or they can't be read.
    """
    return settings.key_source.load(BlockRandom(), may_make=False)


def journal_of(settings: Settings) -> Path:
    """Return where the journal is."""
    return settings.data_dir / JOURNAL_FILE


def reporting(work: Callable[[], int]) -> int:
    """Do a command's work; return its exit code, having said in one line why there was none."""
    try:
        return work()
    except SettingsError as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        return USAGE
    except (JournalError, KeyFileError) as error:
        sys.stderr.write(f"connect-actor: {error}\n")
        return CANNOT_START


def at(nanoseconds: int) -> str:
    """Return a moment, given in nanoseconds since 1970, as people and programs read it."""
    return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).isoformat()


def print_json(value: Mapping[str, object]) -> None:
    """Print one JSON object."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_text(report: Report) -> None:
    """Print lines of names and values, aligned."""
    lines = list(report)
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        sys.stdout.write(f"{name:<{width}}  {value}\n")
