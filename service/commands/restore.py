"""The command ``connect-actor restore``: puts a backup in place, so that nothing is used twice."""

from collections.abc import Sequence
from pathlib import Path

from service.commands.common import Operation, operator_parser, perform
from service.exit_codes import RIGHT
from service.keyfiles import KeyFileError, identity_key_id
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
    return perform(parser, flags, _restore)


def _restore(operation: Operation) -> int:
    backup: Path = operation.asked.directory
    keys = operation.keys()
    _require_key(backup / operation.identity.name, keys)
    restored = restore(
        backup / operation.journal.name,
        operation.journal,
        keys,
        beside=[operation.identity.name],
        nothing_written_since=operation.asked.nothing_written_since,
    )
    fate = "go on" if restored.go_on else "are given up: their peers have to establish anew"
    operation.show(
        {
            "channels": restored.channels,
            "channels_go_on": restored.go_on,
            "reason": restored.reason,
            "kept": None if restored.kept is None else str(restored.kept),
        },
        [
            ("restored", operation.journal),
            ("channels", f"{restored.channels:,}; they {fate}"),
            ("because", restored.reason),
            ("before", f"kept in {restored.kept}" if restored.kept else "there was nothing"),
        ],
    )
    return RIGHT


def _require_key(identity: Path, keys: KeyRing) -> None:
    if identity.exists() and keys.find(key_id := identity_key_id(identity)) is None:
        raise KeyFileError(
            f"{identity} was sealed under the master key {key_id.hex()}, which is not given"
        )
