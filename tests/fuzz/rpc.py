"""Targets of the RPCs: every operation through the real servicer, router, actor and journal."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, ClassVar, NoReturn, cast

import grpc
from google.protobuf.message import DecodeError, Message

from connect_actor.actors.router import _Live
from connect_actor.persistence.memory import MemoryJournal
from connect_actor.protocol.wire import payload_to_wire
from connect_actor.rpc.entrance import Context
from connect_actor.rpc.exchange import MAX_OPERATIONS
from connect_actor.rpc.operations import OPERATIONS
from connect_actor.rpc.servicer import ConnectServicer
from connect_actor.v1 import connect_pb2 as wire
from tests.fuzz.target import FaultError, require
from tests.support.calls import CallContext, RefusedError
from tests.support.channels import seeded
from tests.support.house import House, PeerEnd, until

__all__ = ["RPC_TARGETS", "AnsweredContext"]

_MAX_SKIP = 1_000
_UNKNOWN_CHANNEL = 123_456
# Changes after which the channel is made anew, so that valid messages are valid again.
_CHANGES = 100


class AnsweredContext(CallContext):
    """A call whose refusal has to say why."""

    async def abort(self, code: grpc.StatusCode, *status: object) -> NoReturn:
        require(code is not grpc.StatusCode.OK, "refused with OK")
        require(code is not grpc.StatusCode.UNKNOWN, "a defect became a status")
        await super().abort(code, *status)


def answered(message: Message | bytes) -> Context:
    """Return a call with this message, whose refusal has to say why."""
    return cast("Context", AnsweredContext(message))


class _Defects(logging.Handler):
    """What the service itself takes for a defect."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class _RpcTarget:
    """A service with one channel, and whoever looks at it after each input."""

    style: ClassVar[str] = "message"
    max_steps: ClassVar[int] = 4 * (3 * _MAX_SKIP + 2)
    base_bytes: ClassVar[int] = 0

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._defects = _Defects()
        logging.getLogger("connect_actor").addHandler(self._defects)
        self._run(self._open())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._runner.run(work)

    async def _open(self) -> None:
        self._house = House(MemoryJournal(), restart_backoff=1e-6)
        self.servicer = ConnectServicer(
            self._house.router, max_message_bytes=16_384, max_frame_bytes=65_536, max_in_flight=64
        )
        await self._establish()

    async def _establish(self) -> None:
        # The service's keys are the same each time, so that the corpus fits them.
        object.__setattr__(self._house.environment, "random", seeded(5))
        self.end: PeerEnd = await self._house.establish()
        self._changes = 0
        self._before = self._standing()

    def _standing(self) -> tuple[bytes, int]:
        """Return the channel's session in memory, and its highest sequence number in the journal.

        A channel that is gone has none.
        """
        live = self._house.router._channels.get(self.end.connect_id)
        if type(live) is not _Live:
            return b"", 0
        phase = cast("Any", live.mailbox._owner)._phase
        session = getattr(phase, "_session", None)
        number = self._house.journal.highest_sequence_number(self.end.connect_id)
        return (b"" if session is None else session.encode()), number

    async def check(self, *, accepted: bool) -> None:
        """Check what must hold after an input."""
        if self._defects.records:
            record = self._defects.records.pop()
            self._defects.records.clear()
            raise FaultError(f"logged: {record.getMessage()}") from (record.exc_info or (0, None))[
                1
            ]
        require(self._house.statistics.crashed == 0, "an actor crashed")
        standing = self._standing()
        if not accepted:
            require(standing == self._before, "what was refused changed the channel")
        self._changes += standing != self._before
        self._before = standing
        if self._changes > _CHANGES and standing[0]:
            close = wire.CloseRequest(connect_id=self.end.connect_id)
            await self.servicer.call(OPERATIONS["close"], None, answered(close))
        if self._changes > _CHANGES or not standing[0]:
            await until(lambda: self.end.connect_id not in self._house.router._channels)
            await self._establish()

    def operations(self) -> Mapping[str, wire.Operation]:
        """Return an operation of every kind, and of every way for it to be refused."""
        connect_id = self.end.connect_id
        request = wire.EstablishRequest.FromString(self.end.session.handshake.request)
        decrypts = {}
        lost = self.end.seal(b"lost")
        for name in ("next", "later"):
            payload = self.end.seal(name.encode())
            message = wire.DecryptRequest(connect_id=connect_id)
            payload_to_wire(payload, message.payload)
            decrypts[name] = wire.Operation(operation_id=1, decrypt=message)
        del lost
        return {
            **decrypts,
            "establish": wire.Operation(operation_id=2, establish=request),
            "encrypt": wire.Operation(
                operation_id=3,
                encrypt=wire.EncryptRequest(connect_id=connect_id, plaintext=b"text", request_id=7),
            ),
            "restore": wire.Operation(
                operation_id=4, restore=wire.RestoreRequest(connect_id=connect_id)
            ),
            "close": wire.Operation(operation_id=5, close=wire.CloseRequest(connect_id=connect_id)),
            "unknown": wire.Operation(
                operation_id=6, restore=wire.RestoreRequest(connect_id=_UNKNOWN_CHANNEL)
            ),
        }

    def close(self) -> None:
        logging.getLogger("connect_actor").removeHandler(self._defects)
        self._run(self._house.close())
        self._runner.close()


