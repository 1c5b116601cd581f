"""``DispatchedActor``: a Pykka actor without a thread of its own.

It behaves as ``pykka.ThreadingActor`` does (ask, tell, proxy, hooks, registry), on Pykka's
extension points for new actor types; ``tests/actors/test_behaviour.py`` holds the two against each
other. Hooks and handlers run on the dispatcher's thread, one at a time, and must not block it.

Where it differs, on purpose:

1. ``start()`` takes the dispatcher. On the dispatcher's own thread, waiting for an answer by
   blocking never returns: return ``ANSWER_LATER``, and answer when the other has.
2. A handler can answer later: it keeps ``self.sender`` and returns ``ANSWER_LATER``.
3. The mailbox is bounded (``mailbox_capacity``); ``signal`` passes the bound.
4. Every ask is answered once, also one that races with the actor's stop, and one whose handler
   raised a ``BaseException``: Pykka leaves these without an answer.
5. A ``BaseException`` stops all actors, as in Pykka, and is logged as critical; the event loop goes
   on. ``asyncio.CancelledError`` is taken for an ordinary exception: on an event loop it says that
   some operation was cancelled, not that the process is to end.

As in Pykka, an exception in an asked handler goes to the asker and the actor goes on with whatever
state it has; only in a told one it is the actor's end, with ``on_failure``. After a failed
``on_start`` neither ``on_failure`` nor ``on_stop`` is called.
"""

import asyncio
import logging
import sys
import threading
from collections import deque
from contextvars import ContextVar
from typing import Any, ClassVar, Final, Self

from pykka import Actor, ActorDeadError, ActorRef, ActorRegistry, Future, ThreadingFuture
from pykka.messages import ProxyCall, ProxyGetAttr, ProxySetAttr, _ActorStop

from connect_actor.actors.dispatcher import Dispatcher
from connect_actor.actors.mailbox import (
    DEFAULT_CAPACITY,
    AnyReply,
    Envelope,
    Mailbox,
    answer,
    refuse,
)
from connect_actor.actors.registry import use_ordered_registry
from connect_actor.reply import AwaitedReply

__all__ = ["ANSWER_LATER", "DispatchedActor", "ask", "mailbox_of", "signal"]

# What Pykka itself does something about, before ``on_receive``.
_FOR_PYKKA = frozenset({_ActorStop, ProxyCall, ProxyGetAttr, ProxySetAttr})

_log = logging.getLogger(__name__)

_starting_on: ContextVar[Dispatcher] = ContextVar("starting_on")

use_ordered_registry()


class _AnswerLater:
    def __repr__(self) -> str:
        return "ANSWER_LATER"


ANSWER_LATER: Final = _AnswerLater()
"""What a handler returns to say that it has kept ``self.sender`` and sets it some other time."""


