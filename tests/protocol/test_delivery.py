"""The delivery window: what is answered again, what is a replay, and what is kept for how long."""

import itertools
import os
from collections.abc import Callable

import pytest

from connect_actor.errors import (
    AuthenticationFailedError,
    ChannelExpiredError,
    IdempotencyKeyReusedError,
    MalformedRequestError,
    MessageReplayedError,
)
from connect_actor.protocol import primitives
from connect_actor.protocol.changes import (
    Acknowledged,
    Change,
    IdempotentSend,
    InconsistentChangeError,
    Received,
    Sent,
)
from connect_actor.protocol.delivery import Delivered
from connect_actor.protocol.handshake import ChannelLimits
from connect_actor.protocol.limits import MAX_REDELIVERY_WINDOW
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.session import Session
from connect_actor.stored.v1 import session_pb2 as stored
from tests.protocol.refusals import with_header
from tests.support.channels import NOW, Ends, make_ends

KEY = b"a key"
ONCE = IdempotentSend(KEY, bytes(32), bytes(12), 0, NOW)


def ends_with(window: int, every: int = 10) -> Ends:
    return make_ends(1, ChannelLimits(dh_ratchet_every=every, redelivery_window=window))


def again(session: Session, payload: Payload) -> Delivered[bytes] | None:
    return session.decrypted_before(payload, now=NOW)


def send_once(ends: Ends, key: bytes = KEY, plaintext: bytes = b"down") -> tuple[Payload, Sent]:
    return ends.service.encrypt(
        plaintext, now=NOW, random=ends.random, request_id=7, idempotency_key=key
    )


def sent_again(
    session: Session, key: bytes = KEY, plaintext: bytes = b"down", request_id: int = 7
) -> Delivered[Payload] | None:
    return session.encrypted_before(
        plaintext, now=NOW + 1, idempotency_key=key, request_id=request_id
    )


def kept(session: Session) -> list[bytes]:
    """Return the message keys that a session's stored form holds for redelivery."""
    state = stored.SessionState.FromString(session.encode())
    return [delivery.message_key for delivery in state.deliveries.kept]


# --- Received messages ----------------------------------------------------------------------------


def test_the_very_same_payload_is_answered_again_and_changes_nothing() -> None:
    ends = ends_with(4)
    payload = ends.up(b"once")
    assert ends.at_service(payload) == b"once"
    before = ends.service.encode()
    for _ in range(3):
        assert again(ends.service, payload) == Delivered(b"once", 1, redelivered=True)
    assert ends.service.encode() == before


def test_a_payload_that_has_not_arrived_is_no_redelivery() -> None:
    ends = ends_with(4)
    ends.at_service(ends.up())
    assert again(ends.service, ends.up()) is None


def test_decrypt_itself_calls_a_repetition_a_replay() -> None:
    ends = ends_with(4)
    payload = ends.up()
    ends.at_service(payload)
    with pytest.raises(MessageReplayedError):
        ends.at_service(payload)
    assert ends.service.last_delivery_number == 1


@pytest.mark.parametrize("place", ["head", "skipped", "a chain long forgotten"])
def test_any_other_byte_at_a_used_place_is_a_replay(place: str) -> None:
    ends = ends_with(4, every=1)
    payload = ends.up(b"once")
    if place == "skipped":
        ends.at_service(ends.up())
    ends.at_service(payload)
    if place == "a chain long forgotten":
        for _ in range(3):
            ends.at_peer(ends.down())
            ends.at_service(ends.up())
    header = payload.header
    altered = [
        with_header(payload, request_id=header.request_id ^ 1),
        with_header(payload, created_at=header.created_at + 1),
        with_header(payload, previous_chain_length=header.previous_chain_length + 1),
        payload._replace(nonce=bytes(12)),
        payload._replace(ciphertext=payload.ciphertext + b"\x00"),
        *(
            payload._replace(ciphertext=flipped(payload.ciphertext, position))
            for position in range(len(payload.ciphertext))
        ),
    ]
    before = ends.service.encode()
    for forged in altered:
        with pytest.raises(MessageReplayedError):
            again(ends.service, forged)
    assert ends.service.encode() == before
    delivered = again(ends.service, payload)
    assert delivered is not None
    assert delivered.result == b"once"


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def test_two_messages_sealed_with_one_message_key_are_not_told_as_one() -> None:
    # A peer that breaks the protocol: both are authentic, at the same place.
    ends = ends_with(4)
    chain = ends.peer.ratchet.sending
    assert chain is not None
    message_key, _ = primitives.step_chain(chain.chain_key)
    first = ends.up(b"one")
    second = ends.peer.ratchet.seal(first.header, bytes(12), b"two", message_key)
    assert ends.at_service(first) == b"one"
    with pytest.raises(MessageReplayedError):
        again(ends.service, second)


