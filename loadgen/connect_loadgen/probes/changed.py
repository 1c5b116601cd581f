"""How many bytes of a session a message really changes: the values that differ, and no others."""

from google.protobuf.message import Message

from connect_actor.stored.v1 import session_pb2 as stored

__all__ = ["changed_bytes"]


def changed_bytes(before: stored.RatchetState, after: stored.RatchetState) -> int:
    """Return the size of every value in ``after`` that ``before`` does not hold at its place.

    Keys count with their length, numbers with that of their shortest encoding; the frame around
    them (tags, lengths) does not count, and neither does what has gone.
    """
    return _changed(before, after)


def _changed(before: Message | None, after: Message) -> int:
    total = 0
    for descriptor, value in after.ListFields():
        old = None
        if before is not None and (descriptor.is_repeated or _holds(before, descriptor.name)):
            old = getattr(before, descriptor.name)
        if descriptor.is_repeated:
            known = {item.SerializeToString() for item in old or ()}
            total += sum(
                _changed(None, item) for item in value if item.SerializeToString() not in known
            )
        elif isinstance(value, Message):
            total += _changed(old, value)
        elif value != old:
            total += _size(value)
    return total


def _holds(message: Message, name: str) -> bool:
    return any(descriptor.name == name for descriptor, _ in message.ListFields())


def _size(value: bytes | int) -> int:
    return len(value) if isinstance(value, bytes) else max(1, (value.bit_length() + 6) // 7)
