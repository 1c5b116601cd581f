"""Restoring a backup without using anything twice.

A channel's state from a backup may be older than what its peer has seen: going on from it would use
ratchet positions, and with them message keys and nonces, again. So a channel goes on only if
nothing can have been written since:

- the journal that is replaced is the one that the backup was taken from, ends with the very same
  row (sealed, so no other journal has it), and its lease knows of no later one; or
- the operator says so, and nothing that is there contradicts.

Otherwise every channel of the backup is *given up*: a note in the log stays of each, which refuses
it for good, and nothing else. New channels can be established, and the identity is kept. The log
goes on with a row number that the lost journal can't have reached, so that the lease's head tells
the two apart, should one be put in the other's place by hand.

All files are prepared in a directory beside the journal. One rename of that directory is the moment
from which the backup counts; what is left to do then, moving each file to its place, is finished by
whoever opens the journal next (``finish_restore``), should this process not live to do it.
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

from connect_actor.files import sync
from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.backup import TABLES, copy_tables, require_sound, told
from connect_actor.persistence.contract import JournalError, JournalLockedError, JournalVersionError
from connect_actor.persistence.log_rows import GIVEN_UP_NOTE, RowWriter
from connect_actor.persistence.sealing import SALT_SIZE, Sealer
from connect_actor.persistence.sqlite.lease import WriterLease, lease_path, opened_by_another
from connect_actor.persistence.sqlite.looking import look
from connect_actor.persistence.sqlite.schema import (
    Epoch,
    FileKind,
    add_epoch,
    add_row,
    connect,
    file_id,
    first_row,
    kinds_of,
    know_epochs,
    last_row,
    open_for_reading,
    reading,
    seal_beginning,
)

__all__ = ["Restored", "being_restored", "finish_restore", "restore"]

# Rows that no journal writes between a backup and its restoring: months at 1,000 a second.
_FAR_BEYOND = 1 << 33
# Channels that are given up in one row of the log.
_NOTES = 2_000


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
            Until all is prepared the journal that was there stays in place.
    """
    lease: WriterLease | None = None
    draft = target.with_name(f"{target.name}.restoring")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lease = WriterLease(lease_path(target), 0.0)
        lease.exclude_writers()
        _finish(target, lease)
        _remove(draft)
        with look(source, keys) as view:
            if not view.is_backup:
                raise JournalVersionError(f"{source} is no backup: connect-actor backup makes one")
            reader = view.read()
            channels = set(reader.channels())
            given_up_before = reader.given_up()
            backed_up = _end_of(view.connection)
            require_sound(view.connection, source)
        present = _end_of_present(target)
        go_on, reason = _judge(backed_up, present, lease.head, promised=nothing_written_since)
        draft.mkdir(mode=0o700)
        made = draft / target.name
        # Given up means gone: nothing but who wrote is copied then.
        copy_tables(source, made, TABLES if go_on else ["writers"])
        beyond = max(backed_up.number, 0 if present is None else present.number, lease.head)
        give_up = None if go_on else (beyond + _FAR_BEYOND, channels)
        _make_journal(made, source, keys, give_up, clock(), random(SALT_SIZE))
        _copy_beside(source, draft, beside)
        kept = _keep(target, beside, clock())
        draft.rename(_ready(target))
        sync(target.parent)
        _finish(target, lease)
    except OSError as error:
        raise JournalError(f"{target} can't be restored: {told(error, target)}") from error
    finally:
        if lease is not None:
            lease.release()
        _remove(draft)
    return Restored(channels=len(channels - given_up_before), go_on=go_on, reason=reason, kept=kept)


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
            return _end_of(connection) if FileKind.JOURNAL in kinds_of(connection) else None
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


