"""What workers say to each other comes out as it went in, and nothing else does."""

import math
import os
from typing import Any

import pytest

from connect_actor import errors
from connect_actor.actors.commands import (
    Acknowledge,
    Close,
    Command,
    Decrypt,
    Encrypt,
    Establish,
    Restore,
    Restored,
)
from connect_actor.errors import ChannelNotFoundError, ConnectError
from connect_actor.protocol.delivery import Delivered
from connect_actor.protocol.payload import Header, Payload
from connect_actor.rpc.status import STATUSES, rule_of
from connect_actor.v1 import connect_pb2 as wire
from connect_actor.workers.frames import (
    Answer,
    FrameError,
    FrameReader,
    Refusal,
    Request,
    answer_with,
    encode,
    refuse_with,
    request_for,
)
from tests.support.channels import establish_request

OWNER = bytes(range(16))
PAYLOAD = Payload(
    Header(os.urandom(32), 2**32 - 1, 7, 2**64 - 1, -(2**63)), os.urandom(12), os.urandom(80)
)
COMMANDS: list[Command] = [
    Establish(establish_request(1)[1], 12.5),
    Encrypt(b"plaintext", 2**64 - 1, None, b"key"),
    Encrypt(b""),
    Decrypt(PAYLOAD, 0.1),
    Acknowledge(2**64 - 1),
    Restore(3.0),
    Close(),
]
ANSWERS: list[Any] = [
    None,
    b"",
    b"plaintext",
    PAYLOAD,
    Restored(1, 2, 3, 2**63 - 1),
    Delivered(b"plaintext", 2**64 - 1, redelivered=True),
    Delivered(PAYLOAD, 1),
]


def through(request: Request) -> Request:
    """Send a request; return what comes out."""
    (frame,) = FrameReader().read(encode([request], []))
    assert frame.answers == []
    (found,) = frame.requests
    return found


def back(answer: Answer) -> Answer:
    """Send an answer; return what comes out."""
    (frame,) = FrameReader().read(encode([], [answer]))
    assert frame.requests == []
    (found,) = frame.answers
    return found


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
@pytest.mark.parametrize(("owner", "request_id"), [(b"", None), (OWNER, "a-request")])
def test_every_command_comes_out_as_it_went_in(
    command: Command, owner: bytes, request_id: str | None
) -> None:
    request = through(request_for(5, 2**63 - 1, command, owner, request_id))
    assert (request.number, request.connect_id) == (5, 2**63 - 1)
    assert (request.owner, request.request_id) == (owner, request_id)
    assert type(request.command) is type(command)
    assert request.command == command


@pytest.mark.parametrize("result", ANSWERS, ids=lambda result: type(result).__name__)
def test_every_answer_comes_out_as_it_went_in(result: object) -> None:
    answer = back(answer_with(6, result))
    assert answer.number == 6
    assert answer.result == result
    # Named tuples are equal to any tuple; what is inside a Delivered is one, too.
    inner = "result"
    assert type(answer.result) is type(result)
    assert type(getattr(answer.result, inner, None)) is type(getattr(result, inner, None))


@pytest.mark.parametrize("kind", STATUSES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("retry_after", [None, 0.25])
def test_every_error_comes_out_as_it_went_in(
    kind: type[ConnectError], retry_after: float | None
) -> None:
    error = kind("what to do")
    error.retry_after = retry_after
    refusal = back(refuse_with(7, error))
    assert isinstance(refusal, Refusal)
    assert refusal.number == 7
    assert type(refusal.error) is kind
    assert str(refusal.error) == "what to do"
    assert refusal.error.retry_after == retry_after


def test_a_rooms_own_error_goes_as_the_public_one_that_it_is() -> None:
    class _LostError(ChannelNotFoundError):
        pass

    refusal = back(refuse_with(1, _LostError("gone")))
    assert isinstance(refusal, Refusal)
    assert type(refusal.error) is ChannelNotFoundError
    assert rule_of(refusal.error) is STATUSES[ChannelNotFoundError]


@pytest.mark.parametrize("piece", [1, 7, 8, 9, 1 << 20])
def test_frames_come_whole_out_of_any_pieces_and_in_order(piece: int) -> None:
    requests = [
        request_for(number, number, command, b"", None) for number, command in enumerate(COMMANDS)
    ]
    answers = [answer_with(number, result) for number, result in enumerate(ANSWERS)]
    sent = encode(requests, []) + encode([], answers) + encode(requests, answers, finished=True)
    reader = FrameReader()
    found = [
        frame
        for start in range(0, len(sent), piece)
        for frame in reader.read(sent[start : start + piece])
    ]
    assert [frame.requests for frame in found] == [requests, [], requests]
    assert [frame.answers for frame in found] == [[], answers, answers]
    assert [frame.finished for frame in found] == [False, False, True]


@pytest.mark.parametrize(
    "body",
    [
        b"\xc1",
        b"\x92\x90\x90\x90",
        b"\x91\x90",
        b"\x92\x91\x91\x63\x90",  # no request has this tag
        b"\x92\x90\x91\x92\x0c\x01",  # an answer without a result
        b"\x92\x90\x91\x93\x0c\x01\xa1a",  # text where bytes are expected
        b"\x92\x91\x96\x01\x01\x01\xc4\x00\xc0\x92\xc4\x01\xff\xc0\x90",
    ],
    ids=[
        "no MessagePack",
        "more than a frame",
        "less than a frame",
        "unknown",
        "too short",
        "wrong type",
        "no EstablishRequest",
    ],
)
def test_what_is_no_frame_is_refused(body: bytes) -> None:
    with pytest.raises(FrameError):
        list(FrameReader().read(len(body).to_bytes(8, "big") + body))


def test_an_error_that_is_not_public_is_refused() -> None:
    for name in ("KeyboardInterrupt", "__all__", "struct"):
        assert name not in errors.__all__
        with pytest.raises(FrameError, match="there is no error"):
            _ = Refusal(1, 0, (name, "", None)).error


def test_no_message_shows_what_it_holds() -> None:
    secret = b"a plaintext"
    messages = [
        request_for(1, 2, Encrypt(secret), b"", None),
        answer_with(1, secret),
        answer_with(1, Delivered(secret, 1)),
    ]
    for message in messages:
        assert secret.decode() not in repr(message)


def test_a_deadline_needs_no_rounding() -> None:
    deadline = math.pi * 1e5
    request = through(request_for(1, 2, Restore(deadline), b"", None))
    assert request.command.deadline == deadline


def test_fields_that_this_version_does_not_know_go_along() -> None:
    known = establish_request(1)[1].SerializeToString()
    request = wire.EstablishRequest.FromString(known + b"\xf8\x07\x05")
    sent = through(request_for(1, 2, Establish(request), b"", None))
    assert sent.command.request.SerializeToString() == known + b"\xf8\x07\x05"
