"""Forged messages: a clean refusal each, and a session that is as it was and goes on.

Every alteration is tried where a message's key can come from: the next of its chain, one further
ahead, a turn of the ratchet, or a key skipped before.
"""

from collections.abc import Callable

import pytest

from connect_actor.errors import (
    AuthenticationFailedError,
    MalformedRequestError,
    MessageReplayedError,
    SkipLimitExceededError,
)
from connect_actor.protocol.handshake import ChannelLimits
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.primitives import KeyPair
from tests.protocol.refusals import refused, with_header
from tests.protocol.weak_keys import WEAK_EXCHANGE_KEYS
from tests.support.channels import Ends, make_ends, seeded


def ends_and_next() -> tuple[Ends, Payload]:
    ends = make_ends(1, ChannelLimits(dh_ratchet_every=1))
    ends.round_trip()
    ends.at_service(ends.up())
    return ends, ends.up(b"the message")


def ends_and_ahead() -> tuple[Ends, Payload]:
    ends, _ = ends_and_next()
    return ends, ends.up(b"the message")


def ends_and_turn() -> tuple[Ends, Payload]:
    ends, _ = ends_and_next()
    ends.at_peer(ends.down())
    ends.up()
    return ends, ends.up(b"the message")


def ends_and_skipped() -> tuple[Ends, Payload]:
    ends, payload = ends_and_next()
    ends.at_service(ends.up())
    return ends, payload


def ends_and_skipped_on_an_older_chain() -> tuple[Ends, Payload]:
    ends, payload = ends_and_skipped()
    ends.at_peer(ends.down())
    ends.at_service(ends.up())
    return ends, payload


PLACES = {
    "next": ends_and_next,
    "ahead": ends_and_ahead,
    "turn": ends_and_turn,
    "skipped": ends_and_skipped,
    "skipped before": ends_and_skipped_on_an_older_chain,
}


def flipped(value: bytes, position: int) -> bytes:
    changed = bytearray(value)
    changed[position] ^= 0x80
    return bytes(changed)


def header(name: str, change: Callable[[int], int]) -> Callable[[Payload], Payload]:
    return lambda payload: with_header(payload, **{name: change(getattr(payload.header, name))})


def ratchet_key(change: Callable[[bytes], bytes]) -> Callable[[Payload], Payload]:
    return lambda payload: with_header(payload, ratchet_key=change(payload.header.ratchet_key))


def nonce(change: Callable[[bytes], bytes]) -> Callable[[Payload], Payload]:
    return lambda payload: payload._replace(nonce=change(payload.nonce))


def ciphertext(change: Callable[[bytes], bytes]) -> Callable[[Payload], Payload]:
    return lambda payload: payload._replace(ciphertext=change(payload.ciphertext))


OTHER_KEY = KeyPair(seeded(77)(32)).public_key
# Refused by the tag wherever the key comes from.
UNAUTHENTIC: dict[str, Callable[[Payload], Payload]] = {
    "previous length + 1": header("previous_chain_length", lambda n: n + 1),
    "previous length - 1": header("previous_chain_length", lambda n: n - 1 if n else 3),
    "request id": header("request_id", lambda n: n ^ 1),
    "time": header("created_at", lambda n: n + 1),
    "time before 1970": header("created_at", lambda n: -n),
    "nonce": nonce(lambda b: flipped(b, 0)),
    "nonce's end": nonce(lambda b: flipped(b, -1)),
    "ciphertext": ciphertext(lambda b: flipped(b, 0)),
    "tag's begin": ciphertext(lambda b: flipped(b, -16)),
    "tag's end": ciphertext(lambda b: flipped(b, -1)),
    "truncated by one": ciphertext(lambda b: b[:-1]),
    "truncated to a tag": ciphertext(lambda b: b[:16]),
    "truncated from the front": ciphertext(lambda b: b[1:]),
    "extended": ciphertext(lambda b: b + b"\0"),
    "extended in front": ciphertext(lambda b: b"\0" + b),
    "another key": ratchet_key(lambda _: OTHER_KEY),
    "the same key, otherwise encoded": ratchet_key(lambda b: flipped(b, 31)),
    "a weak key": ratchet_key(lambda _: WEAK_EXCHANGE_KEYS[0]),
}


