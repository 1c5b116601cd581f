"""Two workers and what is between them: commands, answers, order, and the end of one."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from functools import partial

import pytest
from pykka import ActorDeadError

from connect_actor.actors.commands import Close, Command, Encrypt, Restore
from connect_actor.actors.work import charge, payer_of
from connect_actor.errors import (
    ActorCrashedError,
    ChannelNotFoundError,
    ConnectError,
    OverloadedError,
    RateLimitedError,
    ReadFailedError,
    ShuttingDownError,
    WriteUncertainError,
)
from connect_actor.reply import AwaitedReply, Reply
from connect_actor.workers.frames import FrameReader, answer_with, encode
from connect_actor.workers.link import Link
from tests.support.house import answer, until


class Worker:
    """One end of a link; keeps what it is handed until the test answers it."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, Command, Reply, bytes]] = []
        self.lost = 0
        self.link: Link

    def route(self, connect_id: int, command: Command, reply: Reply, owner: bytes) -> None:
        self.taken.append((connect_id, command, reply, owner))

    def on_lost(self) -> None:
        self.lost += 1

    def hand_on(self, command: Command, connect_id: int = 1, owner: bytes = b"") -> AwaitedReply:
        reply: AwaitedReply = AwaitedReply()
        self.link.hand_on(connect_id, command, reply, owner)
        return reply

    async def join(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        _, self.link = await loop.create_unix_connection(
            partial(Link, 1, self.route, self.on_lost), sock=connection
        )


@pytest.fixture
async def pair() -> AsyncIterator[tuple[Worker, Worker]]:
    one, other = Worker(), Worker()
    for worker, connection in zip((one, other), socket.socketpair(), strict=True):
        await worker.join(connection)
    yield one, other
    for worker in (one, other):
        worker.link.close()
    await until(lambda: one.link.closed and other.link.closed)


Pair = tuple[Worker, Worker]


async def test_commands_arrive_in_order_with_their_owners_and_answers_as_they_come(
    pair: Pair,
) -> None:
    one, other = pair
    replies = [
        one.hand_on(Encrypt(str(number).encode()), number, bytes([number] * 16))
        for number in range(100)
    ]
    await until(lambda: len(other.taken) == 100)
    for number, (connect_id, command, _, owner) in enumerate(other.taken):
        assert connect_id == number
        assert command == Encrypt(str(number).encode())
        assert owner == bytes([number] * 16)
    # The last first: no answer waits for another channel's.
    for number in reversed(range(100)):
        other.taken[number][2].answer(str(number).encode())
    assert [await answer(reply) for reply in replies] == [
        str(number).encode() for number in range(100)
    ]


class Bill:
    """Pays, and keeps what it was charged."""

    flow = "payer"
    debt = 0.0

    def __init__(self) -> None:
        self.charged: list[int] = []

    def charge(self, work: int) -> None:
        self.charged.append(work)


async def test_what_a_command_costs_elsewhere_is_charged_where_its_caller_is(pair: Pair) -> None:
    one, other = pair
    bill = Bill()
    owner = bytes([7] * 16)
    for command in (Encrypt(b"free"), Encrypt(b"costly"), Encrypt(b"refused")):
        reply: AwaitedReply = AwaitedReply()
        reply.payer = bill
        one.link.hand_on(1, command, reply, owner)
    unpaid = one.hand_on(Encrypt(b"of nobody"))
    await until(lambda: len(other.taken) == 4)
    payers = [payer_of(reply) for _, _, reply, _ in other.taken]
    assert [(payer.flow, payer.debt) for payer in payers if payer] == [(owner, 0.0)] * 3 + [
        (b"", 0.0)
    ]
    for number, payer in enumerate(payers):
        for _ in range(number):
            charge(payer, 300)
    other.taken[2][2].refuse(RateLimitedError("no more", 0.5))
    for number in (0, 1, 3):
        other.taken[number][2].answer(b"answer")
    assert await answer(unpaid) == b"answer"
    assert sorted(bill.charged) == [300, 600]


async def test_what_is_said_in_one_pass_of_the_loop_is_one_frame() -> None:
    ours, theirs = socket.socketpair()
    one = Worker()
    await one.join(ours)
    theirs.settimeout(0)
    for number in range(50):
        one.hand_on(Restore(), number)
    await asyncio.sleep(0)
    frame = theirs.recv(1 << 20)
    assert int.from_bytes(frame[:8], "big") == len(frame) - 8
    assert [len(found.requests) for found in FrameReader().read(frame)] == [50]
    one.link.close()
    theirs.close()


async def test_both_may_hand_on_at_once(pair: Pair) -> None:
    one, other = pair
    to_other, to_one = one.hand_on(Restore()), other.hand_on(Close())
    await until(lambda: bool(one.taken and other.taken))
    other.taken[0][2].answer(b"by the other")
    one.taken[0][2].answer(None)
    assert await answer(to_other) == b"by the other"
    assert await answer(to_one) is None


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (ChannelNotFoundError("none"), ChannelNotFoundError),
        (OverloadedError("full"), OverloadedError),
        (ActorDeadError("stopped"), ShuttingDownError),
        (ZeroDivisionError("a defect"), ActorCrashedError),
    ],
)
async def test_a_refusal_is_one_here_too_and_a_defect_says_no_more_than_that(
    pair: Pair, raised: Exception, told: type[ConnectError]
) -> None:
    one, other = pair
    reply = one.hand_on(Restore())
    await until(lambda: bool(other.taken))
    other.taken[0][2].refuse(raised)
    with pytest.raises(told) as refused:
        await answer(reply)
    assert "a defect" not in str(refused.value)


