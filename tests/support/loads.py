"""Ends, services and transports for tests of the load generator, without network or disk."""

import asyncio
from collections.abc import Callable, Iterator
from itertools import repeat
from typing import TYPE_CHECKING, cast

from connect_actor.client import Channel
from connect_actor.protocol.session import Session
from connect_actor.protocol.wire import payload_from_wire, payload_to_wire
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.channels import ChannelEnd
from connect_loadgen.drive.transport import Listener
from connect_loadgen.drive.workload import Kind, PlannedOperation
from tests.support.channels import NOW, make_ends, seeded

if TYPE_CHECKING:
    # Known to the type checker only.
    from connect_actor.v1.connect_pb2_grpc import ConnectServiceAsyncStub

__all__ = ["CryptoService", "EchoEnd", "PacedService", "echo", "failure", "plan_of"]


def plan_of(*kinds: Kind, payload: bytes = b"x") -> Iterator[PlannedOperation]:
    """Return an endless plan: these kinds in turn, all on the first channel, in order."""
    turn = [PlannedOperation(kind, 0, payload, 0) for kind in kinds]
    return (operation for operations in repeat(turn) for operation in operations)


def failure(operation: wire.Operation, code: int) -> wire.OperationResult:
    """Answer with an error status."""
    result = wire.OperationResult(operation_id=operation.operation_id)
    result.error.code = code
    return result


class EchoEnd:
    """An end that encrypts nothing."""

    def __init__(self, connect_id: int = 1) -> None:
        self.connect_id = connect_id

    def seal(self, plaintext: bytes) -> wire.CipherPayload:
        return wire.CipherPayload(ciphertext=plaintext)

    def open(self, payload: wire.CipherPayload) -> bytes:
        return payload.ciphertext


def echo(operation: wire.Operation) -> wire.OperationResult:
    """Answer as the service at the other end of ``EchoEnd`` must."""
    result = wire.OperationResult(operation_id=operation.operation_id)
    match operation.WhichOneof("request"):
        case "encrypt":
            result.encrypt.payload.ciphertext = operation.encrypt.plaintext
        case "decrypt":
            result.decrypt.plaintext = operation.decrypt.payload.ciphertext
        case "restore":
            result.restore.SetInParent()
        case "close":
            result.close.SetInParent()
    return result


class PacedService:
    """A transport to a service that answers each operation after a time, unless it stalls."""

    def __init__(
        self,
        *,
        batch: int = 1,
        seconds: float = 0.001,
        answer: Callable[[wire.Operation], wire.OperationResult | None] = echo,
    ) -> None:
        self.batch = batch
        self.seconds = seconds
        self.batches: list[list[wire.Operation]] = []
        self.unanswered = 0
        self.most_unanswered = 0
        self._answer = answer
        self._listener: Listener | None = None
        self._stalled_until = 0.0

    def listen(self, listener: Listener) -> None:
        self._listener = listener

    def stall_until(self, time: float) -> None:
        """Answer nothing before this time of the loop."""
        self._stalled_until = time

    def fail(self, error: Exception) -> None:
        assert self._listener is not None
        self._listener.on_failure(error)

    def submit(self, operations: list[wire.Operation]) -> None:
        assert 0 < len(operations) <= self.batch
        loop = asyncio.get_running_loop()
        self.batches.append(list(operations))
        self.unanswered += len(operations)
        self.most_unanswered = max(self.most_unanswered, self.unanswered)
        copies = [wire.Operation.FromString(each.SerializeToString()) for each in operations]
        loop.call_at(loop.time() + self.seconds, self._deliver, copies)

    def _deliver(self, operations: list[wire.Operation]) -> None:
        loop = asyncio.get_running_loop()
        if loop.time() < self._stalled_until:
            loop.call_at(self._stalled_until, self._deliver, operations)
            return
        self.unanswered -= len(operations)
        answers = [self._answer(operation) for operation in operations]
        assert self._listener is not None
        self._listener.on_results([answer for answer in answers if answer is not None])


class CryptoService:
    """The service's ends of some channels: real sessions, honest answers."""

    def __init__(self, channels: int) -> None:
        self._random = seeded(99)
        self._sessions: dict[int, Session] = {}
        self.ends: list[ChannelEnd] = []
        for number in range(1, channels + 1):
            made = make_ends(number)
            self._sessions[number] = made.service
            no_stub = cast("ConnectServiceAsyncStub", None)
            self.ends.append(
                ChannelEnd(Channel(number, made.peer, no_stub, clock=lambda: NOW, random=seeded(1)))
            )

    def encrypt(self, connect_id: int, plaintext: bytes) -> wire.CipherPayload:
        payload, _ = self._sessions[connect_id].encrypt(plaintext, now=NOW, random=self._random)
        message = wire.CipherPayload()
        payload_to_wire(payload, message)
        return message

    def __call__(self, operation: wire.Operation) -> wire.OperationResult:
        result = wire.OperationResult(operation_id=operation.operation_id)
        if operation.WhichOneof("request") == "encrypt":
            request = operation.encrypt
            result.encrypt.payload.CopyFrom(self.encrypt(request.connect_id, request.plaintext))
        else:
            session = self._sessions[operation.decrypt.connect_id]
            payload = payload_from_wire(operation.decrypt.payload)
            result.decrypt.plaintext = session.decrypt(payload, now=NOW)[0]
        return result
