"""Admission: how much the whole service takes on at a time, checked before any work is done for it.

An operation is *under way* from its admission to its answer. What is refused here has cost no more
than being read: no actor, no journal and no cryptography has heard of it. Since every queue behind
(mailboxes, stashes, the committer's) holds only what is under way, this bounds them all together,
and with them how long an accepted operation waits.

Bytes are *held* for an operation from its admission until its answer has been written: a request
first, then an answer of about the same size. Answers that nobody reads count, so that slow readers
can't hold more memory than they are granted together.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Hashable
from dataclasses import dataclass

from connect_actor.errors import OverloadedError

__all__ = ["OVERHEAD_BYTES", "Admission", "Bounds"]

# Streams are read on below this share of the operations; the rest is for the frames that are being
# read already, and for unary calls, which can't be held up.
_READ_BELOW = 0.75

# Operations that a stream is expected to bring when it is read on; and seconds until it is looked
# whether it brought more or less.
_EXPECTED_FRAME = 64
_MOMENT = 0.001

OVERHEAD_BYTES = 1_024
"""What an operation holds beside its own bytes: its slot, command, record and answer."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much work, and how much of it unread, the service bears. Times are seconds."""

    max_operations: int = 4_096
    """Operations under way in the whole service."""
    max_bytes: int = 1 << 30
    """Bytes held for operations in the whole service."""
    max_stream_bytes: int = 8 << 20
    """Bytes held for one stream; beyond, it is not read."""
    slow_reader_timeout: float = 30.0
    """How long an answer may wait for the peer to read it before its call or stream is ended."""
    message_timeout: float = 10.0
    """How long a unary call's message may be on its way."""
    stream_idle_timeout: float = 3_600.0
    """How long a stream may have nothing under way, and bring no frame, before it is ended."""


class Admission:
    """Counts what is under way, and refuses what is beyond the bounds. On the loop's thread."""

    def __init__(self, bounds: Bounds) -> None:
        """Begin with nothing under way."""
        self.bounds = bounds
        self.under_way = 0
        """Operations admitted and not yet answered."""
        self.held_bytes = 0
        """Bytes of those, and of answers not yet written."""
        self._read_below = max(int(bounds.max_operations * _READ_BELOW), 1)
        self._pumping = False
        # By flow, in the order of their next turns.
        self._waiting: OrderedDict[Hashable, deque[asyncio.Future[None]]] = OrderedDict()

    def admit(self, size: int) -> int:
        """Take an operation of so many bytes on; return what is to be given back by ``let_go``.

        Whoever is admitted owes one ``answered`` and one ``let_go``.

        Raises:
            OverloadedError: the service has enough to do, or to hold.
        """
        bounds = self.bounds
        if self.under_way >= bounds.max_operations:
            raise OverloadedError(
                f"{bounds.max_operations} operations are under way in the service:"
                " try again after a pause"
            )
        held = size + OVERHEAD_BYTES
        if self.held_bytes + held > bounds.max_bytes:
            raise OverloadedError(
                f"the service holds {bounds.max_bytes} bytes of requests and of answers that nobody"
                " has read: try again after a pause"
            )
        self.under_way += 1
        self.held_bytes += held
        return held

    def admit_all(self, operations: int, held: int) -> bool:
        """Take operations on that hold so many bytes, ``OVERHEAD_BYTES`` each included.

        As ``admit`` for each of them; or return False, and take none on, if there is not room for
        all.
        """
        bounds = self.bounds
        if (
            self.under_way + operations > bounds.max_operations
            or self.held_bytes + held > bounds.max_bytes
        ):
            return False
        self.under_way += operations
        self.held_bytes += held
        return True

    def answered(self, operations: int = 1) -> None:
        """Count operations as done; whoever has waited longest for room may go on."""
        self.under_way -= operations
        if self._waiting and not self._pumping:
            self._pumping = True
            asyncio.get_running_loop().call_soon(self._pump)

    def let_go(self, held: int) -> None:
        """Count bytes as written, or as given up."""
        self.held_bytes -= held

    async def room(self, flow: Hashable = None) -> None:
        """Wait until the service has room again, behind those of the flow who wait already.

        Flows (``actors.dispatcher``) take turns, however many of each wait.

        To be asked by a stream before it is read on: a peer that sends more than the service can
        do is then held up by the transport, which costs less than refusing all that it sends.
        """
        if self.under_way < self._read_below and not self._waiting:
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(flow, deque()).append(turn)
        await turn

    def _pump(self) -> None:
        room = self._read_below - self.under_way
        self._pumping = room > 0
        if not self._pumping:
            return
        for _ in range(room // _EXPECTED_FRAME + 1):
            self._wake()
        if self._waiting:
            # What those bring is known in a moment; some may bring nothing.
            asyncio.get_running_loop().call_later(_MOMENT, self._pump)
        else:
            self._pumping = False

    def _wake(self) -> None:
        while self._waiting:
            flow, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            if turns:
                self._waiting[flow] = turns
            # Its stream may have ended meanwhile.
            if not turn.done():
                turn.set_result(None)
                return
