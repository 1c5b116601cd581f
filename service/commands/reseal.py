"""The command ``connect-actor reseal``: everything under the first master key, without a service.

A running service does the same by itself after SIGHUP (``service.key_reload``).
"""

from collections.abc import Sequence

from service.commands.common import (
    journal_of,
    keys_of,
    operator_parser,
    print_json,
    print_text,
    reporting,
    settings_of,
)
from service.exit_codes import RIGHT, UNHEALTHY
from service.keyfiles import load_identity
from service.paths import IDENTITY_FILE
from service.persistence.inspection import JournalFigures, inspect_journal
from service.persistence.sqlite import SqliteJournal
from service.randomness import BlockRandom
from service.settings import Settings

__all__ = ["run"]


def run(flags: Sequence[str]) -> int:
    """Seal everything anew; return 0 if nothing needs an older key any more, 1 if not."""
    asked = operator_parser(
        "reseal",
        "Seal the journal and the identity anew under the first master key. The service must be"
        " stopped; one that runs does this by itself after SIGHUP.",
    ).parse_args(flags)

    def work() -> int:
        settings = settings_of(asked)
        keys = keys_of(settings)
        path = journal_of(settings)
        first = keys.sealing.id.hex()
        before = inspect_journal(path, keys)
        _reseal(settings, before)
        after = inspect_journal(path, keys)
        older = [use.key_id for use in after.keys if use.key_id != first]
        sealed = {
            part: _under_others(before, part, first) - _under_others(after, part, first)
            for part in ("rows", "snapshots", "owners")
        }
        if asked.json:
            print_json({"key_id": first, **sealed, "older_key_ids_needed": older})
        else:
            print_text(
                [
                    (
                        "sealed anew",
                        ", ".join(f"{count:,} {part}" for part, count in sealed.items()),
                    ),
                    ("under", f"master key {first}, as is the identity"),
                    (
                        "next",
                        f"keep master key {', '.join(older)}: damaged parts could not be sealed"
                        " anew, connect-actor verify names them"
                        if older
                        else "remove every other master key: nothing here needs it",
                    ),
                ]
            )
        return UNHEALTHY if older else RIGHT

    return reporting(work)


def _reseal(settings: Settings, before: JournalFigures) -> None:
    keys = keys_of(settings)
    journal = SqliteJournal(
        journal_of(settings),
        keys=keys,
        # Whoever writes next is not to be told of a change of strategy that was none.
        strategy=before.epochs[-1].strategy,
        lease=settings.journal_lease,
    )
    try:
        while journal.upkeep():
            pass
    finally:
        journal.close()
    identity = settings.data_dir / IDENTITY_FILE
    if identity.exists():
        load_identity(identity, keys, BlockRandom())


def _under_others(figures: JournalFigures, part: str, key_id: str) -> int:
    """Return how much of a part of the journal is sealed under another key."""
    return sum(getattr(use, part) for use in figures.keys if use.key_id != key_id)
