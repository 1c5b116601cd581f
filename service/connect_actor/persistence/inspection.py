"""What a journal says of itself, and of one of its channels: figures, never a secret."""

from dataclasses import dataclass, replace
from pathlib import Path

from connect_actor.keys.keyring import KeyRing
from connect_actor.persistence.contract import Recovery
from connect_actor.persistence.recovery import rebuild
from connect_actor.persistence.sqlite.lease import LeaseView
from connect_actor.persistence.sqlite.looking import look
from connect_actor.persistence.sqlite.owners import OwnerTable
from connect_actor.persistence.sqlite.reader import SqliteReader
from connect_actor.persistence.sqlite.schema import (
    FORMAT_VERSION,
    Epoch,
    epochs_of,
    last_row,
    reading,
)
from connect_actor.protocol.session import Session

__all__ = ["JournalFigures", "KeyUse", "inspect_channel", "inspect_journal"]

_FILES = ("", "-wal", "-shm", "-lease")


@dataclass(frozen=True, slots=True)
class KeyUse:
    """What a master key has sealed, of what is stored."""

    key_id: str
    epochs: int
    rows: int
    snapshots: int
    owners: int


@dataclass(frozen=True, slots=True)
class JournalFigures:
    """A journal at one moment."""

    format: int
    backup_made_at: int | None
    """Nanoseconds since 1970; None if it is no backup."""
    epochs: list[Epoch]
    keys: list[KeyUse]
    rows: int
    last_row: int
    records_live: int
    entries_dead: int
    """Records and notes in the log that are of no more use."""
    snapshots: int
    channels: int
    channels_damaged: int
    channels_given_up: int
    """Left behind when an older backup was restored."""
    distrusted: bool
    """Whether something is missing of which nobody can tell whom it concerns."""
    files: dict[str, int]
    """Bytes, by name."""
    lease: LeaseView


def inspect_journal(path: Path, keys: KeyRing) -> JournalFigures:
    """Return a journal's figures; a service may be writing it.

    Raises:
        JournalError: it can't be opened or read.
        JournalVersionError: it isn't a journal, or a master key is missing.
    """
    with look(path, keys) as view, reading(path):
        connection = view.connection
        reader = view.read()
        epochs = epochs_of(connection)
        (rows,) = connection.execute("SELECT count(*) FROM log").fetchone()
        (snapshots,) = connection.execute("SELECT count(*) FROM snapshots").fetchone()
        made = connection.execute("SELECT made_at FROM backup").fetchone()
        channels = reader.channels()
        given_up = reader.given_up()
        return JournalFigures(
            format=FORMAT_VERSION,
            backup_made_at=None if made is None else made[0],
            epochs=epochs,
            keys=_key_uses(reader, epochs),
            rows=rows,
            last_row=last_row(connection),
            records_live=reader.index.live_records,
            entries_dead=reader.index.dead,
            snapshots=snapshots,
            channels=len(channels) - len(given_up),
            channels_damaged=len(reader.index.damaged) - len(given_up),
            channels_given_up=len(given_up),
            distrusted=bool(reader.index.distrusted),
            files={
                file.name: file.stat().st_size
                for suffix in _FILES
                if (file := Path(f"{path}{suffix}")).exists()
            },
            lease=view.lease,
        )


def inspect_channel(path: Path, keys: KeyRing, channel: int) -> tuple[Recovery, Session] | None:
    """Return what a channel would be recovered from, and its session; None if there is none.

    Raises:
        CorruptRecordError: the channel is damaged.
        JournalError: the journal can't be opened or read.
        JournalVersionError: it isn't a journal, or a master key is missing.
    """
    with look(path, keys) as view, reading(path):
        reader = view.read()
        life = reader.life(channel)
        owner = OwnerTable(view.connection).of(view.connection, view.sealer, channel, life)
        recovery = replace(reader.recover(channel), owner=owner)
        session = rebuild(recovery)
        return None if session is None else (recovery, session)


def _key_uses(reader: SqliteReader, epochs: list[Epoch]) -> list[KeyUse]:
    key_of = {epoch.number: epoch.key_id for epoch in epochs}
    counts = {epoch.key_id: [0, 0, 0, 0] for epoch in epochs}
    for epoch in epochs:
        counts[epoch.key_id][0] += 1
    for position, table, column in (
        (1, "log", "directory"),
        (2, "snapshots", "payload"),
        (3, "owners", "seal"),
    ):
        # A sealed blob begins with the number of its epoch.
        for sealed_in, count in reader.connection.execute(
            f"SELECT substr({column}, 1, 4), count(*) FROM {table} GROUP BY 1"  # noqa: S608 - our own names
        ):
            key_id = key_of.get(int.from_bytes(bytes(sealed_in), "big"))
            if key_id is not None:
                counts[key_id][position] += count
    return [KeyUse(key_id.hex(), *used) for key_id, used in counts.items()]
