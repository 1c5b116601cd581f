"""Recovery: from what the journal holds of a channel back to its session."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from connect_actor.persistence.contract import CorruptRecordError, Record, RecordKind, Recovery
from connect_actor.protocol.changes import (
    Change,
    InconsistentChangeError,
    decode_change,
    decode_changes,
)
from connect_actor.protocol.replay import apply_all
from connect_actor.protocol.session import Session

__all__ = ["rebuild"]

# A change of so many bytes is numbers alone, without key or digest, and so the same for every
# channel at the same number: after a restart the same ones are met again and again.
_SHORT = 12
_decode_short = lru_cache(maxsize=8_192)(decode_change)


def rebuild(recovery: Recovery) -> Session | None:
    """Return the session as it was after the last record, or None if the channel has none.

    Whatever strategies wrote the records: recovery begins at the newest whole state, snapshot or
    record, and applies the changes after it.

    Raises:
        CorruptRecordError: the records don't add up to a session.
    """
    session: Session | None = None
    base = -1
    for position in reversed(range(len(recovery.records))):
        if recovery.records[position].kind is RecordKind.STATE:
            base = position
            break
    try:
        if base >= 0:
            session = Session.decode(recovery.records[base].payload)
        elif recovery.snapshot is not None:
            session = Session.decode(recovery.snapshot.payload)
        behind = recovery.records[base + 1 :]
        if session is not None:
            apply_all(session, _changes(behind))
        elif behind:
            raise _no_change(behind[0])
    except InconsistentChangeError as error:
        raise CorruptRecordError(f"a channel's records don't add up: {error}") from error
    return session


def _changes(records: Sequence[Record]) -> Iterator[Change]:
    for record in records:
        payload = record.payload
        if record.kind is RecordKind.CHANGE:
            yield _decode_short(payload) if len(payload) <= _SHORT else decode_change(payload)
        elif record.kind is RecordKind.CHANGES:
            yield from decode_changes(payload)
        else:
            raise _no_change(record)


def _no_change(record: Record) -> CorruptRecordError:
    return CorruptRecordError(
        f"channel {record.channel}: record {record.sequence_number} is no change of a state before"
        " it"
    )
