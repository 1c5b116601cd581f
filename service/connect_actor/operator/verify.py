"""The command ``connect-actor verify``: whether everything in a journal opens and comes back."""

from collections.abc import Sequence
from dataclasses import asdict

from connect_actor.operator.common import Lines, Operation, operator_parser, perform
from connect_actor.persistence.verification import Verification, verify
from connect_actor.process.exit_codes import RIGHT, UNHEALTHY

__all__ = ["run"]

# Findings of each sort that are described, without --all.
_DESCRIBED = 20


def run(flags: Sequence[str]) -> int:
    """Verify a journal; return 0 if all of it is whole, 1 if not."""
    parser = operator_parser(
        "verify", "Open everything in a journal; a service may be writing it. 0: all is whole."
    )
    parser.add_argument(
        "--all", action="store_true", help=f"describe every fault, not only {_DESCRIBED} of a sort"
    )
    return perform(parser, flags, _verify)


def _verify(operation: Operation) -> int:
    limit = None if operation.asked.all else _DESCRIBED
    found = verify(operation.present_journal, operation.keys(), limit=limit)
    operation.show({"whole": found.whole, **asdict(found)}, _as_text(found))
    return RIGHT if found.whole else UNHEALTHY


def _as_text(found: Verification) -> Lines:
    yield (
        "log",
        (
            f"{found.rows:,} rows up to {found.last_row}, {found.records:,} records"
            f" ({found.records_live:,} live): {found.log.count:,} faults"
        ),
    )
    yield "snapshots", f"{found.snapshots_seen:,}: {found.snapshots.count:,} faults"
    yield (
        "channels",
        f"{found.channels_seen:,}: {found.channels_served:,} are served, {found.channels.count:,}"
        " refused" + (f"; {found.channels_given_up:,} given up" if found.channels_given_up else ""),
    )
    yield (
        "file",
        (
            f"{found.epochs:,} epochs, under master key"
            f" {', '.join(found.key_ids)}: {found.file.count:,} faults"
        ),
    )
    for name in ("file", "log", "snapshots", "channels"):
        part = getattr(found, name)
        for description in part.described:
            yield f"{name}:", description
        if part.count > len(part.described):
            yield f"{name}:", f"{part.count - len(part.described):,} more: --all shows them"
    backup = ", a backup" if found.is_backup else ""
    yield "result", f"whole{backup}" if found.whole else f"NOT WHOLE{backup}"
