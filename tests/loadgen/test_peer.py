"""Peers let no wrong answer pass: every way of being wrong that we can think of is tried."""

from collections.abc import Callable, Iterator
from itertools import islice

import pytest

from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.peer import Finished, Outcome, Peers, Pending
from connect_loadgen.drive.workload import Kind, PlannedOperation, Workload
from connect_loadgen.settings.load import RunSettings, load_settings
from tests.support.loads import CryptoService, EchoEnd, echo, failure, plan_of

Cheat = Callable[[wire.OperationResult], None]


class Talk:
    """Two channels with real sessions, and a plan of one kind for both in turn."""

    def __init__(self, kind: Kind) -> None:
        self.service = CryptoService(2)
        plan = (PlannedOperation(kind, number % 2, bytes([number]) * 20, 0) for number in range(99))
        self.peers = Peers(self.service.ends, plan)

    def begin(self) -> tuple[Pending, wire.OperationResult]:
        """Return the next operation and its honest answer."""
        pending = self.peers.begin()
        return pending, self.service(pending.request)

    def outcome(self, result: wire.OperationResult) -> Outcome | None:
        finished = self.peers.settle(result)
        return None if finished is None else finished.outcome


@pytest.mark.parametrize("kind", [Kind.ENCRYPT, Kind.DECRYPT])
def test_an_honest_answer_is_right_and_counts_one_message(kind: Kind) -> None:
    talk = Talk(kind)
    pending, result = talk.begin()
    assert talk.outcome(result) is Outcome.RIGHT
    assert pending.messages == 1
    assert talk.peers.unanswered == 0


def test_a_round_trip_is_right_after_its_second_half_and_counts_two_messages() -> None:
    talk = Talk(Kind.ROUND_TRIP)
    pending, result = talk.begin()
    assert talk.outcome(result) is None
    assert (talk.peers.unanswered, talk.peers.waiting_follow_ups) == (1, 1)
    follow_up = talk.peers.follow_up()
    assert follow_up is pending
    assert follow_up.request.WhichOneof("request") == "decrypt"
    assert talk.outcome(talk.service(follow_up.request)) is Outcome.RIGHT
    assert pending.messages == 2
    assert talk.peers.unanswered == 0


# --- Wrong answers --------------------------------------------------------------------------------


def alter_last_byte(text: bytes) -> bytes:
    return text[:-1] + bytes([text[-1] ^ 1])


def other_plaintext(result: wire.OperationResult) -> None:
    result.decrypt.plaintext = alter_last_byte(result.decrypt.plaintext)


def longer_plaintext(result: wire.OperationResult) -> None:
    result.decrypt.plaintext += b"\0"


def no_plaintext(result: wire.OperationResult) -> None:
    result.decrypt.plaintext = b""


def answer_of_another_kind(result: wire.OperationResult) -> None:
    result.restore.SetInParent()


def no_outcome(result: wire.OperationResult) -> None:
    result.ClearField("decrypt")
    result.ClearField("encrypt")


@pytest.mark.parametrize(
    "cheat",
    [other_plaintext, longer_plaintext, no_plaintext, answer_of_another_kind, no_outcome],
)
def test_a_wrong_answer_to_a_decrypt_is_caught(cheat: Cheat) -> None:
    talk = Talk(Kind.DECRYPT)
    pending, result = talk.begin()
    cheat(result)
    assert talk.outcome(result) is Outcome.WRONG
    assert pending.messages == 0


def tampered_ciphertext(result: wire.OperationResult) -> None:
    payload = result.encrypt.payload
    payload.ciphertext = alter_last_byte(payload.ciphertext)


def tampered_index(result: wire.OperationResult) -> None:
    result.encrypt.payload.ratchet_index += 1


def tampered_time(result: wire.OperationResult) -> None:
    result.encrypt.payload.created_at_unix_micros += 1