class StopFlag:
    """What Pykka uses of a ``threading.Event``, in a twentieth of its memory until waited for."""

    __slots__ = ("_event", "_set")

    def __init__(self) -> None:
        self._set = False
        self._event: threading.Event | None = None

    def is_set(self) -> bool:
        """Say whether the actor has stopped."""
        return self._set

    def set(self) -> None:
        """Say that the actor has stopped."""
        self._set = True
        if self._event is not None:
            self._event.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until it has, or for so many seconds; return whether it has."""
        with _flag_lock:
            event = self._event = self._event or threading.Event()
        # Looked at after the event is in place: ``set`` goes the other way round.
        return self._set or event.wait(timeout)


_flag_lock = threading.Lock()


class DispatchedActor(Actor):
    """An actor whose turns a ``Dispatcher`` gives; see the module's text.

    Example::

        class Counter(DispatchedActor):
            def __init__(self) -> None:
                super().__init__()
                self.total = 0

            def on_receive(self, message: int) -> int:
                self.total += message
                return self.total

        with Dispatcher.in_thread() as dispatcher:
            counter = Counter.start(dispatcher=dispatcher)
            counter.tell(1)
            assert counter.ask(2) == 3
            counter.stop()
    """

    mailbox_capacity: ClassVar[int] = DEFAULT_CAPACITY
    """Messages that may wait; read when an actor is made."""

    dispatcher: Dispatcher
    """Gives this actor its turns."""

    sender: Any = None
    """Where the answer to the message in hand goes; None for a told one. Only while handling it."""

    actor_inbox: Mailbox

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - Pykka's signature
        super().__init__(*args, **kwargs)
        try:
            self.dispatcher = _starting_on.get()
        except LookupError:
            raise TypeError(f"use {type(self).__name__}.start() to make the actor") from None
        # Pykka has made an Event; a lighter flag takes its place before anyone has seen it.
        self.actor_stopped = self._actor_ref.actor_stopped = StopFlag()  # type: ignore[assignment]
        self.actor_inbox.bind(self, self._actor_ref, self.dispatcher, self.mailbox_capacity)

    @classmethod
    def start(cls, *args: Any, dispatcher: Dispatcher, **kwargs: Any) -> ActorRef[Self]:  # noqa: ANN401 - Pykka's signature
        """Start an actor on a dispatcher; the other arguments go to the constructor.

        ``on_start`` runs in the actor's first turn, on the dispatcher's thread.
        """
        token = _starting_on.set(dispatcher)
        try:
            return super().start(*args, **kwargs)
        finally:
            _starting_on.reset(token)

    def signal(self, message: object) -> None:
        """Put a message into this actor's own mailbox, however full; dropped once it has stopped.

        For what an actor's collaborators (its journal, its timers) report: few by nature, and
        never to be lost for lack of room. Any thread may call it.
        """
        self.actor_inbox.put_signal(message)

    # --- Pykka's extension points for actor types -------------------------------------------------

    @staticmethod
    def _create_actor_inbox() -> Mailbox:
        return Mailbox()

    @staticmethod
    def _create_future() -> Future[Any]:
        return ThreadingFuture()

    def _start_actor_loop(self) -> None:
        self.dispatcher.schedule(_FirstTurn(self))

    # --- The receive loop, one turn at a time -----------------------------------------------------

    def take_turn(self, waiting: deque[Envelope[Any]]) -> bool:
        """Handle messages until the turn is over: Pykka's receive loop, cut into turns.

        Returns:
            Whether the actor lives on.
        """
        stopped = self.actor_stopped
        turn_over = self.dispatcher.turn_over
        while waiting and not stopped.is_set():
            envelope = waiting.popleft()
            self.take(envelope.message, envelope.reply_to)
            if waiting and turn_over():
                break
        return not stopped.is_set()

    def take(self, message: Any, reply: AnyReply | None) -> None:  # noqa: ANN401 - any message
        """Handle one message, and answer it as Pykka does."""
        self.sender = reply
        try:
            try:
                if type(message) in _FOR_PYKKA:
                    result = self._handle_receive(message)
                else:
                    result = self.on_receive(message)
                if reply is not None and result is not ANSWER_LATER:
                    answer(reply, result)
            except (Exception, asyncio.CancelledError):  # noqa: BLE001 - as in Pykka
                self._fail(reply)
            except BaseException as error:  # noqa: BLE001 - as in Pykka
                self._stop_all(error, reply)
        except BaseException:  # noqa: BLE001 - logged by _handle_failure
            # A hook raised what Pykka does not expect of it; with a thread it would end that.
            self._handle_failure(*sys.exc_info())
        self.sender = None

    def postpone(self, message: object) -> object:
        """Put the message in hand into the mailbox, if it is being served at once.

        For what may take longer than others should wait: it gets a turn of its caller's flow.

        Returns:
            ``ANSWER_LATER``; None if the message is in such a turn already.
        """
        if self.actor_inbox.scheduled:
            return None
        self.actor_inbox.put_asked(message, self.sender)
        return ANSWER_LATER

    def _fail(self, reply: AnyReply | None) -> None:
        """Do with the exception in hand what Pykka does: tell the asker, or end."""
        if reply is None:
            self._handle_failure(*sys.exc_info())
            try:
                self.on_failure(*sys.exc_info())
            except Exception:  # noqa: BLE001 - logged by _handle_failure
                self._handle_failure(*sys.exc_info())
            return
        _log.debug("exception returned from %s to the asker", self, exc_info=True)
        try:
            refuse(reply, sys.exc_info()[1] or RuntimeError("no exception in hand"))
        except Exception:  # noqa: BLE001 - whatever a foreign future may raise
            # Answered already: the handler set ``sender`` itself and then returned or raised.
            _log.exception("%s has more than one answer to a message", self)

    def _stop_all(self, error: BaseException, reply: AnyReply | None) -> None:
        _log.critical("%r in %s: stopping all actors", error, self)
        self._stop()
        # A turn, should this not be one, in which the mailbox ends.
        self.actor_inbox.put_signal(None)
        # Pykka's own loop blocks here for each; this thread is the one they need for stopping.
        ActorRegistry.stop_all(block=False)
        if reply is not None:
            # Not the error itself: raised in the asker's task, it would end the event loop.
            dead = ActorDeadError(f"{self} stopped in mid-message by {type(error).__name__}")
            refuse(reply, dead)

    def abandon(self) -> None:
        """End without another turn, and without hooks: the dispatcher is closed."""
        ActorRegistry.unregister(self.actor_ref)
        self.actor_stopped.set()


class _FirstTurn:
    """An actor's ``on_start``, and what came meanwhile."""

    __slots__ = ("_actor",)

    def __init__(self, actor: DispatchedActor) -> None:
        self._actor = actor

    def run(self) -> None:
        try:
            self._actor._actor_loop_setup()  # noqa: SLF001 - Pykka's, for actor types
        except BaseException:  # noqa: BLE001 - logged by _handle_failure; see take_turn
            self._actor._handle_failure(*sys.exc_info())  # noqa: SLF001
        self._actor.actor_inbox.run()

    def abandon(self) -> None:
        self._actor.actor_inbox.abandon()


def mailbox_of(ref: ActorRef[Any]) -> Mailbox:
    """Return the mailbox behind a dispatched actor's ref.

    Raises:
        TypeError: the actor is of another type.
    """
    inbox = ref.actor_inbox
    if not isinstance(inbox, Mailbox):
        raise TypeError(f"{ref} is no dispatched actor")
    return inbox


def ask(ref: ActorRef[Any], message: object) -> AwaitedReply:
    """Ask a dispatched actor for an answer that a task of its event loop awaits.

    ``ActorRef.ask`` gives Pykka's own future, which can only be waited for by blocking a thread.

    Raises:
        TypeError: the actor is of another type.
    """
    reply = AwaitedReply()
    mailbox_of(ref).put_asked(message, reply)
    return reply


def signal(ref: ActorRef[Any], message: object) -> None:
    """Put a message into an actor's mailbox, however full: see ``DispatchedActor.signal``.

    Raises:
        TypeError: the actor is of another type.
    """
    mailbox_of(ref).put_signal(message)
