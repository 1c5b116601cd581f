"""Changes, sessions and payloads: there and back, their sizes, and what is no such thing."""

import struct
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connect_actor.protocol.changes import (
    Acknowledged,
    Change,
    IdempotentSend,
    InconsistentChangeError,
    Received,
    ReceivedSkipped,
    Sent,
    decode_change,
    encode_change,
)
from connect_actor.protocol.handshake import ChannelLimits
from connect_actor.protocol.keys import ChannelKeys, Identity, PrekeyBundle, encode_parts
from connect_actor.protocol.payload import Header, Payload
from connect_actor.protocol.primitives import KeyPair
from connect_actor.protocol.session import Session
from connect_actor.protocol.wire import (
    bundle_from_wire,
    bundle_to_wire,
    payload_from_wire,
    payload_to_wire,
)
from connect_actor.stored.v1 import session_pb2 as stored
from connect_actor.v1 import connect_pb2 as wire
from tests.protocol.weak_keys import WEAK_EXCHANGE_KEYS
from tests.support.changes import CHANGES
from tests.support.channels import NOW, make_ends, seeded

LARGEST = 2**32 - 1

uint32 = st.integers(0, LARGEST)
key = st.binary(min_size=32, max_size=32)
payloads = st.builds(
    Payload,
    st.builds(
        Header, key, uint32, uint32, st.integers(0, 2**64 - 1), st.integers(-(2**63), 2**63 - 1)
    ),
    st.binary(min_size=12, max_size=12),
    st.binary(min_size=16, max_size=80),
)


# --- Changes ----------------------------------------------------------------------------------


@given(CHANGES)
def test_a_change_comes_back_as_it_was_stored(change: Change) -> None:
    again = decode_change(encode_change(change))
    assert again == change
    assert type(again) is type(change)


@given(CHANGES, CHANGES)
def test_no_two_changes_are_stored_alike(one: Change, other: Change) -> None:
    alike = encode_change(one) == encode_change(other)
    assert alike == ((type(one), one) == (type(other), other))


def test_a_change_takes_16_bytes_at_most_and_64_with_a_turn_up_to_the_largest_indexes() -> None:
    assert len(encode_change(Sent(LARGEST))) == 8
    assert len(encode_change(Received(LARGEST))) == 8
    assert len(encode_change(ReceivedSkipped(LARGEST, LARGEST))) == 14
    assert len(encode_change(Sent(LARGEST, bytes(32)))) == 42
    assert len(encode_change(Received(LARGEST, bytes(32), LARGEST))) == 48


def test_a_delivery_adds_18_bytes_to_what_was_received_and_some_70_to_what_was_sent() -> None:
    digest = bytes(16)
    assert len(encode_change(Received(9, digest=digest))) == 4 + 18
    assert len(encode_change(ReceivedSkipped(9, 3, digest))) == 6 + 18
    once = IdempotentSend(b"8 bytes.", bytes(32), bytes(12), 0, NOW)
    assert len(encode_change(Sent(9, once=once))) == 4 + 69
    assert len(encode_change(Acknowledged(9))) == 4


def test_a_typical_change_takes_4_bytes_and_about_40_with_a_turn() -> None:
    assert len(encode_change(Sent(9))) == 4
    assert len(encode_change(Received(9))) == 4
    assert len(encode_change(ReceivedSkipped(9, 3))) == 6
    assert len(encode_change(Sent(0, bytes(32)))) == 36
    assert len(encode_change(Received(0, bytes(32), 10))) == 38


@pytest.mark.parametrize("kind", [0, 5, 99])
def test_an_unknown_kind_of_change_is_refused(kind: int) -> None:
    # As a later version would write it: tag of field 1, then the number.
    with pytest.raises(InconsistentChangeError, match=f"unknown kind of change: {kind}"):
        decode_change(bytes([0x08, kind, 0x10, 1]))


def test_an_empty_change_is_refused() -> None:
    with pytest.raises(InconsistentChangeError, match="unknown kind"):
        decode_change(b"")


def test_bytes_that_are_no_change_are_refused() -> None:
    with pytest.raises(InconsistentChangeError, match="can't be parsed"):
        decode_change(b"\xff\xff")