def short_key(result: wire.OperationResult) -> None:
    result.encrypt.payload.dh_public_key = result.encrypt.payload.dh_public_key[:-1]


def no_payload(result: wire.OperationResult) -> None:
    result.encrypt.ClearField("payload")


def plaintext_instead(result: wire.OperationResult) -> None:
    result.decrypt.plaintext = b"\0" * 20


@pytest.mark.parametrize(
    "cheat",
    [
        tampered_ciphertext,
        tampered_index,
        tampered_time,
        short_key,
        no_payload,
        plaintext_instead,
        no_outcome,
    ],
)
def test_a_wrong_answer_to_an_encrypt_is_caught(cheat: Cheat) -> None:
    talk = Talk(Kind.ENCRYPT)
    pending, result = talk.begin()
    cheat(result)
    assert talk.outcome(result) is Outcome.WRONG
    assert pending.messages == 0


def test_a_faithful_encryption_of_another_text_is_caught() -> None:
    talk = Talk(Kind.ENCRYPT)
    pending, result = talk.begin()
    connect_id = pending.request.encrypt.connect_id
    result.encrypt.payload.CopyFrom(talk.service.encrypt(connect_id, b"something else"))
    assert talk.outcome(result) is Outcome.WRONG


@pytest.mark.parametrize("kind", [Kind.ENCRYPT, Kind.DECRYPT])
def test_the_answers_of_two_channels_swapped_are_both_caught(kind: Kind) -> None:
    talk = Talk(kind)
    (_, first), (_, second) = talk.begin(), talk.begin()
    first.operation_id, second.operation_id = second.operation_id, first.operation_id
    assert [talk.outcome(first), talk.outcome(second)] == [Outcome.WRONG, Outcome.WRONG]


def test_an_old_ciphertext_given_again_is_caught() -> None:
    talk = Talk(Kind.ENCRYPT)
    _, old = talk.begin()
    assert talk.outcome(old) is Outcome.RIGHT
    talk.begin()
    pending = talk.peers.begin()
    replay = wire.OperationResult(operation_id=pending.request.operation_id)
    replay.encrypt.CopyFrom(old.encrypt)
    assert talk.outcome(replay) is Outcome.WRONG


def test_the_second_half_of_a_round_trip_is_checked_as_the_first() -> None:
    talk = Talk(Kind.ROUND_TRIP)
    pending, result = talk.begin()
    talk.outcome(result)
    answer = talk.service(talk.peers.follow_up().request)
    other_plaintext(answer)
    assert talk.outcome(answer) is Outcome.WRONG
    assert pending.messages == 1


def test_an_answer_to_no_operation_is_told() -> None:
    talk = Talk(Kind.DECRYPT)
    _, result = talk.begin()
    result.operation_id += 1
    with pytest.raises(KeyError):
        talk.outcome(result)
    assert talk.peers.unanswered == 1


def test_the_same_answer_twice_is_told() -> None:
    talk = Talk(Kind.DECRYPT)
    _, result = talk.begin()
    talk.outcome(result)
    with pytest.raises(KeyError):
        talk.outcome(result)


# --- Errors and lost answers ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "name"), [(8, "RESOURCE_EXHAUSTED"), (14, "UNAVAILABLE"), (99, "CODE_99")]
)
def test_an_error_status_is_an_error_by_its_name(code: int, name: str) -> None:
    talk = Talk(Kind.DECRYPT)
    pending, _ = talk.begin()
    finished = talk.peers.settle(failure(pending.request, code))
    assert finished == Finished(pending, Outcome.ERROR, name)


def test_what_is_given_up_is_an_error_follow_ups_included() -> None:
    talk = Talk(Kind.ROUND_TRIP)
    first, result = talk.begin()
    talk.outcome(result)
    second, _ = talk.begin()
    lost = talk.peers.give_up("NO_ANSWER")
    assert {finished.pending for finished in lost} == {first, second}
    assert {finished.status for finished in lost} == {"NO_ANSWER"}
    assert (talk.peers.unanswered, talk.peers.waiting_follow_ups) == (0, 0)


