"""The stored form of changes is protobuf's own, byte for byte."""

from hypothesis import given

from connect_actor.protocol.changes import (
    Acknowledged,
    Change,
    Received,
    ReceivedSkipped,
    Sent,
    decode_change,
    encode_change,
)
from connect_actor.stored.v1 import session_pb2 as stored
from tests.support.changes import CHANGES


def by_protobuf(change: Change) -> stored.Change:
    match change:
        case Sent(index, private_key, once):
            message = stored.Change(kind=stored.Change.SENT, index=index, ratchet_key=private_key)
            if once is not None:
                message.sent.key = once.key
                message.sent.digest = once.digest
                message.sent.nonce = once.nonce
                message.sent.request_id = once.request_id
                message.sent.created_at_unix_micros = once.created_at
        case Received(index, ratchet_key, previous, digest):
            message = stored.Change(
                kind=stored.Change.RECEIVED,
                index=index,
                ratchet_key=ratchet_key,
                previous_chain_length=previous,
                digest=digest,
            )
        case ReceivedSkipped(index, chain_number, digest):
            message = stored.Change(
                kind=stored.Change.RECEIVED_SKIPPED,
                index=index,
                chain_number=chain_number,
                digest=digest,
            )
        case Acknowledged(number):
            message = stored.Change(kind=stored.Change.ACKNOWLEDGED, delivery_number=number)
    return message


@given(CHANGES)
def test_a_change_is_stored_as_protobuf_would_store_it(change: Change) -> None:
    encoded = encode_change(change)
    assert encoded == by_protobuf(change).SerializeToString(deterministic=True)
    assert decode_change(encoded) == change