def test_a_malformed_payload_is_refused_as_at_first() -> None:
    ends = ends_with(4)
    payload = ends.up()
    ends.at_service(payload)
    with pytest.raises(MalformedRequestError):
        again(ends.service, payload._replace(nonce=b""))
    with pytest.raises(MalformedRequestError):
        again(ends.service, with_header(payload, request_id=-1))


def test_a_forged_message_is_no_delivery() -> None:
    ends = ends_with(4)
    payload = ends.up()
    with pytest.raises(AuthenticationFailedError):
        ends.at_service(payload._replace(ciphertext=bytes(40)))
    assert ends.service.last_delivery_number == 0
    assert kept(ends.service) == []


# --- Sent messages --------------------------------------------------------------------------------


def test_the_same_key_and_request_give_the_same_bytes_and_change_nothing() -> None:
    ends = ends_with(4, every=1)
    payload, change = send_once(ends)
    assert change.once is not None
    before = ends.service.encode()
    for _ in range(3):
        assert sent_again(ends.service) == Delivered(payload, 1, redelivered=True)
    assert ends.service.encode() == before
    assert ends.at_peer(payload) == b"down"


def test_a_repetition_is_the_same_also_once_the_ratchet_has_turned() -> None:
    ends = ends_with(9, every=1)
    ends.round_trip()
    payload, _ = send_once(ends)
    ends.round_trip()
    ends.round_trip()
    delivered = sent_again(ends.service)
    assert delivered is not None
    assert delivered.result == payload


@pytest.mark.parametrize(("plaintext", "request_id"), [(b"other", 7), (b"down", 8), (b"", 7)])
def test_a_key_never_seals_anything_else(plaintext: bytes, request_id: int) -> None:
    ends = ends_with(4)
    send_once(ends)
    before = ends.service.encode()
    with pytest.raises(IdempotencyKeyReusedError):
        sent_again(ends.service, KEY, plaintext, request_id)
    with pytest.raises(IdempotencyKeyReusedError):
        ends.service.encrypt(plaintext, now=NOW, random=ends.random, idempotency_key=KEY)
    assert ends.service.encode() == before


def test_a_request_id_beyond_64_bits_is_malformed_as_at_first() -> None:
    ends = ends_with(4)
    send_once(ends)
    for request_id in (-1, 2**64):
        with pytest.raises(MalformedRequestError):
            sent_again(ends.service, request_id=request_id)
        with pytest.raises(MalformedRequestError):
            ends.service.encrypt(
                b"", now=NOW, random=ends.random, request_id=request_id, idempotency_key=b"new"
            )


@pytest.mark.parametrize(("size", "accepted"), [(1, True), (64, True), (65, False)])
def test_an_idempotency_key_has_64_bytes_at_most(size: int, *, accepted: bool) -> None:
    ends = ends_with(4)
    if accepted:
        assert send_once(ends, bytes(size))[1].once is not None
        return
    before = ends.service.encode()
    for attempt in (send_once, lambda ends, key: sent_again(ends.service, key)):
        with pytest.raises(MalformedRequestError, match=f"{size} bytes"):
            attempt(ends, bytes(size))
    assert ends.service.encode() == before


def test_without_a_key_nothing_is_kept_and_the_change_is_as_ever() -> None:
    ends = ends_with(4)
    _, change = ends.service.encrypt(b"x", now=NOW, random=ends.random)
    assert change.once is None
    assert kept(ends.service) == []
    assert ends.service.last_delivery_number == 0


# --- Without a window -----------------------------------------------------------------------------


def test_without_a_window_nothing_is_kept_nor_written() -> None:
    ends = ends_with(0)
    payload = ends.up()
    _, change = ends.service.decrypt(payload, now=NOW)
    assert change == Received(0)
    assert again(ends.service, payload) is None
    assert not stored.SessionState.FromString(ends.service.encode()).HasField("deliveries")


def test_without_a_window_an_idempotency_key_is_refused_instead_of_ignored() -> None:
    ends = ends_with(0)
    before = ends.service.encode()
    for attempt in (send_once, lambda ends: sent_again(ends.service)):
        with pytest.raises(MalformedRequestError, match="redelivery_window is 0"):
            attempt(ends)
    with pytest.raises(MalformedRequestError, match="redelivery_window is 0"):
        ends.service.acknowledge(1, now=NOW)
    assert ends.service.encode() == before


