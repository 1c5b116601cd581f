"""The mailbox: what an actor has yet to handle, in order, and whether it waits for a turn.

Invariants:

1. Messages are handled in the order put; Pykka's stop is one of them. A message that is served at
   once finds nothing before it: the mailbox is empty and no turn is coming.
2. A mailbox that holds messages has, or has asked for, a turn; an empty one costs memory only. The
   turn belongs to the flow of whoever waits longest for an answer.
3. It holds at most ``capacity`` messages when a message is put. Beyond, a told message raises
   ``MailboxFullError`` to the teller, an asked one is answered with it. Signals and Pykka's stop
   are never refused.
4. Every message with a reply future is answered, whether it comes before, during or after the
   actor's end: a mailbox without an actor still takes turns, to answer ``ActorDeadError``.

Locks are not needed: a deque's ``append`` and ``popleft`` are atomic, and the flag is set and read
in an order that at worst asks for a turn that finds nothing to do.
"""

import logging
from collections import deque
from collections.abc import Hashable
from typing import Any, Protocol, cast

from pykka import ActorDeadError, Future
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from connect_actor.actors.dispatcher import DEEPEST, Dispatcher
from connect_actor.actors.work import payer_of
from connect_actor.errors import OverloadedError
from connect_actor.reply import Reply

__all__ = [
    "DEFAULT_CAPACITY",
    "AnyReply",
    "Envelope",
    "Mailbox",
    "MailboxFullError",
    "Owner",
    "answer",
    "refuse",
]

# As many as Akka stashes by default. At 10 µs a message it is 40 ms of work: more waiting would
# only mean that callers give up before their turn comes.
DEFAULT_CAPACITY = 4_096

_log = logging.getLogger(__name__)


AnyReply = Future[Any] | Reply
"""Where an answer goes: to the future of a Pykka ask, or to a command's reply."""


def answer(reply: AnyReply, value: object) -> None:
    """Give an answer."""
    if isinstance(reply, Reply):
        reply.answer(value)
    else:
        reply.set(value)


def refuse(reply: AnyReply, error: BaseException) -> None:
    """Answer with an error."""
    if isinstance(reply, Reply):
        reply.refuse(error)
    else:
        reply.set_exception((type(error), error, error.__traceback__))


class MailboxFullError(OverloadedError):
    """The actor has more to do than it may keep waiting: try again after a pause."""


class Owner(Protocol):
    """The actor, as its mailbox sees it."""

    def take_turn(self, waiting: deque[Envelope[Any]]) -> bool:
        """Handle some of what waits; return whether the actor lives on."""

    def take(self, message: Any, reply: AnyReply | None) -> None:  # noqa: ANN401 - any message
        """Handle one message."""

    def abandon(self) -> None:
        """End without another turn."""


