"""A load that costs the generator next to nothing while it lasts, so that the service is the limit.

A peer in Python takes as long for a message as the service does. So everything that peers do is
done at another time: messages are made, and sealed, before the first is sent, and every answer is
opened and compared after the last has come. In between frames go out and come in, so many
operations in flight, and nobody looks at them.

No peer hears from the service before all is over, so none turns its DH ratchet meanwhile.
"""

import asyncio
import gc
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.peer import Outcome, PeerEnd, Peers
from connect_loadgen.drive.self_check import SelfCheck
from connect_loadgen.drive.transport import Transport, TransportError
from connect_loadgen.drive.workload import Workload
from connect_loadgen.settings.load import LoadSettings

__all__ = ["Fired", "Gunner", "MeasureError", "Salvo", "fire"]


class MeasureError(Exception):
    """A figure could not be measured; the message says why."""


@dataclass(frozen=True, slots=True)
class Fired:
    """How salvos went that were fired at once."""

    messages: int
    seconds: float
    """From the first message sent until the last answer."""
    generator: SelfCheck


class Gunner:
    """Makes salvos for one transport, one after the other, on the same channels."""

    def __init__(self, transport: Transport, ends: Sequence[PeerEnd], load: LoadSettings) -> None:
        """Begin with these channels; the load says which operations, on which of them."""
        self._transport = transport
        self._peers = Peers(ends, Workload.of(load).operations())

    def load(self, messages: int, in_flight: int) -> "Salvo":
        """Make a salvo of so many messages; they have to be fired and checked in this order."""
        pending = [self._peers.begin() for _ in range(messages)]
        pending += self._peers.release_held()
        return Salvo(self._transport, self._peers, [each.request for each in pending], in_flight)


class Salvo:
    """Messages that are ready to be sent, and then their answers."""

    def __init__(
        self,
        transport: Transport,
        peers: Peers,
        operations: Sequence[wire.Operation],
        in_flight: int,
    ) -> None:
        """Take over what a gunner has made."""
        self.messages = len(operations)
        self._transport = transport
        self._peers = peers
        self._in_flight = in_flight
        self._batches = deque(
            list(operations[first : first + transport.batch])
            for first in range(0, len(operations), transport.batch)
        )
        self._sent = self._answered = 0
        self._answers: list[Iterable[wire.OperationResult]] = []
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def fire(self) -> None:
        """Send all of it, and wait for the last answer.

        Raises:
            TransportError: the transport failed.
        """
        self._transport.listen(self)
        self._send()
        await self._done

    def on_results(self, results: Iterable[wire.OperationResult]) -> None:
        """Keep answers, unread."""
        kept = list(results)
        self._answers.append(kept)
        self._answered += len(kept)
        self._send()
        if self._answered >= self.messages and not self._done.done():
            self._done.set_result(None)

    def on_failure(self, error: Exception) -> None:
        """Give up."""
        if not self._done.done():
            self._done.set_exception(error)

    def check(self) -> None:
        """Open and compare every answer.

        Raises:
            MeasureError: one is wrong, or an error.
        """
        for answers in self._answers:
            for answer in answers:
                try:
                    finished = self._peers.settle(answer)
                except KeyError:
                    raise MeasureError("an answer came that nobody asked for") from None
                if finished is None or finished.outcome is Outcome.WRONG:
                    raise MeasureError("an answer was WRONG")
                if finished.outcome is Outcome.ERROR:
                    raise MeasureError(f"an operation failed: {finished.status}")
        self._answers.clear()

    def _send(self) -> None:
        batches = self._batches
        while batches and self._sent - self._answered + len(batches[0]) <= self._in_flight:
            self._sent += len(batches[0])
            self._transport.submit(batches.popleft())


async def fire(salvos: Sequence[Salvo], patience: float) -> Fired:
    """Fire salvos at once, each on its own transport.

    Args:
        salvos: none of them fired before.
        patience: how long all of it may take, seconds.

    Raises:
        TransportError: a transport failed, or an answer did not come in time.
    """
    gc.collect()
    gc.freeze()
    try:
        async with SelfCheck() as check:
            begun = time.perf_counter()
            await asyncio.wait_for(asyncio.gather(*(each.fire() for each in salvos)), patience)
            seconds = time.perf_counter() - begun
    except TimeoutError:
        raise TransportError(f"not all answers came within {patience:g} s") from None
    finally:
        gc.unfreeze()
    return Fired(sum(each.messages for each in salvos), seconds, check)
