"""Changes made again in one go: the same session as one by one, for less work."""

import copy
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_actor.protocol import primitives
from connect_actor.protocol.changes import (
    Acknowledged,
    Change,
    IdempotentSend,
    InconsistentChangeError,
    Received,
    ReceivedSkipped,
    Sent,
)
from connect_actor.protocol.handshake import ChannelLimits
from connect_actor.protocol.ratchet import MAX_CHAIN_LENGTH
from connect_actor.protocol.replay import apply_all
from connect_actor.protocol.session import Session
from tests.support.channels import NOW, Ends, make_ends


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count message keys derived, and steps that chains have made up for."""
    counts: Counter[str] = Counter()
    step, skip = primitives.step_chain, primitives.skip_chain

    def counted_step(chain_key: bytes) -> tuple[bytes, bytes]:
        counts["message keys"] += 1
        return step(chain_key)

    def counted_skip(chain_key: bytes, messages: int) -> bytes:
        counts["steps"] += messages
        return skip(chain_key, messages)

    monkeypatch.setattr(primitives, "step_chain", counted_step)
    monkeypatch.setattr(primitives, "skip_chain", counted_skip)
    return counts


def one_by_one(session: Session, changes: Sequence[Change]) -> None:
    for change in changes:
        session.apply(change)


def send(ends: Ends, messages: int) -> list[Change]:
    return [ends.service.encrypt(b"down", now=NOW, random=ends.random)[1] for _ in range(messages)]


def receive(ends: Ends, messages: int) -> list[Change]:
    return [ends.service.decrypt(ends.up(), now=NOW)[1] for _ in range(messages)]


def test_skipping_keys_leads_to_the_chain_key_that_stepping_leads_to() -> None:
    chain_key = stepped = bytes(range(32))
    for messages in range(20):
        assert primitives.skip_chain(chain_key, messages) == stepped
        stepped = primitives.step_chain(stepped)[1]


def test_plain_messages_cost_half_a_step_each_and_no_message_key(derived: Counter[str]) -> None:
    ends = make_ends(limits=ChannelLimits(dh_ratchet_every=1_000))
    ends.round_trip()
    before = copy.deepcopy(ends.service)
    changes = [change for _ in range(30) for change in (*send(ends, 1), *receive(ends, 1))]
    derived.clear()
    apply_all(before, changes)
    assert derived == {"steps": 60}
    assert before == ends.service


def test_chains_that_have_been_left_behind_cost_nothing(derived: Counter[str]) -> None:
    ends = make_ends(limits=ChannelLimits(dh_ratchet_every=10))
    before = copy.deepcopy(ends.service)
    changes: list[Change] = []
    for _ in range(3):
        changes += receive(ends, 12)
        for _ in range(12):
            payload, sent = ends.service.encrypt(b"down", now=NOW, random=ends.random)
            ends.at_peer(payload)
            changes.append(sent)
    derived.clear()
    apply_all(before, changes)
    assert before == ends.service
    # Of three chains each way only the last ones, and the message that came with each turn: the
    # first chain to receive on is there before the first message.
    assert derived == {"message keys": 5, "steps": 11 + 11}


def test_the_keys_of_what_a_turn_leaves_behind_are_the_right_ones() -> None:
    ends = make_ends(limits=ChannelLimits(dh_ratchet_every=2))
    before = copy.deepcopy(ends.service)
    changes = receive(ends, 3)
    late = [ends.up(), ends.up()]
    payload, sent = ends.service.encrypt(b"down", now=NOW, random=ends.random)
    ends.at_peer(payload)
    changes += [sent, *receive(ends, 1)]
    assert ends.service.ratchet.receiving_turns == 2
    apply_all(before, changes)
    assert before == ends.service
    assert [before.decrypt(payload, now=NOW)[0] for payload in late] == [b"up", b"up"]


def test_a_message_that_may_be_asked_for_again_has_its_own_key(derived: Counter[str]) -> None:
    ends = make_ends(limits=ChannelLimits(redelivery_window=2))
    changes = send(ends, 5)
    before = copy.deepcopy(ends.service)
    changes = send(ends, 5)
    _, once = ends.service.encrypt(b"once", now=NOW, random=ends.random, idempotency_key=b"key")
    changes += [once, *send(ends, 3)]
    derived.clear()
    apply_all(before, changes)
    assert before == ends.service
    assert derived == {"message keys": 1, "steps": 5 + 3}


def test_the_largest_index_of_a_chain_is_not_exceeded() -> None:
    session = make_ends().service
    assert session.ratchet.receiving is not None
    session.ratchet.receiving.next_index = MAX_CHAIN_LENGTH
    with pytest.raises(InconsistentChangeError):
        apply_all(session, [Received(MAX_CHAIN_LENGTH)])


def test_no_plain_message_is_sent_before_the_first_turn() -> None:
    with pytest.raises(InconsistentChangeError):
        apply_all(make_ends().service, [Sent(0)])


_ONCE = IdempotentSend(b"key", bytes(32), bytes(12), 0, NOW)
_DIGESTS = st.sampled_from([b"", bytes(16)])
# Indexes near those that come next, so that many of them do.
_NEAR = st.integers(0, 5)
_KEYS = st.sampled_from([b"", b"", b"", primitives.KeyPair(b"\x07" * 32).public_key])


@st.composite
def _histories(draw: st.DrawFn) -> list[Change]:
    """Changes, most of which follow from those before them."""
    sent = received = 0
    changes: list[Change] = []
    for _ in range(draw(st.integers(0, 25))):
        match draw(st.sampled_from("ssssrrrrstrt!ka")):
            case "s":
                changes.append(Sent(sent))
                sent += 1
            case "r":
                changes.append(Received(received, digest=draw(_DIGESTS)))
                received += 1
            case "t":
                changes.append(Sent(0, b"\x09" * 32))
                sent = 1
            case "k":
                changes.append(ReceivedSkipped(draw(_NEAR), draw(_NEAR), draw(_DIGESTS)))
            case "a":
                changes.append(Acknowledged(draw(_NEAR)))
            case _:
                ahead = received + draw(_NEAR)
                key = draw(_KEYS)
                others: list[Change] = [
                    Received(0 if key else ahead, key, ahead if key else 0),
                    Received(ahead, digest=bytes(16)),
                    Sent(sent, once=_ONCE),
                ]
                changes.append(draw(st.sampled_from(others)))
                received = 1 if key else ahead + 1
    return changes


@pytest.mark.parametrize("window", [0, 3])
@given(changes=_histories())
@settings(max_examples=300)
def test_all_at_once_is_as_one_by_one_and_refused_where_that_is(
    window: int, changes: list[Change]
) -> None:
    limits = ChannelLimits(max_skip=4, max_skipped_keys=6, redelivery_window=window)
    first = make_ends(limits=limits).service
    second = copy.deepcopy(first)
    try:
        one_by_one(first, changes)
    except InconsistentChangeError:
        with pytest.raises(InconsistentChangeError):
            apply_all(second, changes)
    else:
        apply_all(second, changes)
        assert first == second
        assert first.encode() == second.encode()
