"""Two workers' routers: every channel is found from both, and is in one of them only."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from connect_actor.actors.commands import (
    Close,
    Command,
    Decrypt,
    Encrypt,
    Establish,
    Restore,
    Restored,
)
from connect_actor.errors import (
    ChannelExistsError,
    ChannelNotFoundError,
    DeadlineExceededError,
    ShuttingDownError,
    WriteUncertainError,
)
from connect_actor.persistence.memory import MemoryJournal
from connect_actor.protocol.handshake import connect_id_of
from connect_actor.reply import AwaitedReply
from connect_actor.v1 import connect_pb2 as wire
from connect_actor.workers.member import Member, worker_of
from connect_actor.workers.router import ShardedRouter
from tests.support.channels import NOW, establish_request
from tests.support.house import House, answer, until
from tests.support.journals import ScriptedJournal
from tests.support.process import PATIENCE

OWNER = bytes(range(16))


class Worker:
    """A house, and the way from it to both houses' channels."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.lost = 0
        self.routes: ShardedRouter
        self.connection: socket.socket

    def on_lost(self) -> None:
        self.lost += 1

    async def join(self, number: int, connection: socket.socket) -> None:
        self.connection = connection.dup()
        member = Member(number, 2, links={1 - number: connection.detach()})
        self.routes = await ShardedRouter.join(member, self.house.router, self.on_lost)

    def ask(self, connect_id: int, command: Command, owner: bytes = b"") -> AwaitedReply:
        reply: AwaitedReply = AwaitedReply()
        self.routes.route(connect_id, command, reply, owner)
        return reply


@pytest.fixture
async def workers() -> AsyncIterator[tuple[Worker, Worker]]:
    both = Worker(House(MemoryJournal())), Worker(House(ScriptedJournal()))
    for number, connection in enumerate(socket.socketpair()):
        await both[number].join(number, connection)
    yield both
    await asyncio.wait_for(asyncio.gather(*(worker.routes.drain() for worker in both)), 10)
    for worker in both:
        worker.connection.close()
        await worker.house.committer.close()


Workers = tuple[Worker, Worker]


@pytest.mark.parametrize("front", [0, 1])
async def test_a_channel_lives_with_its_owner_whoever_takes_its_commands(
    workers: Workers, front: int
) -> None:
    live = [0, 0]
    for seed in range(8):
        initiation, request = establish_request(seed)
        connect_id = connect_id_of(request)
        response = await answer(workers[front].ask(connect_id, Establish(request)))
        session = initiation.complete(wire.EstablishResponse.FromString(response))
        payload = await answer(workers[front].ask(connect_id, Encrypt(b"there", 7)))
        assert session.decrypt(payload, now=NOW)[0] == b"there"
        assert payload.header.request_id == 7
        back, _ = session.encrypt(b"and back", now=NOW, random=lambda size: b"\x01" * size)
        # By the other way now: it is the same channel.
        assert await answer(workers[1 - front].ask(connect_id, Decrypt(back))) == b"and back"
        restored = await answer(workers[1 - front].ask(connect_id, Restore()))
        assert isinstance(restored, Restored)
        assert restored.sending_chain_length == 1
        live[worker_of(connect_id, 2)] += 1
    assert [worker.house.router.live for worker in workers] == live
    assert min(live) > 0


def elsewhere(workers: Workers, seed: int = 1) -> tuple[Worker, Worker, wire.EstablishRequest]:
    """Return a worker, the one that has a channel, and that channel's request."""
    request = establish_request(seed)[1]
    number = worker_of(connect_id_of(request), 2)
    return workers[1 - number], workers[number], request


async def test_what_is_refused_elsewhere_is_refused_here(workers: Workers) -> None:
    front, _, request = elsewhere(workers)
    connect_id = connect_id_of(request)
    with pytest.raises(ChannelNotFoundError):
        await answer(front.ask(connect_id, Restore()))
    await answer(front.ask(connect_id, Establish(request)))
    past = asyncio.get_running_loop().time() - 1
    with pytest.raises(DeadlineExceededError):
        await answer(front.ask(connect_id, Encrypt(b"late", deadline=past)))