@pytest.mark.parametrize("change", UNAUTHENTIC.values(), ids=UNAUTHENTIC)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_an_altered_message_is_refused_and_the_session_unharmed(
    place: Callable[[], tuple[Ends, Payload]], change: Callable[[Payload], Payload]
) -> None:
    ends, payload = place()
    altered = change(payload)
    assert altered != payload
    refused(ends.service, altered, AuthenticationFailedError)
    assert ends.at_service(payload) == b"the message"
    ends.round_trip()


INDEXES: dict[str, tuple[int, type[Exception]]] = {
    "next": (+1, AuthenticationFailedError),
    "ahead": (-1, AuthenticationFailedError),
    "turn": (-1, AuthenticationFailedError),
    "skipped": (+1, MessageReplayedError),
    "skipped before": (+1, MessageReplayedError),
}


@pytest.mark.parametrize("place", PLACES)
def test_another_index_is_refused_and_the_session_unharmed(place: str) -> None:
    ends, payload = PLACES[place]()
    step, error = INDEXES[place]
    number = payload.header.message_number
    refused(ends.service, with_header(payload, message_number=number + step), error)
    too_far = with_header(payload, message_number=2**32 - 2)
    kept = place == "skipped before"  # an older chain has no messages ahead
    refused(ends.service, too_far, MessageReplayedError if kept else SkipLimitExceededError)
    refused(ends.service, with_header(payload, message_number=2**32), MalformedRequestError)
    assert ends.at_service(payload) == b"the message"


def test_a_turn_that_claims_too_much_left_behind_is_refused() -> None:
    ends, payload = ends_and_turn()
    refused(
        ends.service,
        with_header(payload, previous_chain_length=2**32 - 1),
        SkipLimitExceededError,
    )
    assert ends.at_service(payload) == b"the message"


@pytest.mark.parametrize("position", range(4))
def test_every_byte_of_the_associated_data_counts(position: int) -> None:
    # Of the fields in the header, each has its own test; this is the ends' part.
    ends, payload = ends_and_next()
    bound = ends.service.ratchet.associated_data
    ends.service.ratchet.associated_data = flipped(bound, 8 * position)
    refused(ends.service, payload, AuthenticationFailedError)
    ends.service.ratchet.associated_data = bound
    assert ends.at_service(payload) == b"the message"


@pytest.mark.parametrize("due", [True, False], ids=["turn due", "no turn due"])
def test_a_message_of_another_channel_is_refused(due: bool) -> None:  # noqa: FBT001
    ends, payload = ends_and_next()
    other, foreign = make_ends(2), make_ends(3).up()
    if due:
        ends.down()
    refused(ends.service, foreign, AuthenticationFailedError)
    refused(ends.service, other.down(), AuthenticationFailedError)
    assert ends.at_service(payload) == b"the message"


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_message_reflected_to_its_sender_is_refused(
    place: Callable[[], tuple[Ends, Payload]],
) -> None:
    ends, payload = place()
    refused(ends.peer, payload, AuthenticationFailedError)
    own = ends.down()
    refused(ends.service, own, AuthenticationFailedError)
    assert ends.at_service(payload) == b"the message"
    assert ends.at_peer(own) == b"down"


def test_the_ciphertext_of_one_message_under_the_header_of_another_is_refused() -> None:
    ends, first = ends_and_next()
    second = ends.up(b"the second")
    refused(ends.service, first._replace(ciphertext=second.ciphertext), AuthenticationFailedError)
    refused(ends.service, first._replace(header=second.header), AuthenticationFailedError)
    mixed = second._replace(header=first.header, nonce=second.nonce)
    refused(ends.service, mixed, AuthenticationFailedError)
    assert ends.at_service(first) == b"the message"
    assert ends.at_service(second) == b"the second"


def test_a_thousand_forgeries_leave_the_session_as_it_was() -> None:
    ends, payload = ends_and_turn()
    random = seeded(5)
    stored = ends.service.encode()
    for _ in range(1_000):
        forged = with_header(
            payload,
            ratchet_key=random(32),
            message_number=int.from_bytes(random(1), "big") % 4,
            previous_chain_length=int.from_bytes(random(1), "big") % 4,
        )._replace(nonce=random(12), ciphertext=random(32))
        with pytest.raises(AuthenticationFailedError):
            ends.at_service(forged)
    assert ends.service.encode() == stored
    assert ends.at_service(payload) == b"the message"