@pytest.mark.parametrize("size", [1, 31, 33])
def test_a_change_with_a_key_of_another_size_is_refused(size: int) -> None:
    garbled = stored.Change(kind=stored.Change.SENT, index=1, ratchet_key=bytes(size))
    with pytest.raises(InconsistentChangeError, match=f"{size} bytes"):
        decode_change(garbled.SerializeToString())


@pytest.mark.parametrize("size", [1, 15, 17])
def test_a_change_with_a_digest_of_another_size_is_refused(size: int) -> None:
    garbled = stored.Change(kind=stored.Change.RECEIVED, index=1, digest=bytes(size))
    with pytest.raises(InconsistentChangeError, match=f"{size} bytes"):
        decode_change(garbled.SerializeToString())


@pytest.mark.parametrize(
    ("key_size", "digest_size", "nonce_size"),
    [(0, 32, 12), (65, 32, 12), (1, 31, 12), (1, 32, 11)],
)
def test_an_idempotent_send_with_a_part_of_another_size_is_refused(
    key_size: int, digest_size: int, nonce_size: int
) -> None:
    garbled = stored.Change(
        kind=stored.Change.SENT,
        sent=stored.IdempotentSend(
            key=bytes(key_size), digest=bytes(digest_size), nonce=bytes(nonce_size)
        ),
    )
    with pytest.raises(InconsistentChangeError, match="wrong size"):
        decode_change(garbled.SerializeToString())


KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (Sent(1), "not the next one"),
        (Sent(3), "not the next one"),
        (Sent(0, KEY), "not due"),
        (Received(1), "not ahead"),
        (Received(2 + 8), "never accepted"),
        (Received(LARGEST), "never accepted"),
        (Received(0, WEAK_EXCHANGE_KEYS[0]), "small order"),
        (Received(0, KEY, 2 + 8), "never accepted"),
        (Received(8, KEY, 2), "never accepted"),
        (Received(LARGEST, KEY, LARGEST), "never accepted"),
        (ReceivedSkipped(0, 1), "no skipped key 0"),
        (ReceivedSkipped(1, 1), "no skipped key 1"),
        (ReceivedSkipped(0, 2), "no skipped key 0 on chain 2"),
    ],
    ids=str,
)
def test_a_change_that_does_not_follow_is_refused_at_little_cost(change: Change, said: str) -> None:
    # The service has sent two and received two, and the peer may turn.
    ends = make_ends(1, ChannelLimits(max_skip=7))
    ends.round_trip()
    ends.round_trip()
    with pytest.raises(InconsistentChangeError, match=said):
        ends.service.apply(change)


def test_a_turn_that_is_not_due_is_refused() -> None:
    ends = make_ends()
    with pytest.raises(InconsistentChangeError, match="not due"):
        ends.service.apply(Received(0, KEY, 0))  # it has not turned itself yet
    with pytest.raises(InconsistentChangeError, match="not due"):
        ends.peer.apply(Sent(0, KEY))  # it has no key of the service yet


@pytest.mark.parametrize("missing", [7, 8])
def test_a_record_is_bounded_as_a_message_is(missing: int) -> None:
    ends = make_ends(1, ChannelLimits(max_skip=7))
    if missing == 7:
        ends.service.apply(Received(missing))
        assert ends.service.ratchet.skipped_keys == 7
    else:
        with pytest.raises(InconsistentChangeError):
            ends.service.apply(Received(missing))


# --- Sessions ---------------------------------------------------------------------------------


def test_a_session_comes_back_as_it_was_stored_at_every_step() -> None:
    ends = make_ends(1, ChannelLimits(dh_ratchet_every=2))
    sessions = [ends.peer, ends.service]
    for step in range(20):
        for session in sessions:
            encoded = session.encode()
            assert Session.decode(encoded) == session
            assert Session.decode(encoded).encode() == encoded
            assert session.encode_static() + session.encode_ratchet() == encoded
        if step % 3:
            ends.up()
        ends.at_service(ends.up())
        if step % 2:
            ends.down()
        ends.at_peer(ends.down())