async def test_a_channel_is_its_owners_alone_through_whichever_worker(workers: Workers) -> None:
    front, back, request = elsewhere(workers)
    connect_id = connect_id_of(request)
    await answer(front.ask(connect_id, Establish(request), OWNER))
    await answer(back.ask(connect_id, Encrypt(b"mine"), OWNER))
    for worker in (front, back):
        for stranger in (b"", bytes(16)):
            with pytest.raises(ChannelNotFoundError):
                await answer(worker.ask(connect_id, Encrypt(b"not mine"), stranger))
            with pytest.raises(ChannelExistsError):
                await answer(worker.ask(connect_id, Establish(request), stranger))


async def test_operations_of_a_channel_keep_their_order_across_the_link(workers: Workers) -> None:
    front, _, request = elsewhere(workers)
    connect_id = connect_id_of(request)
    replies = [front.ask(connect_id, Establish(request))]
    replies += [front.ask(connect_id, Encrypt(b"", number)) for number in range(200)]
    replies.append(front.ask(connect_id, Close()))
    replies.append(front.ask(connect_id, Encrypt(b"")))
    _, *payloads = [await answer(reply) for reply in replies[:201]]
    assert [payload.header.request_id for payload in payloads] == list(range(200))
    assert [payload.header.message_number for payload in payloads] == list(range(200))
    assert await answer(replies[201]) is None
    with pytest.raises(ChannelNotFoundError):
        await answer(replies[202])


def channel_of(number: int) -> wire.EstablishRequest:
    """Return the request of some channel of a worker."""
    requests = (establish_request(seed)[1] for seed in range(100))
    return next(request for request in requests if worker_of(connect_id_of(request), 2) == number)


async def test_nothing_is_answered_across_the_link_before_its_commit(workers: Workers) -> None:
    front, back = workers
    request = channel_of(1)
    journal = back.house.journal
    assert isinstance(journal, ScriptedJournal)
    await answer(front.ask(connect_id_of(request), Establish(request)))
    journal.gate.clear()
    journal.entered.clear()
    reply = front.ask(connect_id_of(request), Encrypt(b"waits"))
    await until(journal.entered.is_set)
    assert not reply.done()
    journal.gate.set()
    assert (await answer(reply)).header.message_number == 0


async def test_what_one_accepted_is_finished_by_the_other_though_both_stop(
    workers: Workers,
) -> None:
    front, back, request = elsewhere(workers)
    connect_id = connect_id_of(request)
    await answer(front.ask(connect_id, Establish(request)))
    stopping = asyncio.ensure_future(back.routes.drain())
    await asyncio.sleep(0)
    # The other has no calls left, but this one has.
    assert (await answer(front.ask(connect_id, Encrypt(b"")))).header.message_number == 0
    assert not stopping.done()
    await asyncio.wait_for(front.routes.drain(), 10)
    await asyncio.wait_for(stopping, PATIENCE)
    assert (front.lost, back.lost) == (0, 0)


async def test_the_end_of_one_is_told_once_and_its_channels_are_refused(workers: Workers) -> None:
    front, back = workers
    request = channel_of(1)
    journal = back.house.journal
    assert isinstance(journal, ScriptedJournal)
    connect_id = connect_id_of(request)
    await answer(front.ask(connect_id, Establish(request)))
    journal.gate.clear()
    journal.entered.clear()
    under_way = front.ask(connect_id, Encrypt(b"waits"))
    await until(journal.entered.is_set)
    back.connection.shutdown(socket.SHUT_RDWR)
    with pytest.raises(WriteUncertainError):
        await answer(under_way)
    with pytest.raises(ShuttingDownError):
        await answer(front.ask(connect_id, Encrypt(b"never got there")))
    assert front.lost == 1
    journal.gate.set()
