"""A link to one other worker: commands go out, answers come back, and the other way round.

Everything that is said in one pass of the event loop goes in one write. Commands keep their order,
so those of one channel reach it in the order in which this worker took them; answers come in the
order in which they are ready.

What is on a link is bounded by the admission of the worker that took it on (``rpc
.admission``): it counts an operation until it is answered, wherever its channel is, and the shares
of all workers make up the bound of the service. So no worker is ever handed more than that.

If the other worker is gone, what was not sent yet is refused as not done, and what was sent as of
unknown outcome; so is whatever is asked for from then on, as not done.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

from connect_actor.actors.commands import Command, Restore
from connect_actor.actors.work import payer_of
from connect_actor.errors import (
    ConnectError,
    ReadFailedError,
    ShuttingDownError,
    WriteUncertainError,
)
from connect_actor.observe.tracing import id_of, tracing
from connect_actor.reply import Reply
from connect_actor.rpc.status import public_error
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

__all__ = ["Link", "Route"]

_log = logging.getLogger(__name__)

Route = Callable[[int, Command, Reply, bytes], None]
"""``Router.route``."""


class _Answering(Reply):
    """Sends the answer to another worker's command back to it."""

    __slots__ = ("_link", "_number", "_remote")

    def __init__(self, link: "Link", request: Request) -> None:
        self._remote = _RemotePayer(request.owner)
        super().__init__(self._remote, request.request_id)
        self._link = link
        self._number = request.number

    def answer(self, value: Any) -> None:  # noqa: ANN401 - each command has its own
        """See ``Reply``."""
        self._link.answer(answer_with(self._number, value, self._remote.work))

    def refuse(self, error: BaseException) -> None:
        """See ``Reply``."""
        self._link.answer(refuse_with(self._number, public_error(error), self._remote.work))


class _RemotePayer:
    """Whoever pays at the other worker, which is told with the answer what is charged."""

    __slots__ = ("flow", "work")

    debt = 0.0
    """Only the other worker knows."""

    def __init__(self, owner: bytes) -> None:
        self.flow = owner
        self.work = 0

    def charge(self, work: int) -> None:
        """See ``Payer``."""
        self.work += work


class Link(asyncio.Protocol):
    """One end of a link, on the event loop's thread."""

    def __init__(self, peer: int, route: Route, on_lost: Callable[[], object]) -> None:
        """Prepare for a connection.

        Args:
            peer: the other worker's number.
            route: takes its commands.
            on_lost: called if the other worker goes before both have finished.
        """
        self._peer = peer
        self._route = route
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self._reader = FrameReader()
        self._requests: list[Request] = []
        self._answers: list[Answer] = []
        self._flushing = False
        self._tracing = tracing()
        self._next_number = 0
        self._waiting: dict[int, tuple[type[Command], Reply]] = {}
        self._finished = False
        self.peer_finished = asyncio.Event()
        """Set once the other worker hands on nothing more, or is gone."""

    @property
    def closed(self) -> bool:
        """Whether there is no connection any more."""
        return self._transport is None

    def hand_on(self, connect_id: int, command: Command, reply: Reply, owner: bytes = b"") -> None:
        """See that a command gets to its channel, which is the other's; ``Router.route``."""
        if self.closed:
            reply.refuse(self._gone())
            return
        number = self._next_number
        self._next_number += 1
        self._waiting[number] = type(command), reply
        request_id = id_of(reply) if self._tracing else None
        self._requests.append(request_for(number, connect_id, command, owner, request_id))
        if not self._flushing:
            self._flush_soon()

    def answer(self, answer: Answer) -> None:
        """Send an answer."""
        self._answers.append(answer)
        if not self._flushing:
            self._flush_soon()

    def finish(self) -> None:
        """Say that nothing more will be handed on; the other's commands are answered still."""
        self._finished = True
        if not self._flushing:
            self._flush_soon()

    def close(self) -> None:
        """Send what is to be sent, and close the connection."""
        self._finished = True
        self._flush()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Break the connection off."""
        if self._transport is not None:
            self._transport.abort()

    def _flush_soon(self) -> None:
        """Send what there is with whatever else comes in this pass of the loop."""
        self._flushing = True
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        requests, self._requests = self._requests, []
        answers, self._answers = self._answers, []
        self._flushing = False
        if self._transport is not None:
            self._transport.write(encode(requests, answers, finished=self._finished))

    def _gone(self) -> ConnectError:
        return ShuttingDownError(
            f"worker {self._peer}, which has the channel, has ended, so nothing was done: try again"
        )

    # --- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.WriteTransport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        try:
            for frame in self._reader.read(data):
                for request in frame.requests:
                    self._take(request)
                for answer in frame.answers:
                    self._take_answer(answer)
                if frame.finished:
                    self.peer_finished.set()
        except FrameError as error:
            _log.error("worker %d is not understood: %s", self._peer, error)
            self.abort()

    def _take(self, request: Request) -> None:
        reply = _Answering(self, request)
        self._route(request.connect_id, request.command, reply, request.owner)

    def _take_answer(self, answer: Answer) -> None:
        try:
            _, reply = self._waiting.pop(answer.number)
        except KeyError:
            raise FrameError(f"request {answer.number} waits for no answer") from None
        payer = payer_of(reply)
        if answer.work and payer is not None:
            payer.charge(answer.work)
        if type(answer) is Refusal:
            reply.refuse(answer.error)
        else:
            reply.answer(answer.result)

    def connection_lost(self, _: Exception | None) -> None:
        """See asyncio."""
        self._transport = None
        over = self._finished and self.peer_finished.is_set()
        self.peer_finished.set()
        unsent = {request.number for request in self._requests}
        waiting, self._waiting = self._waiting, {}
        for number, (kind, reply) in waiting.items():
            reply.refuse(self._gone() if number in unsent else _unknown(kind))
        if not over:
            _log.error("worker %d has ended", self._peer)
            self._on_lost()


def _unknown(kind: type[Command]) -> ConnectError:
    """Return what to say for a command that was sent to a worker that has gone."""
    if kind is Restore:
        return ReadFailedError("the worker that has the channel has ended: try again")
    return WriteUncertainError(
        "the worker that has the channel has ended: whether the operation was done is unknown"
    )
