"""The entrance: what a call may hold, from its headers until its message is there and after.

A call is authenticated by its headers, before any of its message is read. Until then it has a
*place* among a bounded number of strangers. After that it needs a place among the readers for as
long as it waits for a message, since gRPC may by then hold as much of it as a message can be. When
places run out, the caller with the most of them loses the one that it has had for the longest: who
floods the service pushes out himself, and a message that comes at once always gets in.

A caller is a principal if callers are authenticated, else the address of its connection.
"""

import asyncio
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Generic, NoReturn, TypeVar, cast

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from connect_actor.access.gate import Caller, Gate
from connect_actor.access.principals import ANONYMOUS
from connect_actor.errors import (
    ConnectError,
    DeadlineExceededError,
    MalformedRequestError,
    OverloadedError,
    UnauthenticatedError,
)
from connect_actor.network.peers import address_of
from connect_actor.rpc.admission import Bounds
from connect_actor.rpc.calls import CallTask
from connect_actor.rpc.status import status_of

__all__ = ["Context", "Entrance", "Place", "Places", "Visit", "parse", "pushed_out"]

Context = grpc.aio.ServicerContext[Any, Any]
"""A call as gRPC hands it to a handler."""
_Message = TypeVar("_Message")
_Item = TypeVar("_Item", bound=Hashable)

# Calls of strangers at a time: those that are being refused, health checks and reflection.
_STRANGERS = 1_024
# Messages that may be read at a time, even where the bound on bytes has room for fewer.
_LEAST_READERS = 16

# Seconds for a stranger whose call is ended for another's to be told so.
_LAST_WORD = 1.0

_PUSHED_OUT = (
    "too many calls wait for messages, and of yours this one has waited longest: send each call"
    " with its message, keep fewer streams open, and try again after a pause"
)


def pushed_out() -> OverloadedError:
    """Return what a call is refused with whose place was needed for another."""
    return OverloadedError(_PUSHED_OUT)


class Place:
    """What a caller has of a bounded number."""

    __slots__ = ("caller", "give_up", "lost")

    def __init__(self, caller: Hashable, give_up: Callable[[], object]) -> None:
        self.caller = caller
        self.give_up: Callable[[], object] | None = give_up
        """Ends what has the place; None once it is given back, so that neither holds the other."""
        self.lost = False
        """Whether it had to be given up for another."""


class Places:
    """A bounded number of places; see the module's text for who gives way."""

    def __init__(self, size: int) -> None:
        """Begin with all of them free."""
        self.size = size
        self.taken = 0
        self.lost = 0
        """Places that had to be given up for others, since the start."""
        # Each caller's, oldest first: dicts keep their order.
        self._by_caller: dict[Hashable, dict[Place, None]] = {}

    def take(self, caller: Hashable, give_up: Callable[[], object]) -> Place:
        """Take a place, which ``leave`` gives back; ``give_up`` is called if it is lost before."""
        if self.taken >= self.size:
            self._lose_one()
        place = Place(caller, give_up)
        self._by_caller.setdefault(caller, {})[place] = None
        self.taken += 1
        return place

    def _lose_one(self) -> None:
        most = max(self._by_caller.values(), key=len)
        oldest = next(iter(most))
        give_up = oldest.give_up
        self.leave(oldest)
        self.lost += 1
        oldest.lost = True
        if give_up is not None:
            give_up()

    def leave(self, place: Place) -> None:
        """Give a place back; one that was lost, or given back, is no longer there."""
        if place.give_up is None:
            return
        place.give_up = None
        own = self._by_caller[place.caller]
        del own[place]
        self.taken -= 1
        if not own:
            del self._by_caller[place.caller]