def test_an_answer_after_giving_up_is_late_and_not_wrong() -> None:
    talk = Talk(Kind.DECRYPT)
    _, result = talk.begin()
    talk.peers.give_up("NO_ANSWER")
    assert talk.outcome(result) is None
    with pytest.raises(KeyError):
        talk.outcome(result)


# --- Messages out of order ------------------------------------------------------------------------


def plan(*overtaken_by: int) -> Iterator[PlannedOperation]:
    for number, held in enumerate(overtaken_by):
        yield PlannedOperation(Kind.DECRYPT, 0, bytes([number]), held)


def sent(peers: Peers, count: int) -> list[int]:
    return [peers.begin().plaintext[0] for _ in range(count)]


def test_a_held_message_goes_out_after_those_that_overtake_it() -> None:
    peers = Peers([EchoEnd()], plan(2, 0, 0, 0))
    assert sent(peers, 4) == [1, 2, 0, 3]
    assert peers.reordered == 1


def test_messages_held_at_once_each_wait_their_own_time() -> None:
    peers = Peers([EchoEnd()], plan(2, 1, 0, 0, 0))
    assert sent(peers, 5) == [2, 1, 3, 0, 4]
    assert peers.reordered == 2


def test_a_message_of_another_channel_overtakes_nothing() -> None:
    others = (PlannedOperation(Kind.DECRYPT, 1, bytes([number]), 0) for number in range(10, 13))
    peers = Peers([EchoEnd(1), EchoEnd(2)], iter([*plan(1), *others]))
    assert sent(peers, 3) == [10, 11, 12]
    assert [pending.plaintext for pending in peers.release_held()] == [b"\0"]
    assert peers.reordered == 0


def test_what_is_still_held_is_released_once() -> None:
    peers = Peers([EchoEnd()], plan(3, 0, 3, 0))
    assert sent(peers, 2) == [1, 3]
    assert [pending.plaintext[0] for pending in peers.release_held()] == [0, 2]
    assert peers.reordered == 2
    assert peers.release_held() == []


def test_a_held_message_is_sealed_in_its_turn() -> None:
    service = CryptoService(1)
    peers = Peers(service.ends, plan(1, 0))
    late, early = (peers.begin().request.decrypt.payload.ratchet_index for _ in range(2))
    assert (late, early) == (1, 0)


def test_a_skipped_operation_is_passed_over() -> None:
    peers = Peers([EchoEnd()], plan(0, 0, 0))
    peers.skip()
    assert sent(peers, 2) == [1, 2]


def test_a_long_real_conversation_out_of_order_has_no_wrong_answer() -> None:
    flags = ["--channels=2", "--out-of-order=0.3", "--round-trip-weight=1", "--payload-bytes=0,9"]
    service = CryptoService(2)
    workload = Workload.of(load_settings(RunSettings, flags))
    peers = Peers(service.ends, workload.operations())
    outcomes = []
    for pending in islice(iter(peers.begin, None), 400):
        outcomes.append(peers.settle(service(pending.request)))
        while peers.waiting_follow_ups:
            outcomes.append(peers.settle(service(peers.follow_up().request)))
    outcomes += [peers.settle(service(held.request)) for held in peers.release_held()]
    finished = [outcome for outcome in outcomes if outcome is not None]
    assert len(finished) >= 400
    assert {outcome.outcome for outcome in finished} == {Outcome.RIGHT}
    assert peers.reordered > 10
    assert peers.unanswered == 0


def test_a_payload_shows_in_no_repr() -> None:
    peers = Peers([EchoEnd()], plan_of(Kind.ENCRYPT, payload=b"secret"))
    pending = peers.begin()
    assert "secret" not in repr(pending)
    assert "secret" not in repr(peers.settle(echo(pending.request)))
