"""The command ``connect-actor restore``: puts a backup in place, so that nothing is used twice."""

from collections.abc import Sequence
from pathlib import Path

from service.commands.common import (
    journal_of,
    keys_of,
    operator_parser,
    print_json,
    print_text,
    reporting,
    settings_of,
)
from service.exit_codes import RIGHT
from service.keyfiles import KeyFileError, identity_key_id
from service.paths import IDENTITY_FILE, JOURNAL_FILE
from service.persistence.keyring import KeyRing
from service.persistence.restoring import restore

__all__ = ["run"]


def run(flags: Sequence[str]) -> int:
    """Restore a backup; return the process's exit code."""
    parser = operator_parser(
        "restore",
        "Put a backup in place as the journal of the data directory. Channels go on only if"
        " nothing was written since; otherwise they are refused from now on.",
    )
    parser.add_argument("directory", type=Path, help="that connect-actor backup has made")
    parser.add_argument(
        "--nothing-written-since",
        action="store_true",
        help="your word that the service had been stopped before the backup was made, and has not"
        " run since, anywhere: the channels go on",
    )
    asked = parser.parse_args(flags)

    def work() -> int:
        settings = settings_of(asked)
        keys = keys_of(settings)
        _require_key(asked.directory / IDENTITY_FILE, keys)
        restored = restore(
            asked.directory / JOURNAL_FILE,
            journal_of(settings),
            keys,
            beside=[IDENTITY_FILE],
            nothing_written_since=asked.nothing_written_since,
        )
        if asked.json:
            print_json(
                {
                    "channels": restored.channels,
                    "channels_go_on": restored.go_on,
                    "reason": restored.reason,
                    "kept": None if restored.kept is None else str(restored.kept),
                }
            )
            return RIGHT
        fate = "go on" if restored.go_on else "are given up: their peers have to establish anew"
        print_text(
            [
                ("restored", f"{journal_of(settings)}"),
                ("channels", f"{restored.channels:,}; they {fate}"),
                ("because", restored.reason),
                ("before", f"kept in {restored.kept}" if restored.kept else "there was nothing"),
            ]
        )
        return RIGHT

    return reporting(work)


def _require_key(identity: Path, keys: KeyRing) -> None:
    if identity.exists() and keys.find(key_id := identity_key_id(identity)) is None:
        raise KeyFileError(
            f"{identity} was sealed under the master key {key_id.hex()}, which is not given"
        )
