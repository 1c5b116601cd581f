"""The command ``connect-actor restore``: puts a backup in place, so that nothing is used twice."""

from collections.abc import Sequence
from pathlib import Path

from connect_actor.keys.keyring import KeyRing
from connect_actor.keys.sources import KeyFileError, identity_key_id
from connect_actor.operator.common import Operation, operator_parser, perform
from connect_actor.persistence.contract import JournalError
from connect_actor.persistence.inspection import inspect_journal
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.persistence.sqlite.restoring import restore
from connect_actor.process.exit_codes import RIGHT
from connect_actor.settings import SettingsError

__all__ = ["run"]


def run(flags: Sequence[str]) -> int:
    """Restore a backup; return the process's exit code."""
    parser = operator_parser(
        "restore",
        "Put a backup in place as the journal of the data directory. Channels go on only if"
        " nothing was written since; otherwise they are refused from now on.",
    )
    parser.add_argument(
        "directory",
        type=Path,
        nargs="?",
        help="that connect-actor backup has made; without, the data directory itself, which was"
        " copied or moved (only with --nothing-written-since)",
    )
    parser.add_argument(
        "--nothing-written-since",
        action="store_true",
        help="your word that the service had been stopped before the backup or copy was made, and"
        " has not run since, anywhere: the channels go on",
    )
    return perform(parser, flags, _restore)


def _accept_copy(operation: Operation) -> int:
    """Go on with a data directory that was copied or moved as a whole."""
    if not operation.asked.nothing_written_since:
        raise SettingsError(
            "give the directory of a backup, or --nothing-written-since to go on with the data"
            " directory itself, which was copied or moved"
        )
    journal, keys = operation.present_journal, operation.keys()
    found = inspect_journal(journal, keys)
    if found.last_row < found.lease.head:
        raise JournalError(
            f"{journal} ends with row {found.last_row}, but row {found.lease.head} was"
            " acknowledged: something was written since"
        )
    strategy = found.epochs[-1].strategy if found.epochs else operation.settings.strategy
    SqliteJournal(
        journal, keys=keys, strategy=strategy, lease=operation.settings.journal_lease, moved=True
    ).close()
    operation.show(
        {"channels": found.channels, "channels_go_on": True},
        [("accepted", journal), ("channels", f"{found.channels:,}; they go on")],
    )
    return RIGHT


def _restore(operation: Operation) -> int:
    backup: Path | None = operation.asked.directory
    if backup is None:
        return _accept_copy(operation)
    journal = operation.journal
    keys = operation.keys()
    _require_key(backup / operation.identity.name, keys)
    restored = restore(
        backup / journal.name,
        journal,
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
            ("restored", journal),
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
