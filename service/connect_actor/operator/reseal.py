"""The command ``connect-actor reseal``: everything under the first master key, without a service.

A running service does the same by itself after SIGHUP (``process.key_reload``).
"""

import os
from collections.abc import Sequence

from connect_actor.keys.keyring import KeyRing
from connect_actor.keys.sources import load_identity
from connect_actor.operator.common import Operation, operator_parser, perform
from connect_actor.persistence.inspection import JournalFigures, inspect_journal
from connect_actor.persistence.sqlite.journal import SqliteJournal
from connect_actor.process.exit_codes import RIGHT, UNHEALTHY

__all__ = ["run"]


def run(flags: Sequence[str]) -> int:
    """Seal everything anew; return 0 if nothing needs an older key any more, 1 if not."""
    parser = operator_parser(
        "reseal",
        "Seal the journal and the identity anew under the first master key. The service must be"
        " stopped; one that runs does this by itself after SIGHUP.",
    )
    return perform(parser, flags, _report)


def _report(operation: Operation) -> int:
    journal = operation.present_journal
    keys = operation.keys()
    first = keys.sealing.id.hex()
    before = inspect_journal(journal, keys)
    _reseal(operation, keys, before.epochs[-1].strategy)
    after = inspect_journal(journal, keys)
    older = [use.key_id for use in after.keys if use.key_id != first]
    sealed = {
        part: _under_others(before, part, first) - _under_others(after, part, first)
        for part in ("rows", "snapshots", "owners")
    }
    advice = "remove every other master key: nothing here needs it"
    if operation.settings.workers > 1:
        advice = "do the same for every other worker's journal before you remove a master key"
    if older:
        advice = (
            f"keep master key {', '.join(older)}: damaged parts could not be sealed anew,"
            " connect-actor verify names them"
        )
    operation.show(
        {"key_id": first, **sealed, "older_key_ids_needed": older},
        [
            ("sealed anew", ", ".join(f"{count:,} {part}" for part, count in sealed.items())),
            ("under", f"master key {first}, as is the identity"),
            ("next", advice),
        ],
    )
    return UNHEALTHY if older else RIGHT


def _reseal(operation: Operation, keys: KeyRing, strategy: str) -> None:
    # The strategy before stays: whoever writes next is not to be told of a change that was none.
    journal = SqliteJournal(
        operation.journal,
        keys=keys,
        strategy=strategy,
        lease=operation.settings.journal_lease,
    )
    try:
        while journal.upkeep():
            journal.renew()
    finally:
        journal.close()
    if operation.identity.exists():
        load_identity(operation.identity, keys, os.urandom)


def _under_others(figures: JournalFigures, part: str, key_id: str) -> int:
    """Return how much of a part of the journal is sealed under another key."""
    return sum(getattr(use, part) for use in figures.keys if use.key_id != key_id)