@pytest.mark.parametrize("part", ["channel_keys", "handshake", "limits", "ratchet"])
def test_a_stored_session_without_one_of_its_parts_is_refused(part: str) -> None:
    state = stored.SessionState.FromString(make_ends().service.encode())
    state.ClearField(part)  # type: ignore[arg-type] # one of the four
    with pytest.raises(InconsistentChangeError, match="lacks a part"):
        Session.decode(state.SerializeToString())


def test_bytes_that_are_no_session_are_refused() -> None:
    with pytest.raises(InconsistentChangeError, match="can't be parsed"):
        Session.decode(b"\xff\xff")


def test_a_recovered_own_key_has_its_public_half() -> None:
    ends = make_ends()
    ends.down()
    recovered = Session.decode(ends.service.encode())
    own, kept = recovered.ratchet.own_key, ends.service.ratchet.own_key
    assert own is not None
    assert kept is not None
    assert own.public_key == kept.public_key
    assert own.exchange(KEY) == kept.exchange(KEY)


# --- On the wire ------------------------------------------------------------------------------


@given(payloads)
def test_a_payload_comes_back_as_it_was_sent(payload: Payload) -> None:
    message = wire.CipherPayload()
    payload_to_wire(payload, message)
    again = wire.CipherPayload.FromString(message.SerializeToString())
    assert payload_from_wire(again) == payload


def test_each_part_of_a_payload_has_its_field() -> None:
    message = wire.CipherPayload()
    payload_to_wire(Payload(Header(b"k" * 32, 2, 3, 4, 5), b"n" * 12, b"c" * 16), message)
    assert message == wire.CipherPayload(
        request_id=4,
        nonce=b"n" * 12,
        ratchet_index=3,
        previous_chain_length=2,
        ciphertext=b"c" * 16,
        created_at_unix_micros=5,
        dh_public_key=b"k" * 32,
    )


def test_a_header_is_authenticated_as_these_56_bytes() -> None:
    header = Header(bytes(range(32)), 0x01020304, 0x05060708, 0x1112131415161718, -2)
    assert header.encode() == (
        bytes(range(32)) + bytes.fromhex("01020304 05060708 1112131415161718 fffffffffffffffe")
    )


@given(payloads, payloads)
def test_no_two_headers_are_authenticated_alike(one: Payload, other: Payload) -> None:
    assert (one.header.encode() == other.header.encode()) == (one.header == other.header)
    assert struct.calcsize(">32sIIQq") == len(one.header.encode())


@pytest.mark.parametrize("one_time_prekeys", [0, 1, 10])
def test_a_bundle_comes_back_as_it_was_sent(one_time_prekeys: int) -> None:
    identity = Identity.generate(seeded(1))
    pairs = partial(KeyPair.generate, seeded(2))
    bundle = ChannelKeys.generate(identity, pairs, one_time_prekeys).offer(identity, b"here")
    sent = bundle_to_wire(bundle).SerializeToString()
    again = bundle_from_wire(wire.PrekeyBundle.FromString(sent))
    assert again == bundle
    again.require_acceptable(b"here")


@given(st.lists(st.binary(max_size=4), max_size=4), st.lists(st.binary(max_size=4), max_size=4))
def test_no_two_lists_of_parts_encode_alike(one: list[bytes], other: list[bytes]) -> None:
    assert (encode_parts(*one) == encode_parts(*other)) == (one == other)


def test_what_a_bundles_signature_covers_is_laid_out_so() -> None:
    bundle = PrekeyBundle(b"I" * 32, b"X" * 32, 7, b"S" * 32, ((1, b"P" * 32), (9, b"Q" * 32)), b"")
    assert bundle.content(b"ctx") == (
        b"\0\0\0\x1econnect-actor prekey bundle v1"
        b"\0\0\0\x03ctx"
        b"\0\0\0\x20" + b"I" * 32 + b"\0\0\0\x20" + b"X" * 32 + b"\0\0\0\x04\0\0\0\x07"
        b"\0\0\0\x20"
        + b"S" * 32
        + b"\0\0\0\x24\0\0\0\x01"
        + b"P" * 32
        + b"\0\0\0\x24\0\0\0\x09"
        + b"Q" * 32
    )


def test_a_time_is_authenticated_with_its_message() -> None:
    ends = make_ends()
    assert ends.up().header.created_at == NOW
