"""What broke the audited server's ratchet, one test each.

The numbers are those of section 9 of the study of that server (`reference/ecliptix-server.md`).
Its ratchet turned every ten messages, so most of these look at a chain's end.
"""

import pytest

from connect_actor.errors import (
    AuthenticationFailedError,
    MessageReplayedError,
    SkipLimitExceededError,
)
from connect_actor.protocol.handshake import ChannelLimits
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.primitives import KeyPair
from connect_actor.protocol.session import Session
from tests.protocol.refusals import refused, with_header
from tests.support.channels import NOW, Ends, make_ends, seeded

HOUR = 3_600_000_000


def goes_on(ends: Ends, rounds: int = 25) -> None:
    """Expect a channel in which both ends understand each other, through several turns."""
    turns = ends.service.ratchet.receiving_turns
    for _ in range(rounds):
        ends.round_trip()
    assert ends.service.ratchet.receiving_turns > turns


def test_fault_8_messages_out_of_order_do_not_break_the_chain() -> None:
    # There 1, 2, 4, 3 set the index back, and from 5 on all failed.
    ends = make_ends()
    payloads = [ends.up(b"%d" % number) for number in range(1, 10)]
    for number in (1, 2, 4, 3, 5, 6, 9, 7, 8):
        assert ends.at_service(payloads[number - 1]) == b"%d" % number
    goes_on(ends)


def test_fault_9_the_last_message_before_a_turn_may_be_lost() -> None:
    ends = make_ends()
    for _ in range(9):
        ends.round_trip()
    ends.up()  # the tenth and last of its chain: lost
    turned = ends.up(b"turned")
    assert turned.header.message_number == 0
    assert ends.at_service(turned) == b"turned"
    goes_on(ends)


def test_fault_9_the_message_that_carries_the_new_key_may_be_lost() -> None:
    ends = make_ends()
    for _ in range(10):
        ends.round_trip()
    lost = ends.up()
    assert lost.header.message_number == 0
    assert ends.at_service(ends.up(b"the second of its chain")) == b"the second of its chain"
    goes_on(ends)


def test_fault_9_both_and_all_between_them_may_be_lost() -> None:
    ends = make_ends()
    for _ in range(8):
        ends.round_trip()
    for _ in range(7):
        ends.up()
    assert ends.at_service(ends.up(b"there")) == b"there"
    goes_on(ends)


@pytest.mark.parametrize("every", [1, 2, 10])
def test_fault_10_turns_that_cross_in_flight_harm_nothing(every: int) -> None:
    ends = make_ends(1, ChannelLimits(dh_ratchet_every=every))
    for _ in range(4 * every):
        ups = [ends.up(b"up") for _ in range(3)]
        downs = [ends.down(b"down") for _ in range(3)]
        assert [ends.at_peer(payload) for payload in downs] == [b"down"] * 3
        assert [ends.at_service(payload) for payload in reversed(ups)] == [b"up"] * 3
    goes_on(ends)


def test_fault_11_a_lost_reply_with_the_new_key_does_not_end_the_session() -> None:
    ends = make_ends(1, ChannelLimits(dh_ratchet_every=1))
    ends.round_trip()
    ends.at_service(ends.up())
    lost = ends.down()
    # The request is repeated, as a new message, and its reply arrives.
    ends.at_service(ends.up())
    reply = ends.down(b"the reply")
    assert reply.header.ratchet_key == lost.header.ratchet_key
    assert ends.at_peer(reply) == b"the reply"
    # So does the lost one, in the end.
    assert ends.at_peer(lost) == b"down"
    goes_on(ends)


def test_fault_12_no_clock_decides_about_turns() -> None:
    # There an end turned by its own clock after an hour, which a recovery had reset at the other.
    ends = make_ends()
    for hours in range(1, 20):
        ends.service = Session.decode(ends.service.encode())
        payload, _ = ends.peer.encrypt(b"late", now=NOW + hours * HOUR, random=ends.random)
        # The clocks may even run apart.
        assert ends.service.decrypt(payload, now=NOW + (19 - hours) * HOUR)[0] == b"late"
    assert ends.service.ratchet.receiving_turns == 1
    goes_on(ends)


def forged_key(payload: Payload) -> Payload:
    return with_header(payload, ratchet_key=KeyPair(seeded(9)(32)).public_key)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"message_number": 100_000}, SkipLimitExceededError),
        ({"message_number": 2**32 - 2}, SkipLimitExceededError),
        ({"message_number": 500}, AuthenticationFailedError),
    ],
    ids=["far", "near 2**32", "within the limit"],
)
def test_fault_13_a_forged_index_changes_nothing(
    fields: dict[str, int], error: type[Exception]
) -> None:
    ends = make_ends()
    payload = ends.up()
    refused(ends.service, with_header(payload, **fields), error)
    assert ends.at_service(payload) == b"up"
    goes_on(ends)


def test_fault_13_a_forged_key_turns_nothing() -> None:
    ends = make_ends()
    ends.round_trip()
    payload = ends.up()
    refused(ends.service, forged_key(payload), AuthenticationFailedError)
    refused(
        ends.service, forged_key(with_header(payload, message_number=0)), AuthenticationFailedError
    )
    assert ends.at_service(payload) == b"up"
    goes_on(ends)


def test_fault_13_key_index_and_all_else_are_authenticated() -> None:
    ends = make_ends()
    payload = ends.up()
    for name in ("message_number", "previous_chain_length", "request_id", "created_at"):
        altered = with_header(payload, **{name: getattr(payload.header, name) + 1})
        refused(ends.service, altered, AuthenticationFailedError)


def test_fault_14_a_recorded_message_is_still_a_replay_after_a_recovery() -> None:
    # There the replay window lived in memory only, and used keys in the stored state.
    ends = make_ends()
    recorded = [ends.up() for _ in range(5)]
    for number in (0, 1, 4, 3):
        ends.at_service(recorded[number])
    ends.service = Session.decode(ends.service.encode())
    for number in (0, 1, 3, 4):
        refused(ends.service, recorded[number], MessageReplayedError)
    ends.at_service(recorded[2])
    ends.service = Session.decode(ends.service.encode())
    refused(ends.service, recorded[2], MessageReplayedError)
    goes_on(ends)
    ends.service = Session.decode(ends.service.encode())
    for payload in recorded:
        refused(ends.service, payload, MessageReplayedError, AuthenticationFailedError)