def _make_journal(
    made: Path,
    source: Path,
    keys: KeyRing,
    give_up: tuple[int, set[int]] | None,
    now: int,
    salt: bytes,
) -> None:
    """Make a journal of a copy of the backup.

    Args:
        made: the copy, which keeps its file under the journal's name.
        source: the backup, for messages.
        keys: all master keys that it needs.
        give_up: the channels that are given up, if they are, and the row with which the log begins
            then.
        now: nanoseconds since 1970.
        salt: for the epoch that notes which file is written from now on.
    """
    sealer = Sealer()
    file = file_id(made)
    with reading(made), closing(connect(made)) as connection:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        newest = know_epochs(connection, source, keys, sealer)
        if newest is None:
            raise JournalVersionError(f"{source} does not say who wrote it")
        begins = give_up[0] if give_up else first_row(connection, source, sealer, FileKind.BACKUP)
        connection.execute("DELETE FROM backup")
        first = max(begins, newest.first_row, last_row(connection) + 1)
        key = keys.sealing
        epoch = Epoch(newest.number + 1, newest.strategy, now, key.id, first)
        add_epoch(connection, sealer, epoch, key, salt, file)
        seal_beginning(connection, sealer, begins)
        if give_up:
            # One that holds nothing says how far the log has come.
            add_row(connection, sealer, begins)
            writer = RowWriter(begins + 1)
            for number, channel in enumerate(sorted(give_up[1])):
                writer.note(channel, 0, GIVEN_UP_NOTE)
                if number % _NOTES == _NOTES - 1:
                    writer.finish()
            writer.finish()
            for row in writer.rows:
                add_row(connection, sealer, *row)
        connection.execute("COMMIT")
    sync(made)


def _copy_beside(source: Path, draft: Path, beside: Sequence[str]) -> None:
    """Prepare the files that go with the journal, and make all that is prepared durable."""
    for name in beside:
        file = source.with_name(name)
        if file.exists():
            shutil.copyfile(file, draft / name)
            (draft / name).chmod(0o600)
            sync(draft / name)
    sync(draft)


def _keep(target: Path, beside: Sequence[str], now: int) -> Path | None:
    """Give what is there a second name; return where it lies, or None if nothing is there."""
    home = target.parent
    names = (target.name, f"{target.name}-wal", *beside)
    present = [file for name in names if (file := home / name).exists()]
    if not present:
        return None
    moment = datetime.fromtimestamp(now / 1e9, UTC)
    kept = home / f"replaced-{moment:%Y%m%dT%H%M%S.%fZ}"
    kept.mkdir(mode=0o700)
    for file in present:
        os.link(file, kept / file.name)
    sync(kept)
    sync(home)
    return kept


def _remove(draft: Path) -> None:
    """Remove what a restore has prepared that did not come to its end."""
    if draft.is_dir():
        shutil.rmtree(draft, ignore_errors=True)
    else:
        draft.unlink(missing_ok=True)


def _ready(target: Path) -> Path:
    return target.with_name(f"{target.name}.restored")


def being_restored(target: Path) -> bool:
    """Tell whether a restore counts already, but not all of its files are in their places."""
    return _ready(target).exists()


def finish_restore(target: Path) -> None:
    """Finish a restore whose process has not lived to do it; else do nothing.

    To be called before any file beside the journal is read.

    Raises:
        JournalLockedError: its process lives, or another one has the journal.
        JournalError: a file can't be moved or read.
    """
    if not being_restored(target):
        return
    lease = WriterLease(lease_path(target), 0.0)
    try:
        lease.exclude_writers()
        _finish(target, lease)
    except OSError as error:
        raise JournalError(f"{target} can't be restored: {told(error, target)}") from error
    finally:
        lease.release()


def _finish(target: Path, lease: WriterLease) -> None:
    """Move what is prepared to its place; whatever of it is done already stays done."""
    ready = _ready(target)
    if not ready.exists():
        return
    home = target.parent
    made = ready / target.name
    for file in ready.iterdir():
        if file != made:
            file.rename(home / file.name)
    if made.exists():
        # These would be taken for the new one's.
        target.with_name(f"{target.name}-wal").unlink(missing_ok=True)
        target.with_name(f"{target.name}-shm").unlink(missing_ok=True)
        made.rename(target)
    sync(home)
    with closing(open_for_reading(target)) as connection, reading(target):
        lease.renew(last_row(connection))
    sync(lease_path(target))
    ready.rmdir()
    sync(home)