class OperationTarget(_RpcTarget):
    """Unary calls: the operation says which of the RPCs."""

    name: ClassVar[str] = "operation"

    def seeds(self) -> Mapping[str, bytes]:
        return {name: call.SerializeToString() for name, call in self.operations().items()}

    def run(self, data: bytes) -> bool:
        try:
            operation = wire.Operation.FromString(data)
        except DecodeError:
            return False
        kind = operation.WhichOneof("request")
        if kind is None:
            return False
        granted: list[bool] = []

        async def call() -> None:
            message = answered(getattr(operation, kind))
            try:
                response = await self.servicer.call(OPERATIONS[kind], None, message)
                response.SerializeToString()
                granted.append(True)
            except RefusedError:
                granted.append(False)
            await self.check(accepted=granted[0])

        self._run(call())
        return granted[0]


class FrameTarget(_RpcTarget):
    """Frames of an Exchange stream."""

    name: ClassVar[str] = "frame"

    def seeds(self) -> Mapping[str, bytes]:
        operations = self.operations()
        frames = {
            "empty": (),
            "all": operations.values(),
            "twice": (operations["next"], operations["next"]),
            "one": (operations["encrypt"],),
        }
        return {
            name: wire.OperationFrame(operations=held).SerializeToString()
            for name, held in frames.items()
        }

    def run(self, data: bytes) -> bool:
        try:
            operations = len(wire.OperationFrame.FromString(data).operations)
        except DecodeError:
            operations = MAX_OPERATIONS + 1
        accepted = refused = False
        results = 0

        async def exchange() -> None:
            nonlocal accepted, refused, results
            try:
                async for answer in self.servicer.exchange(None, answered(data)):
                    for result in answer.results:
                        outcome = result.WhichOneof("outcome")
                        require(outcome is not None, "a result without an outcome")
                        accepted = accepted or outcome != "error"
                        results += 1
                    require(len(answer.results) > 0, "a frame without a result")
                    answer.SerializeToString()
            except RefusedError:
                refused = True
            await self.check(accepted=accepted)

        self._run(exchange())
        require(refused == (operations > MAX_OPERATIONS), f"refused with {operations} operations")
        require(results == (0 if refused else operations), f"{results} results of {operations}")
        require(self.servicer.statistics.stream_in_flight == 0, "an operation is never answered")
        return accepted

    def close(self) -> None:
        require(self.servicer.statistics.streams_open == 0, "a stream is still open")
        super().close()


RPC_TARGETS = (OperationTarget, FrameTarget)
