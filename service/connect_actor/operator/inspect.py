"""The command ``connect-actor inspect``: what a journal holds, while a service writes it.

Nothing that is shown is a secret: no key, no plaintext, no ciphertext, no nonce.
"""

import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from connect_actor.keys.sources import identity_key_id
from connect_actor.operator.common import Lines, Operation, at, operator_parser, perform
from connect_actor.persistence.contract import CorruptRecordError, Recovery
from connect_actor.persistence.inspection import JournalFigures, inspect_channel, inspect_journal
from connect_actor.process.exit_codes import RIGHT, UNHEALTHY
from connect_actor.protocol.handshake import MAX_CONNECT_ID
from connect_actor.protocol.session import Session

__all__ = ["run"]

# Openings shown as text; as JSON all are.
_LAST_EPOCHS = 5


def run(flags: Sequence[str]) -> int:
    """Show a journal's figures, or a channel's; return the process's exit code."""
    parser = operator_parser("inspect", "Show what a journal holds; a service may be writing it.")
    parser.add_argument(
        "--channel", type=_connect_id, help="connect id of one channel to show instead"
    )
    return perform(parser, flags, _inspect)


def _connect_id(text: str) -> int:
    if text.isascii() and text.isdecimal() and 0 < int(text) <= MAX_CONNECT_ID:
        return int(text)
    raise ArgumentTypeError(f"expected a connect id, 1 to {MAX_CONNECT_ID}")


def _inspect(operation: Operation) -> int:
    channel = operation.asked.channel
    path = operation.present_journal if channel is None else operation.journal_of_channel(channel)
    if channel is None:
        figures = inspect_journal(path, operation.keys())
        identity = _identity_key(operation.identity)
        operation.show(
            _journal_as_json(path, figures, identity), _journal_as_text(path, figures, identity)
        )
        return RIGHT
    try:
        found = inspect_channel(path, operation.keys(), channel)
    except CorruptRecordError as error:
        sys.stderr.write(f"connect-actor: damaged: {error}\n")
        return UNHEALTHY
    if found is None:
        sys.stderr.write(f"connect-actor: the journal has no channel {channel}\n")
        return UNHEALTHY
    shown = _channel(channel, *found, now=time.time_ns())
    operation.show(
        shown, ((name.replace("_", " "), _plain(value)) for name, value in shown.items())
    )
    return RIGHT


def _plain(value: object) -> object:
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return "none"
    return value


def _identity_key(path: Path) -> str | None:
    return identity_key_id(path).hex() if path.exists() else None


def _journal_as_json(
    path: Path, figures: JournalFigures, identity: str | None
) -> dict[str, object]:
    shown = asdict(figures)
    shown["epochs"] = [
        {
            "epoch": epoch.number,
            "strategy": epoch.strategy,
            "opened_at": at(epoch.opened_at),
            "key_id": epoch.key_id.hex(),
        }
        for epoch in figures.epochs
    ]
    made_at = figures.backup_made_at
    shown["backup_made_at"] = None if made_at is None else at(made_at)
    return {"journal": str(path), **shown, "identity_key_id": identity}


def _journal_as_text(path: Path, figures: JournalFigures, identity: str | None) -> Lines:
    yield "journal", f"{path}, format {figures.format}"
    if figures.backup_made_at is not None:
        yield "backup", f"made at {at(figures.backup_made_at)}"
    yield "files", ", ".join(f"{name} {size:,} bytes" for name, size in figures.files.items())
    lease = figures.lease
    if not lease.held:
        yield "writer", f"none; the last acknowledged row is {lease.head or 'not known'}"
    else:
        silent = "unknown" if lease.silent is None else f"{lease.silent:.1f} s ago"
        yield (
            "writer",
            f"epoch {lease.epoch}; last sign of life {silent}, acknowledged row {lease.head}",
        )
    yield "rows", f"{figures.rows:,}, the last one is {figures.last_row}"
    yield (
        "records",
        f"{figures.records_live:,} live; {figures.entries_dead:,} entries of the log dead",
    )
    yield "snapshots", f"{figures.snapshots:,}"
    yield (
        "channels",
        f"{figures.channels:,}, {figures.channels_damaged:,} of them damaged"
        + (f"; {figures.channels_given_up:,} given up" if figures.channels_given_up else ""),
    )
    if figures.distrusted:
        yield "missing", "part of the log, nobody can tell whose: connect-actor verify says where"
    for use in figures.keys:
        yield (
            f"key {use.key_id}",
            f"{use.rows:,} rows, {use.snapshots:,} snapshots, {use.owners:,} owners"
            f" in {use.epochs:,} epochs" + (", the identity" if use.key_id == identity else ""),
        )
    if identity is not None and identity not in {use.key_id for use in figures.keys}:
        yield f"key {identity}", "the identity"
    hidden = len(figures.epochs) - _LAST_EPOCHS
    if hidden > 0:
        yield "", f"{hidden:,} earlier epochs"
    for epoch in figures.epochs[-_LAST_EPOCHS:]:
        yield f"epoch {epoch.number}", f"{epoch.strategy}, opened at {at(epoch.opened_at)}"


def _channel(channel: int, recovery: Recovery, session: Session, *, now: int) -> dict[str, object]:
    """Return a channel's figures, none of which is a secret.

    Args:
        channel: its id.
        recovery: what it was recovered from.
        session: as recovered.
        now: nanoseconds since 1970.
    """
    ratchet, deliveries, snapshot = session.ratchet, session.deliveries, recovery.snapshot
    return {
        "channel": channel,
        "owned": bool(recovery.owner),
        "sequence_number": recovery.highest_sequence_number,
        "snapshot": None if snapshot is None else snapshot.sequence_number,
        "snapshot_age_seconds": (
            None if snapshot is None else round(now / 1e9 - snapshot.taken_at / 1e6, 1)
        ),
        "records_behind_snapshot": recovery.highest_sequence_number
        - (0 if snapshot is None else snapshot.sequence_number),
        "sending_chain_length": 0 if ratchet.sending is None else ratchet.sending.next_index,
        "receiving_chain_length": 0 if ratchet.receiving is None else ratchet.receiving.next_index,
        "previous_chain_length": ratchet.previous_chain_length,
        "receiving_turns": ratchet.receiving_turns,
        "skipped_keys": ratchet.skipped_keys,
        "deliveries_kept": 0 if deliveries is None else len(deliveries),
        "redelivery_window": 0 if deliveries is None else deliveries.size,
        "one_time_prekeys_left": len(session.channel_keys.one_time_prekeys),
        "expires_at": at(session.expires_at * 1_000),
        "expired": now >= session.expires_at * 1_000,
        "dh_ratchet_every": ratchet.limits.turn_every,
        "max_skip": ratchet.limits.max_skip,
        "max_skipped_keys": ratchet.limits.max_skipped_keys,
    }
