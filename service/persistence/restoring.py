"""Restoring a backup without using anything twice.

A channel's state from a backup may be older than what its peer has seen: going on from it would use
ratchet positions, and with them message keys and nonces, again. So a channel goes on only if
nothing can have been written since:

- the journal that is replaced is the one that the backup was taken from, ends with the very same
  row (sealed, so no other journal has it), and its lease knows of no later one; or
- the operator says so, and nothing that is there contradicts.

Otherwise every channel of the backup is *given up*: a mark stays of each, which refuses it for
good, and nothing else. New channels can be established, and the identity is kept. The log goes on
with a row number that the lost journal can't have reached, so that the lease's head tells the two
apart, should one be put in the other's place by hand.
"""

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from service.persistence.backup import copy_database, require_sound
from service.persistence.contract import JournalError, JournalLockedError, JournalVersionError
from service.persistence.keyring import KeyRing
from service.persistence.lease import WriterLease, lease_path, opened_by_another
from service.persistence.log_index import HIGHEST_UNKNOWN
from service.persistence.sealing import SALT_SIZE, Sealer
from service.persistence.sqlite_file import (
    add_epoch,
    add_row,
    connect,
    file_id,
    is_backup,
    know_epochs,
    last_row,
    newest_epoch,
    open_for_reading,
    reading,
)
from service.persistence.sqlite_reader import SqliteReader
from service.syncing import sync

__all__ = ["Restored", "restore"]

# Rows that no journal writes between a backup and its restoring: months at 1,000 a second.
_FAR_BEYOND = 1 << 33


@dataclass(frozen=True, slots=True)
class Restored:
    """What became of a backup."""

    channels: int
    """Those in the backup."""
    go_on: bool
    """Whether they are served; if not, they are refused from now on."""
    reason: str
    """Why so."""
    kept: Path | None
    """Where the files lie that were there before; None if there were none."""


@dataclass(frozen=True, slots=True)
class _End:
    """Where a journal's log ends."""

    number: int
    """Of its last row; 0 if there is none."""
    row: bytes = field(repr=False)
    """That row's sealed directory, which no other journal has."""
    salts: frozenset[bytes] = field(repr=False)
    """Of the epochs that have sealed what is stored."""


def restore(
    source: Path,
    target: Path,
    keys: KeyRing,
    *,
    beside: Sequence[str],
    nothing_written_since: bool,
    clock: Callable[[], int] = time.time_ns,
    random: Callable[[int], bytes] = os.urandom,
) -> Restored:
    """Put a backup in place as a service's journal.

    Args:
        source: the database file in the backup.
        target: where the journal is to be; one that is there is kept under another name.
        keys: all master keys that the backup needs.
        beside: names of the files that go with the journal.
        nothing_written_since: the operator's word that the service had been stopped before the
            backup, and has not run since.
        clock: nanoseconds since 1970.
        random: source of a salt.

    Raises:
        JournalLockedError: a service, or somebody who looks, has the journal open.
        JournalVersionError: the source is no backup, or a master key is missing.
        JournalError: something can't be read or written, or contradicts the operator's word.
            Until all is in place the journal that was there stays in place.
    """
    draft = target.with_name(target.name + ".restoring")
    lease: WriterLease | None = None
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lease = WriterLease(lease_path(target), 0.0)
        lease.exclude_writers()
        draft.unlink(missing_ok=True)
        copy_database(source, draft)
        file = file_id(draft)
        with reading(source), closing(connect(draft)) as connection:
            if not is_backup(connection):
                raise JournalVersionError(f"{source} is no backup: connect-actor backup makes one")
            backed_up = _end_of(connection)
            present = _end_of_present(target)
            go_on, reason = _judge(backed_up, present, lease.head, promised=nothing_written_since)
            beyond = max(backed_up.number, 0 if present is None else present.number, lease.head)
            channels = _prepare(
                connection,
                source,
                file,
                keys,
                None if go_on else beyond + _FAR_BEYOND,
                clock(),
                random(SALT_SIZE),
            )
            head = last_row(connection)
        kept = _exchange(source, draft, target, beside, clock())
        lease.renew(head)
    except OSError as error:
        raise JournalError(f"{target} can't be restored: {error}") from error
    finally:
        if lease is not None:
            lease.release()
        draft.unlink(missing_ok=True)
    return Restored(channels=channels, go_on=go_on, reason=reason, kept=kept)


def _end_of(connection: sqlite3.Connection) -> _End:
    last = connection.execute(
        "SELECT number, directory FROM log ORDER BY number DESC LIMIT 1"
    ).fetchone()
    number, row = last or (0, b"")
    salts = frozenset(salt for (salt,) in connection.execute("SELECT salt FROM writers"))
    return _End(number, row, salts)


