"""The ratchet, rule by rule, and every limit at N and N + 1."""

import copy
from collections import Counter
from dataclasses import replace

import pytest

from connect_actor.errors import (
    AuthenticationFailedError,
    ChannelExpiredError,
    MalformedRequestError,
    MessageReplayedError,
    SkipLimitExceededError,
)
from connect_actor.protocol import message_step, primitives
from connect_actor.protocol.changes import Received, ReceivedSkipped, Sent
from connect_actor.protocol.handshake import ChannelLimits
from connect_actor.protocol.payload import Payload
from connect_actor.protocol.primitives import KeyPair
from connect_actor.protocol.ratchet import MAX_SKIPPED_CHAINS
from connect_actor.protocol.session import Session
from tests.protocol.refusals import refused, with_header
from tests.protocol.weak_keys import WEAK_EXCHANGE_KEYS
from tests.support.channels import NOW, Ends, make_ends, seeded

UINT32 = 2**32


def classic(**limits: int) -> Ends:
    return make_ends(1, replace(ChannelLimits(), dh_ratchet_every=1, **limits))


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count what a ratchet does: chain steps, root steps, exchanges, decryptions.

    Of the Python code, since nothing can look into a native call.
    """
    monkeypatch.setattr(message_step, "_active", message_step.PYTHON)
    counts: Counter[str] = Counter()
    skip_chain = primitives.skip_chain

    def counted_skip(chain_key: bytes, messages: int) -> bytes:
        counts["skip_chain"] += messages
        return skip_chain(chain_key, messages)

    monkeypatch.setattr(primitives, "skip_chain", counted_skip)
    for owner, name in (
        (primitives, "step_chain"),
        (primitives, "step_root"),
        (primitives, "decrypt"),
        (KeyPair, "exchange"),
    ):
        original = getattr(owner, name)

        def counted(*arguments: object, _name: str = name, _original: object = original) -> object:
            counts[_name] += 1
            return _original(*arguments)  # type: ignore[operator] # one of the four

        monkeypatch.setattr(owner, name, counted)
    return counts


# --- Order of arrival -------------------------------------------------------------------------


def test_messages_of_one_chain_decrypt_in_any_order() -> None:
    ends = make_ends()
    payloads = [ends.up(str(number).encode()) for number in range(6)]
    for number in (5, 0, 3, 1, 4, 2):
        assert ends.at_service(payloads[number]) == str(number).encode()
    assert ends.service.ratchet.skipped_keys == 0


def test_messages_of_several_chains_decrypt_in_any_order() -> None:
    ends = classic()
    payloads = []
    for chain in range(4):
        payloads += [ends.up(b"%d %d" % (chain, number)) for number in range(3)]
        assert ends.at_service(payloads.pop()) == b"%d 2" % chain
        assert ends.at_peer(ends.down()) == b"down"
    for payload in reversed(payloads):
        ends.at_service(payload)
    assert ends.service.ratchet.skipped_keys == 0


def test_either_end_may_speak_first() -> None:
    ends = make_ends()
    assert ends.at_peer(ends.down(b"first")) == b"first"
    ends = make_ends()
    assert ends.at_service(ends.up(b"first")) == b"first"


def test_an_empty_message_is_a_message() -> None:
    ends = make_ends()
    assert ends.at_service(ends.up(b"")) == b""


@pytest.mark.parametrize("every", [1, 10])
def test_a_used_key_never_decrypts_again(every: int) -> None:
    ends = make_ends(1, ChannelLimits(dh_ratchet_every=every))
    in_order, late, ahead = ends.up(), ends.up(), ends.up()
    for payload in (in_order, ahead, late):
        ends.at_service(payload)
        refused(ends.service, payload, MessageReplayedError)
    for _ in range(12):
        ends.round_trip()
        for payload in (in_order, late, ahead):
            refused(ends.service, payload, MessageReplayedError, AuthenticationFailedError)


def test_a_used_key_is_still_used_after_a_recovery() -> None:
    ends = make_ends()
    first, second, third = ends.up(), ends.up(), ends.up()
    ends.at_service(third)
    ends.at_service(first)
    recovered = Session.decode(ends.service.encode())
    refused(recovered, third, MessageReplayedError)
    refused(recovered, first, MessageReplayedError)
    assert recovered.decrypt(second, now=NOW)[0] == b"up"


# --- Turns ------------------------------------------------------------------------------------


def ratchet_keys(payloads: list[Payload]) -> int:
    return len({payload.header.ratchet_key for payload in payloads})


@pytest.mark.parametrize("every", [1, 2, 10])
def test_a_due_turn_is_made_when_the_chain_has_so_many_messages_and_not_before(every: int) -> None:
    ends = make_ends(1, ChannelLimits(dh_ratchet_every=every))
    sent = []
    for _ in range(3 * every + 1):
        sent.append(ends.up())
        ends.at_service(sent[-1])
        # Makes the service's key new each time, if its own turn is due.
        ends.at_peer(ends.down())
    # The service answers each message, so a turn of the peer is due wherever the service's was.
    lengths = [payload.header.message_number for payload in sent]
    assert lengths[:every] == list(range(every))
    assert lengths[every] == 0
    assert sent[every].header.previous_chain_length == every
    assert sent[every].header.ratchet_key != sent[every - 1].header.ratchet_key


def test_without_a_newer_key_of_the_peer_no_turn_is_made() -> None:
    ends = classic()
    payloads = [ends.up() for _ in range(30)]
    assert ratchet_keys(payloads) == 1
    assert [payload.header.message_number for payload in payloads] == list(range(30))


def test_one_answer_allows_one_turn() -> None:
    ends = classic()
    ends.round_trip()
    assert ratchet_keys([ends.up() for _ in range(5)]) == 1
    ends.at_peer(ends.down())
    assert ratchet_keys([ends.up() for _ in range(5)]) == 1


def test_classic_ends_turn_with_every_change_of_direction() -> None:
    ends = classic()
    keys = []
    for _ in range(5):
        up = ends.up()
        ends.at_service(up)
        down = ends.down()
        ends.at_peer(down)
        keys += [up, down]
    assert ratchet_keys(keys) == 10


def test_turns_that_cross_in_flight_harm_nothing() -> None:
    ends = classic()
    for _ in range(5):
        up, down = ends.up(b"crossing up"), ends.down(b"crossing down")
        assert ends.at_peer(down) == b"crossing down"
        assert ends.at_service(up) == b"crossing up"
    ends.round_trip()


def test_the_own_private_key_is_erased_once_the_peer_has_turned_against_it() -> None:
    ends = classic()
    ends.at_service(ends.up())
    down, change = ends.service.encrypt(b"down", now=NOW, random=ends.random)
    private_key = change.ratchet_private_key
    assert private_key
    assert private_key in ends.service.encode()
    ends.at_peer(down)
    ends.at_service(ends.up())
    assert ends.service.ratchet.own_key is None
    assert private_key not in ends.service.encode()


def test_chain_and_message_keys_are_gone_once_used() -> None:
    ends = make_ends()
    chain = ends.service.ratchet.receiving
    assert chain is not None
    chain_key = chain.chain_key
    message_key, _ = primitives.step_chain(chain_key)
    ends.at_service(ends.up())
    stored = ends.service.encode()
    assert chain_key not in stored
    assert message_key not in stored


def test_changes_say_what_happened_and_no_more() -> None:
    ends = classic()
    first, _ = ends.peer.encrypt(b"", now=NOW, random=ends.random)
    second, change = ends.peer.encrypt(b"", now=NOW, random=ends.random)
    assert change == Sent(1)
    assert ends.service.decrypt(second, now=NOW)[1] == Received(1)
    assert ends.service.decrypt(first, now=NOW)[1] == ReceivedSkipped(0, 1)
    down, change = ends.service.encrypt(b"", now=NOW, random=ends.random)
    assert isinstance(change, Sent)
    assert KeyPair(change.ratchet_private_key).public_key == down.header.ratchet_key
    assert ends.peer.decrypt(down, now=NOW)[1] == Received(0, down.header.ratchet_key, 0)
    up, change = ends.peer.encrypt(b"", now=NOW, random=ends.random)
    assert isinstance(change, Sent)
    assert change.ratchet_private_key
    assert ends.service.decrypt(up, now=NOW)[1] == Received(0, up.header.ratchet_key, 2)


def test_every_message_has_a_nonce_of_its_own() -> None:
    ends = make_ends()
    assert len({ends.up().nonce for _ in range(200)}) == 200


# --- Limits, at N and N + 1 -------------------------------------------------------------------

SKIP = 7


def test_as_many_may_be_missing_on_a_chain_as_the_limit_says_and_no_more(
    work: Counter[str],
) -> None:
    ends = make_ends(1, ChannelLimits(max_skip=SKIP))
    payloads = [ends.up() for _ in range(2 * SKIP + 4)]
    work.clear()
    refused(
        ends.service, payloads[SKIP + 1], SkipLimitExceededError, match="comes 8 ahead .* at most 7"
    )
    assert not work
    ends.at_service(payloads[SKIP])
    # To the message by chain keys alone, its own key, and only then the keys of what is missing.
    assert work == {"skip_chain": SKIP, "step_chain": 1 + SKIP, "decrypt": 1}
    assert ends.service.ratchet.skipped_keys == SKIP
    # Counted from where the chain stands, not from its beginning.
    refused(ends.service, payloads[2 * SKIP + 2], SkipLimitExceededError)
    ends.at_service(payloads[2 * SKIP + 1])


def test_the_limit_holds_for_the_new_chain_of_a_turn(work: Counter[str]) -> None:
    ends = make_ends(1, ChannelLimits(dh_ratchet_every=1, max_skip=SKIP))
    ends.round_trip()
    payloads = [ends.up() for _ in range(SKIP + 2)]
    work.clear()
    refused(ends.service, payloads[SKIP + 1], SkipLimitExceededError)
    assert not work
    ends.at_service(payloads[SKIP])
    assert work == {
        "skip_chain": SKIP,
        "step_chain": 1 + SKIP,
        "decrypt": 1,
        "step_root": 1,
        "exchange": 1,
    }


@pytest.mark.parametrize("seen", [0, 2])
def test_the_limit_holds_for_what_a_turn_leaves_behind(seen: int, work: Counter[str]) -> None:
    for missing, accepted in ((SKIP, True), (SKIP + 1, False)):
        ends = make_ends(1, ChannelLimits(dh_ratchet_every=1, max_skip=SKIP))
        payloads = [ends.up() for _ in range(seen + missing)]
        for payload in payloads[:seen]:
            ends.at_service(payload)
        ends.at_peer(ends.down())
        turned = ends.up()
        assert turned.header.previous_chain_length == seen + missing
        work.clear()
        if accepted:
            ends.at_service(turned)
            assert work == {"step_chain": SKIP + 1, "decrypt": 1, "step_root": 1, "exchange": 1}
            for payload in payloads[seen:]:
                ends.at_service(payload)
        else:
            refused(ends.service, turned, SkipLimitExceededError)
            assert not work


def test_a_limit_of_none_takes_messages_in_order_only() -> None:
    ends = make_ends(1, ChannelLimits(dh_ratchet_every=1, max_skip=0))
    first, second = ends.up(), ends.up()
    refused(ends.service, second, SkipLimitExceededError)
    ends.at_service(first)
    ends.at_service(second)
    ends.at_peer(ends.down())
    ends.at_service(ends.up())


def test_skipped_keys_in_all_are_kept_up_to_the_limit_and_the_oldest_go_first() -> None:
    ends = make_ends(1, ChannelLimits(max_skip=20, max_skipped_keys=5))
    payloads = [ends.up() for _ in range(8)]
    ends.at_service(payloads[5])
    assert ends.service.ratchet.skipped_keys == 5
    ends.at_service(payloads[7])
    assert ends.service.ratchet.skipped_keys == 5
    refused(ends.service, payloads[0], MessageReplayedError, match="given up")
    for number in (1, 2, 3, 4, 6):
        ends.at_service(payloads[number])


def test_the_oldest_go_first_across_chains() -> None:
    ends = make_ends(1, ChannelLimits(dh_ratchet_every=1, max_skip=20, max_skipped_keys=4))
    old = [ends.up() for _ in range(4)]
    ends.at_service(old.pop())
    ends.at_peer(ends.down())
    new = [ends.up() for _ in range(3)]
    ends.at_service(new.pop())
    # Three old and two new: one too many.
    assert ends.service.ratchet.skipped_keys == 4
    refused(ends.service, old[0], MessageReplayedError)
    for payload in (*old[1:], *new):
        ends.at_service(payload)


def test_one_turn_may_fill_all_of_it_and_still_keeps_the_newest() -> None:
    ends = make_ends(1, ChannelLimits(dh_ratchet_every=1, max_skip=6, max_skipped_keys=6))
    old = [ends.up() for _ in range(6)]
    ends.at_peer(ends.down())
    new = [ends.up() for _ in range(7)]
    ends.at_service(new.pop())
    assert ends.service.ratchet.skipped_keys == 6
    for payload in old:
        # No turn is due, and nothing is kept of their chain.
        refused(ends.service, payload, AuthenticationFailedError)
    for payload in new:
        ends.at_service(payload)


@pytest.mark.parametrize(
    ("later", "kept"), [(MAX_SKIPPED_CHAINS - 1, True), (MAX_SKIPPED_CHAINS, False)]
)
def test_skipped_keys_live_for_so_many_chains(later: int, kept: bool) -> None:  # noqa: FBT001
    ends = classic()
    missing, arrived = ends.up(), ends.up()
    ends.at_service(arrived)
    for _ in range(later):
        ends.at_peer(ends.down())
        ends.at_service(ends.up())
    assert ends.service.ratchet.skipped_keys == int(kept)
    if kept:
        ends.at_service(missing)
    else:
        refused(ends.service, missing, AuthenticationFailedError)


def test_a_chain_ends_at_the_largest_index_that_can_be_written() -> None:
    ends = make_ends()
    for session in (ends.peer, ends.service):
        chain = session.ratchet.sending or session.ratchet.receiving
        assert chain is not None
        chain.next_index = UINT32 - 2
    last = ends.up(b"the last one")
    assert last.header.message_number == UINT32 - 2
    assert ends.at_service(last) == b"the last one"
    assert Session.decode(ends.service.encode()) == ends.service
    before = copy.deepcopy(ends.peer)
    with pytest.raises(ChannelExpiredError, match="no number left"):
        ends.up()
    assert ends.peer == before
    assert Session.decode(ends.peer.encode()) == ends.peer
    # A due turn begins a new chain, and all is well again.
    ends.at_peer(ends.down())
    assert ends.at_service(ends.up(b"anew")) == b"anew"


def test_turns_end_when_they_can_no_longer_be_counted(work: Counter[str]) -> None:
    ends = classic()
    ends.round_trip()
    ends.service.ratchet.receiving_turns = UINT32 - 2
    ends.at_service(ends.up())
    assert Session.decode(ends.service.encode()) == ends.service
    ends.at_peer(ends.down())
    turned = ends.up()
    work.clear()
    refused(ends.service, turned, ChannelExpiredError, match="turns")
    assert not work


# --- Work and memory are bounded whatever a header says ---------------------------------------

HOSTILE_INDEXES = [SKIP, SKIP + 1, 100_000, UINT32 - 2]
HOSTILE_KEYS = {
    "current": None,
    "unknown": KeyPair(seeded(99)(32)).public_key,
    "weak": WEAK_EXCHANGE_KEYS[0],
}


@pytest.mark.parametrize("previous", HOSTILE_INDEXES)
@pytest.mark.parametrize("index", HOSTILE_INDEXES)
@pytest.mark.parametrize("key", HOSTILE_KEYS.values(), ids=HOSTILE_KEYS)
@pytest.mark.parametrize("due", [True, False], ids=["turn due", "no turn due"])
def test_a_hostile_header_costs_a_bounded_amount_of_work(
    due: bool,  # noqa: FBT001
    key: bytes | None,
    index: int,
    previous: int,
    work: Counter[str],
) -> None:
    ends = make_ends(1, ChannelLimits(dh_ratchet_every=1, max_skip=SKIP))
    ends.at_service(ends.up())
    if due:
        ends.down()
    assert (ends.service.ratchet.own_key is not None) == due
    payload = ends.up()
    forged = with_header(payload, message_number=index, previous_chain_length=previous)
    if key is not None:
        forged = with_header(forged, ratchet_key=key)
    forged = forged._replace(ciphertext=bytes(16))
    work.clear()
    told = ends.service.ratchet.work_of(forged.header)
    assert not work
    refused(ends.service, forged, AuthenticationFailedError, SkipLimitExceededError)
    assert work["skip_chain"] <= told <= 2 * SKIP
    turning = key is not None and due
    assert work["step_chain"] <= 1
    assert work["skip_chain"] <= SKIP
    assert work["exchange"] <= (1 if turning else 0)
    assert work["step_root"] <= (1 if turning else 0)
    assert work["decrypt"] <= 1
    if index > SKIP + 1 or (key is not None and not due):
        assert not work


def test_the_peer_itself_can_demand_no_more_than_two_skips(work: Counter[str]) -> None:
    ends = make_ends(1, ChannelLimits(dh_ratchet_every=1, max_skip=SKIP))
    for _ in range(SKIP):
        ends.up()
    ends.at_peer(ends.down())
    payloads = [ends.up() for _ in range(SKIP + 1)]
    work.clear()
    told = ends.service.ratchet.work_of(payloads[-1].header)
    ends.at_service(payloads[-1])
    assert told == 2 * SKIP
    assert work == {
        "skip_chain": SKIP,
        "step_chain": 1 + 2 * SKIP,
        "decrypt": 1,
        "step_root": 1,
        "exchange": 1,
    }


def test_the_work_of_a_message_is_what_is_missing_before_it_as_far_as_its_header_says() -> None:
    ends = make_ends(1, ChannelLimits(dh_ratchet_every=1, max_skip=SKIP))
    payloads = [ends.up() for _ in range(SKIP + 2)]

    def told(number: int) -> int:
        return ends.service.ratchet.work_of(payloads[number].header)

    assert [told(number) for number in range(SKIP + 2)] == [*range(SKIP + 1), 0]
    ends.at_service(payloads[3])
    assert [told(number) for number in range(7)] == [0, 0, 0, 0, 0, 1, 2]
    # Of a chain that is left behind, too: those whose keys are kept take no step.
    ends.at_peer(ends.down())
    turned = ends.up()
    assert ends.service.ratchet.work_of(turned.header) == SKIP + 2 - 4
    ends.at_service(turned)
    assert [told(number) for number in range(SKIP + 2)] == [0] * (SKIP + 2)


def test_what_is_left_behind_is_derived_only_for_an_authentic_turn(work: Counter[str]) -> None:
    ends = make_ends(1, ChannelLimits(dh_ratchet_every=1, max_skip=SKIP))
    for _ in range(SKIP):
        ends.up()
    ends.at_peer(ends.down())
    turned = ends.up()
    work.clear()
    refused(ends.service, turned._replace(ciphertext=bytes(20)), AuthenticationFailedError)
    assert work == {"step_chain": 1, "decrypt": 1, "step_root": 1, "exchange": 1}


@pytest.mark.parametrize(
    "fields",
    [
        {"message_number": UINT32 - 1},
        {"message_number": UINT32},
        {"message_number": -1},
        {"previous_chain_length": UINT32},
        {"previous_chain_length": -1},
        {"ratchet_key": b""},
        {"ratchet_key": bytes(31)},
        {"ratchet_key": bytes(33)},
        {"request_id": -1},
        {"request_id": 2**64},
        {"created_at": 2**63},
        {"created_at": -(2**63) - 1},
    ],
    ids=str,
)
def test_a_header_that_no_wire_can_carry_is_refused(
    fields: dict[str, object], work: Counter[str]
) -> None:
    ends = make_ends()
    altered = with_header(ends.up(), **fields)
    work.clear()
    refused(ends.service, altered, MalformedRequestError)
    assert work["step_chain"] == 0
    assert work["decrypt"] == 0


@pytest.mark.parametrize("size", [0, 11, 13])
def test_a_nonce_of_another_size_is_refused(size: int) -> None:
    ends = make_ends()
    refused(ends.service, ends.up()._replace(nonce=bytes(size)), MalformedRequestError, match="12")


@pytest.mark.parametrize("size", [0, 15])
def test_a_ciphertext_without_room_for_its_tag_is_refused(size: int) -> None:
    ends = make_ends()
    refused(
        ends.service, ends.up()._replace(ciphertext=bytes(size)), MalformedRequestError, match="16"
    )


@pytest.mark.parametrize(
    ("request_id", "now"), [(-1, NOW), (2**64, NOW), (0, -(2**63) - 1)], ids=str
)
def test_what_no_header_can_carry_is_not_sent(request_id: int, now: int) -> None:
    ends = make_ends()
    before = copy.deepcopy(ends.peer)
    with pytest.raises(MalformedRequestError):
        ends.peer.encrypt(b"", now=now, random=ends.random, request_id=request_id)
    assert ends.peer == before


def test_the_largest_request_id_travels() -> None:
    ends = make_ends()
    payload, _ = ends.peer.encrypt(b"x", now=NOW, random=ends.random, request_id=2**64 - 1)
    assert ends.at_service(payload) == b"x"


def largest_state(ends: Ends, limits: ChannelLimits) -> int:
    """Return a bound of the stored state's size: its constant part, and every limit exhausted.

    A chain: two keys of 2 + 32 bytes, an index of up to 6, itself tagged in 3. A skipped key: an
    index of 6 and a key of 34, tagged in 2. A skipped chain: a number of 6, a key of 34, a tag and
    a length of up to 4.
    """
    chain = 34 + 34 + 6 + 3
    ratchet = 34 + 34 + 2 * chain + 6 + 6 + 34
    skipped = limits.max_skipped_keys * (6 + 34 + 2) + MAX_SKIPPED_CHAINS * (6 + 34 + 4)
    return len(ends.service.encode_static()) + ratchet + skipped + 8


def test_the_stored_state_never_exceeds_its_computed_maximum() -> None:
    limits = ChannelLimits(dh_ratchet_every=1, max_skip=30, max_skipped_keys=100)
    ends = make_ends(1, limits)
    sizes = []
    for _ in range(12):
        for _ in range(25):
            ends.up()
        ends.at_service(ends.up())
        sizes.append(len(ends.service.encode()))
        ends.at_peer(ends.down())
        sizes.append(len(ends.service.encode()))
    assert ends.service.ratchet.skipped_keys == 100
    assert len(ends.service.ratchet.skipped) == 4
    assert max(sizes) <= largest_state(ends, limits)
    # The bound is a tight one: it would notice one chain's keys too many.
    assert max(sizes) > largest_state(ends, limits) - 25 * 42