@pytest.fixture
def steps_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="service.requests")


@pytest.mark.usefixtures("steps_told")
async def test_steps_are_told_under_the_same_request_id_on_both_sides(pair: Pair) -> None:
    one, other = pair
    reply: AwaitedReply = AwaitedReply()
    reply.request_id = "stream/7"
    one.link.hand_on(1, Restore(), reply)
    one.hand_on(Restore())
    await until(lambda: len(other.taken) == 2)
    ids = [getattr(taken[2], "request_id", None) for taken in other.taken]
    assert ids == ["stream/7", None]


async def test_what_a_lost_worker_had_is_uncertain_and_what_it_never_got_is_not_done(
    pair: Pair,
) -> None:
    one, other = pair
    sent = [one.hand_on(Encrypt(b"sent")), one.hand_on(Close()), one.hand_on(Restore())]
    await until(lambda: len(other.taken) == 3)
    other.link.abort()
    await until(lambda: one.link.closed)
    for reply, told in zip(
        sent, (WriteUncertainError, WriteUncertainError, ReadFailedError), strict=True
    ):
        with pytest.raises(told):
            await answer(reply)
    with pytest.raises(ShuttingDownError, match="nothing was done: try again"):
        await answer(one.hand_on(Encrypt(b"after")))
    assert one.lost == 1
    assert one.link.peer_finished.is_set()


async def test_a_command_that_was_not_sent_before_the_loss_is_not_done(pair: Pair) -> None:
    one, _ = pair
    sent = one.hand_on(Encrypt(b"sent"))
    await asyncio.sleep(0)
    unsent = one.hand_on(Encrypt(b"never sent"))
    one.link.connection_lost(None)
    with pytest.raises(WriteUncertainError):
        await answer(sent)
    with pytest.raises(ShuttingDownError):
        await answer(unsent)


async def test_an_answer_for_a_worker_that_has_gone_harms_nobody(pair: Pair) -> None:
    one, other = pair
    one.hand_on(Encrypt(b"sent"))
    await until(lambda: bool(other.taken))
    one.link.abort()
    await until(lambda: other.link.closed)
    other.taken[0][2].answer(b"too late")
    await asyncio.sleep(0)
    assert other.lost == 1


async def test_a_finished_worker_still_answers_and_its_end_is_no_loss(pair: Pair) -> None:
    one, other = pair
    reply = one.hand_on(Restore())
    other.link.finish()
    await asyncio.wait_for(one.link.peer_finished.wait(), 10)
    other.taken[0][2].answer(b"still")
    assert await answer(reply) == b"still"
    one.link.finish()
    await asyncio.wait_for(other.link.peer_finished.wait(), 10)
    other.link.close()
    await until(lambda: one.link.closed)
    assert (one.lost, other.lost) == (0, 0)


async def test_what_is_still_to_be_sent_goes_before_the_link_is_closed(pair: Pair) -> None:
    one, other = pair
    reply = one.hand_on(Restore())
    await until(lambda: bool(other.taken))
    for worker in (one, other):
        worker.link.finish()
    other.taken[0][2].answer(b"at last")
    other.link.close()
    assert await answer(reply) == b"at last"


@pytest.mark.parametrize(
    "garbage",
    [b"\x00" * 7 + b"\x01\xc1", encode([], [answer_with(5, None)])],
    ids=["no frame", "an answer that nobody waits for"],
)
async def test_a_worker_that_talks_nonsense_is_lost(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    ours, theirs = socket.socketpair()
    one = Worker()
    await one.join(ours)
    reply = one.hand_on(Encrypt(b"sent"))
    theirs.sendall(garbage)
    with pytest.raises(WriteUncertainError):
        await answer(reply)
    assert one.lost == 1
    assert "is not understood" in caplog.text
    theirs.close()


async def test_large_commands_arrive_whole(pair: Pair) -> None:
    one, other = pair
    plaintexts = [bytes([number]) * 1_000_000 for number in range(8)]
    for plaintext in plaintexts:
        one.hand_on(Encrypt(plaintext))
    await until(lambda: len(other.taken) == 8)
    assert [command for _, command, _, _ in other.taken] == list(map(Encrypt, plaintexts))
