"""Where the answer to a command goes, and who pays for the work that the command takes.

A command travels with its reply from the RPC, or from another worker, to the channel's actor.
Exactly one of ``answer`` and ``refuse`` is called, once, on the event loop's thread.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Hashable
from functools import partial
from typing import Any, Protocol

__all__ = ["AwaitedReply", "Payer", "Reply", "ReplyWithEnd"]


class Payer(Protocol):
    """Whom a message's work is charged to. On the event loop's thread."""

    @property
    def flow(self) -> Hashable:
        """The flow that its turns belong to; None: the service's own."""

    @property
    def debt(self) -> float:
        """Seconds until all that was charged is paid; 0: nothing is owed."""

    def charge(self, work: int) -> None:
        """Charge so many steps."""


class Reply(ABC):
    """Takes the one answer to a command."""

    __slots__ = ("payer", "request_id")

    def __init__(self, payer: Payer | None = None, request_id: str | None = None) -> None:
        """Be the reply to a command.

        Args:
            payer: who pays for the command's work, if that is known.
            request_id: names the command in the log; None unless steps are logged.
        """
        self.payer = payer
        self.request_id = request_id

    @abstractmethod
    def answer(self, value: Any) -> None:  # noqa: ANN401 - each command has its own
        """Take the answer."""

    @abstractmethod
    def refuse(self, error: BaseException) -> None:
        """Take the error that the command ended with."""


class ReplyWithEnd(Reply):
    """Hands its answer on to another reply, and then calls a function."""

    __slots__ = ("_ended", "_reply")

    def __init__(self, reply: Reply, ended: Callable[[], object]) -> None:
        """Stand in for ``reply``; ``ended`` is called once that has its answer."""
        super().__init__(reply.payer, reply.request_id)
        self._reply = reply
        self._ended = ended

    def answer(self, value: Any) -> None:  # noqa: ANN401 - each command has its own
        """See ``Reply``."""
        self._reply.answer(value)
        self._ended()

    def refuse(self, error: BaseException) -> None:
        """See ``Reply``."""
        self._reply.refuse(error)
        self._ended()


class AwaitedReply(Reply):
    """A reply that tasks can await."""

    __slots__ = ("_callbacks", "_done", "_error", "_value")

    def __init__(self, payer: Payer | None = None, request_id: str | None = None) -> None:
        """See ``Reply``."""
        super().__init__(payer, request_id)
        self._done = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[AwaitedReply], object]] = []

    def answer(self, value: Any) -> None:  # noqa: ANN401 - each command has its own
        """See ``Reply``.

        Raises:
            InvalidStateError: there is an answer already.
        """
        self._end(value, None)

    def refuse(self, error: BaseException) -> None:
        """See ``Reply``.

        Raises:
            InvalidStateError: there is an answer already.
        """
        self._end(None, error)

    def _end(self, value: object, error: BaseException | None) -> None:
        if self._done:
            raise asyncio.InvalidStateError("a reply has one answer")
        self._done, self._value, self._error = True, value, error
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def done(self) -> bool:
        """Return whether there is an answer."""
        return self._done

    def add_done_callback(self, callback: Callable[["AwaitedReply"], object]) -> None:
        """Call back within ``answer`` or ``refuse``, or at once if there is an answer already."""
        if self._done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def __await__(self) -> Generator[Any, None, Any]:
        """Return the answer, or raise the error.

        Cancelling the task that waits leaves the reply as it is.
        """
        if not self._done:
            waiter = asyncio.get_running_loop().create_future()
            self.add_done_callback(partial(_wake, waiter))
            yield from waiter
        if self._error is not None:
            raise self._error
        return self._value


def _wake(waiter: "asyncio.Future[None]", _: object) -> None:
    if not waiter.done():  # its task may have been cancelled meanwhile
        waiter.set_result(None)