class _Deadlines(Generic[_Item]):
    """Acts on what is still there after so many seconds; one timer for all of it."""

    def __init__(self, seconds: float, act: Callable[[_Item], object]) -> None:
        self._seconds = seconds
        self._act = act
        # In the order in which they end.
        self._ends: dict[_Item, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __contains__(self, item: _Item) -> bool:
        return item in self._ends

    def add(self, item: _Item) -> None:
        loop = asyncio.get_running_loop()
        self._ends[item] = end = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(end, self._look)

    def discard(self, item: _Item) -> None:
        self._ends.pop(item, None)

    def _look(self) -> None:
        self._timer = None
        loop = asyncio.get_running_loop()
        while self._ends:
            item, end = next(iter(self._ends.items()))
            if end > loop.time():
                self._timer = loop.call_at(end, self._look)
                return
            del self._ends[item]
            self._act(item)


class Entrance:
    """Lets calls in, and ends those that hold what others need. On the loop's thread."""

    def __init__(self, gate: Gate, bounds: Bounds, max_message_bytes: int) -> None:
        """Let in whom ``gate`` admits.

        Args:
            gate: who callers are.
            bounds: bytes that messages may take while they are read; how long one may be on its
                way, and an answer unread.
            max_message_bytes: of one message, whatever its kind.
        """
        self.gate = gate
        self.bounds = bounds
        self.strangers = Places(_STRANGERS)
        self.readers = Places(max(bounds.max_bytes // max_message_bytes, _LEAST_READERS))
        self.reading: _Deadlines[Visit] = _Deadlines(
            bounds.message_timeout, lambda visit: visit.refuse_message(self._late())
        )
        """Calls that wait for their message."""
        self.leaving: _Deadlines[Visit] = _Deadlines(
            bounds.slow_reader_timeout, lambda visit: visit.drop()
        )
        """Calls that are answered or refused, and that is to be written."""
        self.max_calls: int | None = None
        """Open calls of callers who are known; None: any number."""
        self.calls = 0
        """How many of them are open."""
        self._telling: set[asyncio.Task[None]] = set()

    def require_room(self) -> None:
        """Check that another call of a caller who is known may be open.

        Raises:
            OverloadedError: there are as many as may be.
        """
        if self.max_calls is not None and self.calls >= self.max_calls:
            raise OverloadedError(
                f"{self.max_calls} calls are open in the service: try again after a pause"
            )

    def enter(self, context: Context) -> "Visit":
        """Take a call up; ``authenticate`` or ``stay_stranger`` has to come next."""
        return Visit(self, context)

    def _late(self) -> DeadlineExceededError:
        return DeadlineExceededError(
            f"the call's message was not complete within {self.bounds.message_timeout:g} s:"
            " nothing was changed"
        )

    def tell(self, visit: "Visit", refusal: ConnectError) -> None:
        """End a call by a refusal, from beside its handler."""
        telling = asyncio.ensure_future(_tell(visit, refusal))
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)


class Visit:
    """One call, from its headers to its end."""

    __slots__ = (
        "_aborted",
        "_caller",
        "_entrance",
        "_over",
        "_place",
        "_refused",
        "_task",
        "context",
    )

    def __init__(self, entrance: Entrance, context: Context) -> None:
        self.context = context
        self._entrance = entrance
        self._caller: Hashable = None
        self._place: Place | None = None
        self._refused: ConnectError | None = None
        self._aborted: grpc.aio.AbortError | None = None
        self._over = False
        self._task = CallTask.current()
        self.when_over(self._end)

    def _end(self) -> None:
        self._over = True
        if self._place is not None:
            self._entrance.strangers.leave(self._place)
        elif self._caller is not None:
            self._entrance.calls -= 1
        self._entrance.leaving.discard(self)
        if self._aborted is not None:
            # gRPC's call holds the error, whose frames hold the call: it would not be freed.
            self._aborted.__traceback__ = None

    def when_over(self, act: Callable[[], object]) -> None:
        """Do something when the call has ended: all of it is written, or it was dropped."""
        self._task.when_over(act)

    def authenticate(self) -> Caller:
        """Return who calls. A call that is refused stays a stranger's.

        Raises:
            OverloadedError: too many calls are open.
            UnauthenticatedError: who calls was not shown.
        """
        try:
            caller = self._entrance.gate.admit(self.context)
            self._entrance.require_room()
        except (OverloadedError, UnauthenticatedError):
            self.stay_stranger()
            raise
        self._entrance.calls += 1
        anonymous = caller.owner == ANONYMOUS.owner
        self._caller = address_of(self.context.peer()) if anonymous else caller.owner
        return caller

    def stay_stranger(self) -> None:
        """Take a stranger's place, until the call has ended."""
        self._caller = address_of(self.context.peer())
        self._place = self._entrance.strangers.take(self._caller, self._push_out)

    def _push_out(self) -> None:
        """End a stranger's call for another's."""
        if self not in self._entrance.leaving:
            self.give_up(pushed_out())
            asyncio.get_running_loop().call_later(_LAST_WORD, self.drop)
        else:
            self.drop()

    async def message(self) -> bytes:
        """Return the one message of a call.

        Raises:
            DeadlineExceededError: it was not complete in time.
            MalformedRequestError: there is none.
            OverloadedError: others need the place in which it was waited for.
        """
        entrance = self._entrance
        place = self.reading(self._lose_message)
        entrance.reading.add(self)
        try:
            message = await self.context.read()
        except asyncio.CancelledError:
            if self._refused is None or not self._task.uncancelled():
                raise
            raise self._taken_refusal() from None
        finally:
            entrance.reading.discard(self)
            entrance.readers.leave(place)
        if message is grpc.aio.EOF:
            raise MalformedRequestError("the call has ended without a message: send one")
        return cast("bytes", message)

    def _taken_refusal(self) -> ConnectError:
        # Kept, its traceback would hold the call, and the call it.
        refusal, self._refused = self._refused, None
        return refusal or pushed_out()

    def refuse_message(self, refusal: ConnectError) -> None:
        """Wait no more for the message."""
        if self._refused is None:
            self._refused = refusal
            self._task.cancel_handler()

    def _lose_message(self) -> None:
        self.refuse_message(pushed_out())

    def reading(self, give_up: Callable[[], object]) -> Place:
        """Take a place among those that wait for a message; ``read`` gives it back."""
        return self._entrance.readers.take(self._caller, give_up)

    def read(self, place: Place) -> None:
        """Give the place back: the message is there and taken up."""
        self._entrance.readers.leave(place)

    def leave(self) -> None:
        """Give what is left to be written some time, and no more."""
        if not self._over:
            self._entrance.leaving.add(self)

    async def abort(self, refusal: ConnectError, *metadata: tuple[str, str]) -> NoReturn:
        """End the call by a refusal, with its details.

        Raises:
            grpc.aio.AbortError: always, as gRPC wants it.
        """
        status = rpc_status.to_status(status_of(refusal))
        details = (*status.trailing_metadata, *metadata)
        try:
            await self.context.abort(status.code, status.details, details)
        except grpc.aio.AbortError as error:
            self._aborted = error
            raise

    def give_up(self, refusal: ConnectError) -> None:
        """End the call by a refusal, whatever its handler does."""
        self._entrance.tell(self, refusal)
        self._task.cancel_handler()

    def drop(self) -> None:
        """End the call at once, without a word."""
        self._task.drop()


def parse(kind: Callable[[bytes], _Message], message: bytes) -> _Message:
    """Return the message that these bytes are.

    Raises:
        MalformedRequestError: they are none of this kind.
    """
    try:
        return kind(message)
    except DecodeError:
        raise MalformedRequestError(
            "the bytes are no message of this method: see its proto"
        ) from None


async def _tell(visit: Visit, refusal: ConnectError) -> None:
    # What is refused, or over, can't be refused again.
    with suppress(grpc.aio.BaseError):
        await visit.abort(refusal)