# --- What is kept, and for how long ---------------------------------------------------------------


def test_of_both_kinds_together_the_oldest_falls_out_first() -> None:
    ends = ends_with(3)
    payloads: dict[int, Payload] = {}
    for number in range(1, 9):
        if number % 2:
            payloads[number] = ends.up(b"%d" % number)
            ends.at_service(payloads[number])
        else:
            payloads[number] = send_once(ends, b"%d" % number)[0]
        assert ends.service.last_delivery_number == number
        assert len(kept(ends.service)) == min(number, 3)
    for number in range(1, 9):
        delivered = (
            again(ends.service, payloads[number])
            if number % 2
            else sent_again(ends.service, b"%d" % number)
        )
        assert (delivered is not None) == (number > 5)
        assert delivered is None or delivered.number == number


def test_a_key_that_has_fallen_out_seals_anew_with_another_message_key() -> None:
    ends = ends_with(1)
    first, _ = send_once(ends)
    send_once(ends, b"another key")
    assert sent_again(ends.service) is None
    second, _ = send_once(ends)
    assert second.header.message_number == first.header.message_number + 2
    assert second.nonce != first.nonce


def test_whatever_falls_out_takes_its_message_key_with_it() -> None:
    ends = ends_with(2)
    ends.at_service(ends.up())
    (oldest,) = kept(ends.service)
    ends.at_service(ends.up())
    assert oldest in ends.service.encode()
    send_once(ends)
    assert len(kept(ends.service)) == 2
    assert oldest not in ends.service.encode()
    assert oldest.hex() not in repr(ends.service)


@pytest.mark.parametrize("size", [1, MAX_REDELIVERY_WINDOW])
def test_a_window_is_bounded(size: int) -> None:
    ends = ends_with(size)
    for _ in range(size + 1):
        ends.at_service(ends.up())
    assert len(kept(ends.service)) == size


def test_a_window_beyond_the_bound_is_refused() -> None:
    ChannelLimits(redelivery_window=MAX_REDELIVERY_WINDOW)
    for size in (-1, MAX_REDELIVERY_WINDOW + 1):
        with pytest.raises(ValueError, match="redelivery_window"):
            ChannelLimits(redelivery_window=size)


def test_after_its_lifetime_a_channel_delivers_nothing_again_but_forgets_nothing() -> None:
    """The clock that says so may be wrong: whoever asks again with a right one has its answer."""
    ends = ends_with(4)
    payload = ends.up()
    ends.at_service(payload)
    end = ends.service.expires_at
    before = ends.service.encode()
    attempts: list[Callable[[], object]] = [
        lambda: ends.service.decrypted_before(payload, now=end),
        lambda: ends.service.encrypted_before(b"x", now=end, idempotency_key=b"k"),
        lambda: ends.service.decrypt(payload, now=end),
        lambda: ends.service.encrypt(b"x", now=end, random=os.urandom, idempotency_key=b"k"),
        lambda: ends.service.acknowledge(1, now=end),
        lambda: ends.service.require_alive(end),
    ]
    for attempt in attempts:
        with pytest.raises(ChannelExpiredError):
            attempt()
    assert ends.service.encode() == before
    assert ends.service.decrypted_before(payload, now=end - 1) is not None


# --- Acknowledging --------------------------------------------------------------------------------


@pytest.mark.parametrize("up_to", [1, 2, 3, 4])
def test_an_acknowledgement_closes_everything_up_to_its_number(up_to: int) -> None:
    ends = ends_with(5)
    payloads = [ends.up() for _ in range(4)]
    for payload in payloads:
        ends.at_service(payload)
    keys = kept(ends.service)
    assert ends.service.acknowledge(up_to, now=NOW) == Acknowledged(up_to)
    assert kept(ends.service) == keys[up_to:]
    for number, payload in enumerate(payloads, 1):
        assert (again(ends.service, payload) is None) == (number <= up_to)
    with pytest.raises(MessageReplayedError):
        ends.at_service(payloads[0])


def test_acknowledging_again_or_what_has_fallen_out_changes_nothing() -> None:
    ends = ends_with(2)
    for _ in range(4):
        ends.at_service(ends.up())
    before = ends.service.encode()
    assert ends.service.acknowledge(2, now=NOW) is None
    assert ends.service.encode() == before
    assert ends.service.acknowledge(3, now=NOW) == Acknowledged(3)
    before = ends.service.encode()
    for up_to in (1, 2, 3):
        assert ends.service.acknowledge(up_to, now=NOW) is None
    assert ends.service.encode() == before


