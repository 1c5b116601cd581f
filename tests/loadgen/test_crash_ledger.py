"""The ledger of the crash run: what it lets pass, and what it must not."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import grpc
import pytest

from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.crash.account import Account, Standing
from connect_loadgen.crash.faults import Fault, FaultKind, Faults
from connect_loadgen.crash.rules import Verdict
from connect_loadgen.crash.sightings import Sighting, Sightings
from tests.support.ledgers import Desk

MANY = 35
"""Messages each way: more than three turns of the ratchet."""


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def account(desk: Desk) -> Account:
    """Return a channel in mid-conversation."""
    account = desk.establish()
    for _ in range(3):
        assert desk.encrypt(account) is Verdict.DONE
        assert desk.decrypt(account) is Verdict.DONE
    return account


def refuse(code: grpc.StatusCode) -> Callable[[wire.OperationResult], None]:
    def fill(result: wire.OperationResult) -> None:
        result.error.code = code.value[0]
        result.error.message = "because"

    return fill


def lose_all_since(desk: Desk, states: dict[int, bytes]) -> None:
    """Restart as a service does that had answered before it committed."""
    desk.service.turn_back(states)
    desk.ledger.begin_life()


def test_an_honest_service_passes_whatever_is_lost_on_the_way(desk: Desk) -> None:
    account = desk.establish()
    for number in range(MANY):
        if number % 5 == 4:
            desk.do_in_silence(desk.ledger.encrypt(account, desk.text()))
            message = desk.ledger.seal(account, desk.text())
            desk.do_in_silence(desk.ledger.decrypt(account, message))
            # Never came to the service at all.
            desk.ledger.encrypt(account, desk.text()).unknown()
            desk.ledger.decrypt(account, desk.ledger.seal(account, desk.text())).unknown()
            desk.ledger.begin_life()
        assert desk.restore(account) is Verdict.DONE
        for message in list(account.undecided.values()):
            assert desk.ask(desk.ledger.decrypt(account, message)) is Verdict.DONE
        for message in list(account.decrypted)[-2:]:
            assert desk.ask(desk.ledger.decrypt(account, message)) is Verdict.DONE
        assert desk.encrypt(account) is Verdict.DONE
        assert desk.decrypt(account) is Verdict.DONE
        assert desk.restore(account) is Verdict.DONE
    assert desk.faults == []
    counts = desk.ledger.counts
    assert counts.undecided_refused == MANY // 5
    # Two a round, but in the first there is none to repeat, and in the second one.
    assert counts.replays_refused == 2 * MANY - 3
    assert counts.operations["encrypt", Verdict.UNKNOWN] == 2 * (MANY // 5)
    # Those of the service whose answer was lost were never seen.
    assert desk.ledger.messages == MANY + MANY + 2 * (MANY // 5)


# --- What was acknowledged is lost ----------------------------------------------------------------


def test_a_lost_encrypt_shows_in_restore(desk: Desk, account: Account) -> None:
    states = desk.service.states()
    desk.encrypt(account)
    lose_all_since(desk, states)
    desk.restore(account)
    assert desk.faults == [FaultKind.LOST]
    assert not desk.ledger.is_sound(account)


def test_a_lost_decrypt_shows_in_restore_and_when_it_is_repeated(
    desk: Desk, account: Account
) -> None:
    states = desk.service.states()
    desk.decrypt(account)
    lose_all_since(desk, states)
    desk.restore(account)
    desk.ask(desk.ledger.decrypt(account, account.decrypted[-1]))
    assert desk.faults == [FaultKind.LOST, FaultKind.DECRYPTED_TWICE]


def test_a_loss_is_found_in_the_length_of_a_chain_that_turned(desk: Desk) -> None:
    account = desk.establish()
    for _ in range(10):
        desk.decrypt(account)
        desk.encrypt(account)
    states = desk.service.states()
    # Turns the service's chain: it is shorter now, and that is right.
    desk.decrypt(account)
    desk.encrypt(account)
    desk.restore(account)
    assert account.sent_length == 1
    assert desk.faults == []
    lose_all_since(desk, states)
    desk.restore(account)
    assert desk.faults == [FaultKind.LOST]


def test_an_undecided_encrypt_is_no_excuse_for_a_chain_too_short_to_have_turned(
    desk: Desk, account: Account
) -> None:
    states = desk.service.states()
    for _ in range(3):
        desk.encrypt(account)
    desk.ledger.encrypt(account, desk.text()).unknown()
    lose_all_since(desk, states)
    assert account.sent_length == 6
    assert not account.may_have_sent(1, account.span())
    desk.restore(account)
    assert desk.faults == [FaultKind.LOST]


def test_an_undecided_encrypt_may_have_turned_a_chain_that_was_long_enough(desk: Desk) -> None:
    account = desk.establish()
    for _ in range(10):
        desk.decrypt(account)
        desk.encrypt(account)
    # The peer turns, and the service with its next message.
    desk.decrypt(account)
    desk.do_in_silence(desk.ledger.encrypt(account, desk.text()))
    desk.ledger.begin_life()
    desk.restore(account)
    assert account.sent_length == 10
    assert desk.faults == []


def test_undecided_encrypts_allow_for_so_many_messages_and_no_more(
    desk: Desk, account: Account
) -> None:
    desk.do_in_silence(desk.ledger.encrypt(account, desk.text()))
    desk.ledger.begin_life()
    desk.restore(account)
    assert desk.faults == []
    # One that nobody asked for.
    desk.service(desk.ledger.encrypt(account, desk.text()).operation)
    desk.service(wire.Operation(encrypt=wire.EncryptRequest(connect_id=account.connect_id)))
    desk.restore(account)
    assert desk.faults == [FaultKind.LOST]


def test_an_undecided_encrypt_is_decided_by_the_next_one_of_a_later_life(
    desk: Desk, account: Account
) -> None:
    states = desk.service.states()
    desk.ledger.encrypt(account, desk.text()).unknown()
    lose_all_since(desk, states)
    desk.encrypt(account)
    assert account.span().encrypts_open == 0
    assert desk.faults == []


def test_a_lost_channel_is_found(desk: Desk) -> None:
    states = desk.service.states()
    account = desk.establish()
    lose_all_since(desk, states)
    assert desk.restore(account) is Verdict.NOT_DONE
    assert desk.faults == [FaultKind.LOST]


def test_a_handshake_that_is_answered_anew_is_found(desk: Desk) -> None:
    account = desk.establish()
    assert desk.ask(desk.ledger.establish_again(account)) is Verdict.DONE
    assert desk.faults == []
    desk.service.sessions.clear()
    desk.ask(desk.ledger.establish_again(account))
    assert desk.faults == [FaultKind.LOST]


def test_a_handshake_without_an_answer_is_kept_until_it_has_one(desk: Desk) -> None:
    initiation = desk.client.begin()  # type: ignore[call-arg] # the stand-in needs no identity
    desk.do_in_silence(desk.ledger.establish(initiation, desk.client))
    assert desk.ledger.unanswered_handshakes == [initiation]
    desk.ask(desk.ledger.establish(initiation, desk.client))
    assert desk.ledger.unanswered_handshakes == []
    assert desk.ledger.established == 1
    assert desk.faults == []


# --- A place is used again ------------------------------------------------------------------------


def test_an_index_that_is_used_again_is_found(desk: Desk, account: Account) -> None:
    states = desk.service.states()
    desk.encrypt(account)
    desk.service.turn_back(states)
    desk.encrypt(account)
    assert desk.faults == [FaultKind.REUSED]


def test_an_index_is_taken_by_an_answer_that_came_after_it_was_given_up(
    desk: Desk, account: Account
) -> None:
    states = desk.service.states()
    rule = desk.ledger.encrypt(account, desk.text())
    late = desk.do_in_silence(rule)
    desk.service.turn_back(states)
    desk.encrypt(account)
    assert desk.faults == []
    rule.take_late(late)
    assert desk.faults == [FaultKind.REUSED]


def payload(index: int, nonce: bytes, ciphertext: bytes = b"c") -> wire.CipherPayload:
    return wire.CipherPayload(
        dh_public_key=b"k", ratchet_index=index, nonce=nonce, ciphertext=ciphertext
    )


def test_identical_bytes_are_the_same_message_and_anything_else_is_another() -> None:
    seen = Sightings()
    assert seen.see("service", payload(1, b"n"), b"t") is Sighting.NEW
    assert seen.see("service", payload(1, b"n"), b"t") is Sighting.SAME
    assert seen.see("service", payload(1, b"n", b"d"), b"t") is Sighting.PLACE_TAKEN
    assert seen.see("service", payload(1, b"m"), b"t") is Sighting.PLACE_TAKEN
    # The same bytes, given for another plaintext: one of the two was never encrypted.
    assert seen.see("service", payload(1, b"n"), b"u") is Sighting.PLACE_TAKEN
    assert seen.see("service", payload(2, b"n"), b"t") is Sighting.NONCE_TAKEN
    assert seen.see("peer", payload(1, b"o"), b"t") is Sighting.NEW
    assert len(seen) == 3


# --- Decrypt --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("says", "kinds"), [(None, []), (b"something else", [FaultKind.WRONG])])
def test_a_redelivery_passes_if_it_says_so_and_says_the_same(
    desk: Desk, account: Account, says: bytes | None, kinds: list[FaultKind]
) -> None:
    message = account.decrypted[-1]
    answer = SimpleNamespace(plaintext=says or message.plaintext, redelivered=True)
    rule = desk.ledger.decrypt(account, message)
    rule._done(cast("wire.OperationResult", SimpleNamespace(decrypt=answer)))
    assert desk.faults == kinds
    assert desk.ledger.counts.redelivered == 1


def test_a_message_that_is_sent_for_the_first_time_must_be_taken(
    desk: Desk, account: Account
) -> None:
    rule = desk.ledger.decrypt(account, desk.ledger.seal(account, desk.text()))
    desk.answer(rule, refuse(grpc.StatusCode.ALREADY_EXISTS))
    assert desk.faults == [FaultKind.REFUSED]


def test_a_message_held_back_over_a_restart_must_be_taken(desk: Desk, account: Account) -> None:
    account.hold(desk.ledger.seal(account, desk.text()), later=2)
    assert account.take_held() is None
    desk.decrypt(account)
    desk.ledger.begin_life()
    desk.decrypt(account)
    held = account.take_held()
    assert held is not None
    assert desk.ask(desk.ledger.decrypt(account, held)) is Verdict.DONE
    desk.service.turn_back(desk.service.states())
    assert desk.ask(desk.ledger.decrypt(account, held)) is Verdict.DONE
    assert desk.faults == []


def test_an_undecided_message_may_be_new_or_a_replay_but_not_forged(
    desk: Desk, account: Account
) -> None:
    message = desk.ledger.seal(account, desk.text())
    desk.do_in_silence(desk.ledger.decrypt(account, message))
    rule = desk.ledger.decrypt(account, message)
    desk.answer(rule, refuse(grpc.StatusCode.INVALID_ARGUMENT))
    assert desk.faults == [FaultKind.REFUSED]


def test_another_plaintext_is_found(desk: Desk, account: Account) -> None:
    def lie(result: wire.OperationResult) -> None:
        result.decrypt.plaintext = b"something else"

    desk.answer(desk.ledger.decrypt(account, desk.ledger.seal(account, desk.text())), lie)
    assert desk.faults == [FaultKind.WRONG]


def test_a_message_that_the_peer_cannot_open_is_found(desk: Desk, account: Account) -> None:
    rule = desk.ledger.encrypt(account, desk.text())
    result = desk.service(rule.operation)
    result.encrypt.payload.ciphertext = bytes(len(result.encrypt.payload.ciphertext))
    rule.take(result)
    assert desk.faults == [FaultKind.WRONG]


def test_a_message_that_says_something_else_is_found(desk: Desk, account: Account) -> None:
    rule = desk.ledger.encrypt(account, desk.text())
    rule.operation.encrypt.plaintext = b"something else"
    desk.ask(rule)
    assert desk.faults == [FaultKind.WRONG]


def test_an_answer_of_another_kind_is_found(desk: Desk, account: Account) -> None:
    def mix_up(result: wire.OperationResult) -> None:
        result.close.SetInParent()

    desk.answer(desk.ledger.restore(account), mix_up)
    assert desk.faults == [FaultKind.WRONG]


def test_a_refusal_for_overload_leaves_everything_as_it_was(desk: Desk, account: Account) -> None:
    before = account.span()
    message = desk.ledger.seal(account, desk.text())
    overloaded = refuse(grpc.StatusCode.RESOURCE_EXHAUSTED)
    desk.answer(desk.ledger.encrypt(account, desk.text()), overloaded)
    desk.answer(desk.ledger.decrypt(account, message), overloaded)
    after = account.span()
    assert (after.encrypts_open, after.received) == (before.encrypts_open, before.received)
    assert account.take_held() == message
    assert not account.has_sent(message)
    assert desk.faults == []


@pytest.mark.parametrize(
    ("code", "kinds"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, [FaultKind.HUNG]),
        (grpc.StatusCode.DATA_LOSS, [FaultKind.REFUSED]),
        (grpc.StatusCode.ABORTED, [FaultKind.REFUSED]),
        (grpc.StatusCode.INTERNAL, [FaultKind.REFUSED]),
        (grpc.StatusCode.NOT_FOUND, [FaultKind.LOST]),
        (grpc.StatusCode.UNAVAILABLE, []),
        (grpc.StatusCode.CANCELLED, []),
    ],
)
def test_statuses_are_taken_for_what_they_say(
    desk: Desk, account: Account, code: grpc.StatusCode, kinds: list[FaultKind]
) -> None:
    desk.answer(desk.ledger.encrypt(account, desk.text()), refuse(code))
    assert desk.faults == kinds


# --- Close ----------------------------------------------------------------------------------------


def test_a_closed_channel_that_answers_is_found(desk: Desk, account: Account) -> None:
    states = desk.service.states()
    assert desk.ask(desk.ledger.close(account)) is Verdict.DONE
    assert account.standing is Standing.CLOSED
    assert desk.restore(account) is Verdict.NOT_DONE
    assert desk.faults == []
    lose_all_since(desk, states)
    desk.restore(account)
    assert desk.faults == [FaultKind.REVIVED]


def test_a_close_without_an_answer_is_repeated_and_may_have_happened(
    desk: Desk, account: Account
) -> None:
    desk.do_in_silence(desk.ledger.close(account))
    assert desk.ledger.channels(Standing.CLOSING) == [account]
    # What was sent before is answered in either way.
    desk.encrypt(account)
    assert desk.ask(desk.ledger.close(account)) is Verdict.DONE
    assert account.standing is Standing.CLOSED
    assert desk.faults == []


def test_a_first_close_that_finds_no_channel_is_a_loss(desk: Desk, account: Account) -> None:
    desk.service.sessions.clear()
    desk.ask(desk.ledger.close(account))
    assert desk.faults == [FaultKind.LOST]


# --- Order on the way -----------------------------------------------------------------------------


def test_a_channel_runs_ahead_of_what_began_two_turns_ago(desk: Desk) -> None:
    account = desk.establish()
    desk.decrypt(account)
    slow = desk.ledger.encrypt(account, desk.text())
    turns = 0
    while not account.runs_ahead:
        before = account.received[0]
        desk.decrypt(account)
        desk.encrypt(account)
        turns += account.received[0] - before
    assert turns == 2
    slow.unknown()
    assert not account.runs_ahead


# --- Faults ---------------------------------------------------------------------------------------


def test_faults_are_kept_once_for_each_channel_and_kind() -> None:
    faults = Faults()
    for kind, channel in (
        (FaultKind.LOST, 1),
        (FaultKind.LOST, 1),
        (FaultKind.LOST, 2),
        (FaultKind.REUSED, 1),
        (FaultKind.UNASKED, None),
        (FaultKind.UNASKED, None),
    ):
        faults.add(Fault(kind, channel, 1, "text"))
    assert faults.counts == {FaultKind.LOST: 2, FaultKind.REUSED: 1, FaultKind.UNASKED: 2}
    assert faults.channels == {1, 2}
    assert len(faults.kept) == 5