def _end_of_present(target: Path) -> _End | None:
    """Return where the journal ends that is there; None if it can't tell.

    It can't if it is missing, damaged, or itself a copy. Nothing of it is changed.

    Raises:
        JournalLockedError: somebody has it open.
    """
    if not target.exists():
        return None
    if opened_by_another(target):
        raise JournalLockedError(f"{target} is open in another process: end that one first")
    try:
        with closing(open_for_reading(target)) as connection, reading(target):
            return None if is_backup(connection) else _end_of(connection)
    except JournalError:
        return None


def _judge(backed_up: _End, present: _End | None, head: int, *, promised: bool) -> tuple[bool, str]:
    """Decide whether the channels of a backup may go on, and why.

    Args:
        backed_up: where the backup ends.
        present: where the journal ends that is there.
        head: of the lease that is there; 0 if it is not known.
        promised: the operator's word that nothing was written since.

    Raises:
        JournalError: what is there contradicts the operator.
    """
    end = backed_up.number
    same = present is not None and bool(present.salts & backed_up.salts)
    # A lease without a journal may well be that of the journal that is lost.
    seen = head if same or present is None else 0
    if same and present is not None:
        seen = max(seen, present.number)
    if seen > end:
        if promised:
            raise JournalError(
                f"row {seen} was written since, the backup ends with row {end}:"
                " restore without --nothing-written-since"
            )
        return False, f"row {seen} was written since, the backup ends with row {end}"
    if promised:
        return True, "nothing was written since: your word, and nothing contradicts it"
    if present is None:
        return False, "no journal was there to tell whether anything was written since"
    if not same or (present.number, present.row) != (end, backed_up.row):
        return False, "the journal that was there is not the one of the backup"
    if head != end:
        return False, "the lease can't tell whether anything was written since"
    return True, "nothing was written since: the journal ended where the backup does"


def _prepare(
    connection: sqlite3.Connection,
    source: Path,
    file: bytes,
    keys: KeyRing,
    give_up_at: int | None,
    now: int,
    salt: bytes,
) -> int:
    """Make a journal of a copy of the backup; return how many channels the backup has.

    Args:
        connection: to the copy.
        source: of the backup, for messages.
        file: id of the copy, which it keeps under the journal's name.
        keys: all master keys that it needs.
        give_up_at: number of the row with which the log begins if the channels are given up.
        now: nanoseconds since 1970.
        salt: for the epoch that notes which file is written from now on.
    """
    require_sound(connection, source)
    sealer = Sealer()
    strategy = know_epochs(connection, source, keys, sealer)
    if strategy is None:
        raise JournalVersionError(f"{source} does not say who wrote it")
    reader = SqliteReader(connection, sealer, 0)
    channels = reader.channels()
    given_up_before = len(reader.given_up())
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM backup")
    if give_up_at is not None:
        for table in ("log", "snapshots", "marks", "owners"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
        connection.executemany(
            "INSERT INTO marks VALUES (?, 0, ?)",
            [(channel, HIGHEST_UNKNOWN) for channel in channels],
        )
    epoch = newest_epoch(connection) + 1
    add_epoch(connection, sealer, epoch, keys.sealing, strategy, now, salt, file)
    if give_up_at is not None:
        add_row(connection, sealer, give_up_at)
    connection.execute("COMMIT")
    # Given up means gone, too.
    connection.execute("VACUUM")
    return len(channels) - given_up_before


def _exchange(
    source: Path, draft: Path, target: Path, beside: Sequence[str], now: int
) -> Path | None:
    """Put all files in place, the journal last; return where those lie that were there."""
    home = target.parent
    wal = target.with_name(target.name + "-wal")
    sync(draft)
    present = [file for name in (target.name, wal.name, *beside) if (file := home / name).exists()]
    kept = None
    if present:
        moment = datetime.fromtimestamp(now / 1e9, UTC)
        kept = home / f"replaced-{moment:%Y%m%dT%H%M%S.%fZ}"
        kept.mkdir(mode=0o700)
        # A second name first: at no moment is any of them without one.
        for file in present:
            os.link(file, kept / file.name)
        sync(kept)
        sync(home)
    for name in beside:
        file = source.with_name(name)
        if file.exists():
            new = home / f"{name}.restoring"
            shutil.copyfile(file, new)
            new.chmod(0o600)
            sync(new)
            new.rename(home / name)
    # These would be taken for the new one's.
    wal.unlink(missing_ok=True)
    target.with_name(target.name + "-shm").unlink(missing_ok=True)
    draft.rename(target)
    sync(home)
    return kept
