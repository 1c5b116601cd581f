"""Recovery: from what the journal holds of a channel back to its session."""

from service.persistence.contract import CorruptRecordError, RecordKind, Recovery
from service.protocol.change_runs import decode_change_runs
from service.protocol.changes import InconsistentChangeError, decode_change
from service.protocol.session import Session

__all__ = ["rebuild"]

_CHANGES = (RecordKind.CHANGE, RecordKind.CHANGES)


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
        for record in recovery.records[base + 1 :]:
            if session is None or record.kind not in _CHANGES:
                raise CorruptRecordError(
                    f"channel {record.channel}: record {record.sequence_number} is no change of"
                    " a state before it"
                )
            if record.kind is RecordKind.CHANGE:
                session.apply(decode_change(record.payload))
                continue
            for change in decode_change_runs(record.payload):
                session.apply(change)
    except InconsistentChangeError as error:
        raise CorruptRecordError(f"a channel's records don't add up: {error}") from error
    return session