class Mailbox:
    """An actor's inbox; see the module's text for what it promises.

    ``put``, ``get`` and ``empty`` are what Pykka asks of an inbox. Any thread may put.
    """

    __slots__ = ("_capacity", "_dispatcher", "_flow", "_name", "_owner", "_scheduled", "_waiting")

    _dispatcher: Dispatcher

    def __init__(self) -> None:
        self._waiting: deque[Envelope[Any]] = deque()
        self._owner: Owner | None = None
        self._name: object = "the actor"
        self._capacity = DEFAULT_CAPACITY
        self._flow: Hashable = None  # of the last message that had one: signals come of those
        self._scheduled = True  # what comes before the actor is started waits for its first turn

    def bind(self, owner: Owner, name: object, dispatcher: Dispatcher, capacity: int) -> None:
        """Belong to an actor (``name`` is for its ``ActorDeadError``), before anything is put."""
        self._owner = owner
        self._name = name
        self._dispatcher = dispatcher
        self._capacity = capacity

    @property
    def depth(self) -> int:
        """How many messages wait."""
        return len(self._waiting)

    @property
    def scheduled(self) -> bool:
        """Whether the actor is in a turn of this mailbox, or one is coming."""
        return self._scheduled

    def put(self, envelope: Envelope[Any], /) -> None:
        """Add a message, and ask for a turn if none is coming.

        Raises:
            MailboxFullError: it is full, and the message has no reply future to say so.
        """
        if len(self._waiting) >= self._capacity and type(envelope.message) is not _ActorStop:
            self._refuse(envelope)
            return
        self._waiting.append(envelope)
        # Appended first, looked second: a turn that ends just now looks in the other order.
        if not self._scheduled:
            self._schedule(envelope)

    def serve(self, message: object, reply: AnyReply) -> None:
        """Have an idle actor handle a message at once; put it if the actor is busy.

        On the dispatcher's thread. A message that may take long is to be put, since nobody else
        gets a turn before it: see ``DispatchedActor.postpone``.
        """
        dispatcher, owner = self._dispatcher, self._owner
        if self._scheduled or owner is None or not dispatcher.may_serve():
            self.put_asked(message, reply)
            return
        dispatcher.mailboxes.depths[1] += 1
        dispatcher.in_turn = True
        try:
            owner.take(message, reply)
        finally:
            dispatcher.in_turn = False

    def put_asked(self, message: object, reply: AnyReply | None) -> None:
        """Add a message whose answer goes to ``reply``: see ``put``."""
        # Pykka's envelope carries a future; it looks at it no more than we do.
        self.put(Envelope(message, cast("Future[Any]", reply)))

    def put_signal(self, message: object) -> None:
        """Add a message that is never refused; dropped if the actor has stopped."""
        envelope = Envelope(message)
        self._waiting.append(envelope)
        if not self._scheduled:
            self._schedule(envelope)

    def _schedule(self, first: Envelope[Any]) -> None:
        self._scheduled = True
        payer = payer_of(first.reply_to)
        if payer is not None:
            self._flow = payer.flow
        self._dispatcher.schedule(self, self._flow)

    def get(self) -> Envelope[Any]:
        """Take the message that has waited longest.

        Raises:
            IndexError: there is none.
        """
        return self._waiting.popleft()

    def empty(self) -> bool:
        """Say whether nothing waits."""
        return not self._waiting

    def run(self) -> None:
        """Take a turn: see ``Runnable``."""
        depth = len(self._waiting)
        self._dispatcher.mailboxes.depths[min(DEEPEST, depth)] += 1
        self._dispatcher.in_turn = True
        try:
            if self._owner is not None and not self._owner.take_turn(self._waiting):
                self._let_go()
            if self._owner is None:
                self.refuse_all()
        finally:
            # Whatever happened: a mailbox that keeps its flag up without a turn is dead for ever.
            self._dispatcher.in_turn = self._scheduled = False
            if self._waiting:
                self._schedule(self._waiting[0])

    def abandon(self) -> None:
        """Answer everything with ``ActorDeadError``: see ``Runnable``."""
        self._scheduled = False
        owner = self._owner
        self._let_go()
        if owner is not None:
            owner.abandon()
        self.refuse_all()

    def _let_go(self) -> None:
        """Keep nothing of the actor, which may be large, while its ref may live on."""
        self._owner = None
        # Of the ref, which holds this mailbox, no more than its name.
        self._name = str(self._name)

    def _refuse(self, envelope: Envelope[Any]) -> None:
        self._dispatcher.mailboxes.rejected += 1
        error = MailboxFullError(
            f"{len(self._waiting)} messages wait for this actor, which keeps at most"
            f" {self._capacity}: try again after a pause"
        )
        if envelope.reply_to is None:
            raise error
        refuse(envelope.reply_to, error)

    def refuse_all(self, error: Exception | None = None) -> None:
        """Do as Pykka's teardown does with what is left when an actor has stopped.

        Args:
            error: what to answer with instead of Pykka's ``ActorDeadError``.
        """
        if error is None:
            error = ActorDeadError(f"{self._name} stopped before handling the message")
        while True:
            try:
                envelope = self._waiting.popleft()
            except IndexError:  # also if another thread took the last one
                return
            if envelope.reply_to is None:
                continue
            try:
                if type(envelope.message) is _ActorStop:
                    answer(envelope.reply_to, None)
                else:
                    refuse(envelope.reply_to, error)
            except Exception:  # noqa: BLE001 - whatever a foreign future may raise
                _log.exception("%s could not answer a message after its end", self._name)