@pytest.mark.parametrize("up_to", [-1, 0, 3, 2**64 - 1])
def test_a_number_that_no_delivery_has_had_is_refused(up_to: int) -> None:
    ends = ends_with(4)
    for _ in range(2):
        ends.at_service(ends.up())
    before = ends.service.encode()
    with pytest.raises(MalformedRequestError, match="from 1 to 2"):
        ends.service.acknowledge(up_to, now=NOW)
    assert ends.service.encode() == before


def test_numbers_go_on_after_an_acknowledgement() -> None:
    ends = ends_with(4)
    ends.at_service(ends.up())
    ends.service.acknowledge(1, now=NOW)
    send_once(ends)
    delivered = sent_again(Session.decode(ends.service.encode()))
    assert delivered is not None
    assert delivered.number == 2


# --- Stored form ----------------------------------------------------------------------------------


def test_a_window_comes_back_as_it_was_stored_whatever_it_holds() -> None:
    ends = ends_with(5, every=2)
    for step in itertools.islice(itertools.product(range(3), repeat=3), 27):
        match step[-1]:
            case 0:
                send_once(ends, bytes(step) + b"key")
            case 1:
                ends.at_service(ends.up())
                ends.at_peer(ends.down())
            case _:
                late = ends.up()
                ends.at_service(ends.up())
                ends.at_service(late)
        if step == (1, 1, 1):
            ends.service.acknowledge(ends.service.last_delivery_number - 1, now=NOW)
        recovered = Session.decode(ends.service.encode())
        assert recovered == ends.service
        assert recovered.encode() == ends.service.encode()
        static, changing = ends.service.encode_static(), ends.service.encode_ratchet()
        assert static + changing == ends.service.encode()
    assert len(kept(ends.service)) == 5


@pytest.mark.parametrize("window", [0, 4])
def test_a_stored_session_whose_window_and_limit_disagree_is_refused(window: int) -> None:
    state = stored.SessionState.FromString(ends_with(window).service.encode())
    state.limits.redelivery_window = 4 - window
    with pytest.raises(InconsistentChangeError, match="lacks a part"):
        Session.decode(state.SerializeToString())


@pytest.mark.parametrize(
    "fault",
    [
        "more than it may hold",
        "more than there were",
        "twice",
        "no ratchet key",
        "a short message key",
        "no digest",
        "both kinds at once",
    ],
)
def test_a_stored_window_that_no_channel_can_have_is_refused(fault: str) -> None:
    ends = ends_with(3)
    for _ in range(3):
        ends.at_service(ends.up())
    state = stored.SessionState.FromString(ends.service.encode())
    window = state.deliveries
    match fault:
        case "more than it may hold":
            state.limits.redelivery_window = 2
        case "more than there were":
            window.last_number = 2
        case "twice":
            window.kept[1].index = window.kept[0].index
        case "no ratchet key":
            window.kept[0].ClearField("ratchet_key")
        case "a short message key":
            window.kept[1].message_key = bytes(31)
        case "no digest":
            window.kept[1].ClearField("digest")
        case "both kinds at once":
            window.kept[1].sent.SetInParent()
    with pytest.raises(InconsistentChangeError, match="delivery window"):
        Session.decode(state.SerializeToString())


@pytest.mark.parametrize(
    ("window", "change"),
    [
        (0, Received(0, digest=bytes(16))),
        (4, Received(1)),
        (0, Sent(1, once=ONCE)),
        (4, Sent(1, once=ONCE)),
        (0, Acknowledged(1)),
        (4, Acknowledged(0)),
        (4, Acknowledged(3)),
        (4, Acknowledged(2**64 - 1)),
    ],
    ids=[
        "a digest without a window",
        "no digest for the window",
        "an idempotent send without a window",
        "a key that is kept",
        "an acknowledgement without a window",
        "of none",
        "of what has not been",
        "of the largest",
    ],
)
def test_a_recorded_change_that_does_not_fit_the_window_is_refused(
    window: int, change: Change
) -> None:
    ends = ends_with(window)
    if window:
        send_once(ends)
        ends.at_service(ends.up())
    else:
        ends.down()
    with pytest.raises(InconsistentChangeError):
        ends.service.apply(change)


def test_a_recorded_acknowledgement_of_what_has_fallen_out_is_refused() -> None:
    ends = ends_with(2)
    for _ in range(3):
        ends.at_service(ends.up())
    with pytest.raises(InconsistentChangeError, match="no delivery 1"):
        ends.service.apply(Acknowledged(1))
