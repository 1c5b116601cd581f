"""How operations reach the service, and what is told when they don't."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc import aio
from grpc_status import rpc_status

from connect_actor.errors import OverloadedError
from connect_actor.observe.tracing import REQUEST_ID
from connect_actor.rpc.status import status_of
from connect_actor.v1 import connect_pb2 as wire
from connect_actor.v1.connect_pb2_grpc import (
    ConnectServiceServicer,
    add_ConnectServiceServicer_to_server,
)
from connect_loadgen.drive.channels import _skip_messages
from connect_loadgen.drive.transport import (
    MAX_FRAME_BYTES,
    StreamTransport,
    TransportError,
    UnaryTransport,
    ask_all,
    open_transport,
)
from connect_loadgen.service.endpoint import Endpoint
from connect_loadgen.settings.load import RunSettings, load_settings
from tests.support.loads import EchoEnd, PacedService, echo, failure
from tests.support.process import PATIENCE

FULL = status_of(OverloadedError("full"))


class EchoServicer(ConnectServiceServicer):
    """Answers what it is sent, in the order that a test wants."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        """Operations in each frame that came."""
        self.ends_stream = False

    async def Exchange(  # noqa: N802 - gRPC's naming
        self,
        request_iterator: AsyncIterator[wire.OperationFrame],
        context: "aio.ServicerContext[wire.OperationFrame, wire.ResultFrame]",
    ) -> AsyncIterator[wire.ResultFrame]:
        await context.send_initial_metadata(((REQUEST_ID, "1"),))
        async for frame in request_iterator:
            self.frames.append(len(frame.operations))
            if self.ends_stream:
                return
            yield wire.ResultFrame(results=[echo(each) for each in reversed(frame.operations)])

    async def Encrypt(  # noqa: N802 - gRPC's naming
        self, request: wire.EncryptRequest, context: object
    ) -> wire.EncryptResponse:
        del context
        return echo(wire.Operation(encrypt=request)).encrypt

    async def Decrypt(  # noqa: N802 - gRPC's naming
        self,
        request: wire.DecryptRequest,
        context: "aio.ServicerContext[wire.DecryptRequest, wire.DecryptResponse]",
    ) -> wire.DecryptResponse:
        del request
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")

    async def Restore(  # noqa: N802 - gRPC's naming
        self,
        request: wire.RestoreRequest,
        context: "aio.ServicerContext[wire.RestoreRequest, wire.RestoreResponse]",
    ) -> wire.RestoreResponse:
        del request
        status = rpc_status.to_status(FULL)
        await context.abort(status.code, status.details, status.trailing_metadata)


def echoing() -> EchoServicer:
    return EchoServicer()  # type: ignore[abstract]  # the rest is never called


@asynccontextmanager
async def connected(
    servicer: EchoServicer, *flags: str
) -> AsyncIterator[StreamTransport | UnaryTransport]:
    server = aio.server()
    add_ConnectServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        endpoint = Endpoint(f"127.0.0.1:{port}")
        async with open_transport(endpoint, load_settings(RunSettings, flags)) as transport:
            yield transport
    finally:
        await server.stop(0)


def encrypts(count: int, size: int = 1) -> list[wire.Operation]:
    return [
        wire.Operation(
            operation_id=number, encrypt=wire.EncryptRequest(plaintext=bytes([number % 256]) * size)
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("transport", ["stream", "unary"])
async def test_answers_come_in_the_order_of_the_operations(transport: str) -> None:
    async with connected(echoing(), f"--transport={transport}") as way:
        results = await ask_all(way, encrypts(200), patience=PATIENCE)
    assert [result.operation_id for result in results] == list(range(200))
    assert [result.encrypt.payload.ciphertext[0] for result in results] == list(range(200))


async def test_a_stream_carries_so_many_operations_in_a_frame() -> None:
    servicer = echoing()
    async with connected(servicer, "--frame-operations=16") as way:
        await ask_all(way, encrypts(40), patience=PATIENCE)
    assert servicer.frames == [16, 16, 8]


async def test_operations_too_large_for_a_frame_together_are_spread_over_several() -> None:
    servicer = echoing()
    async with connected(servicer, "--frame-operations=10") as way:
        results = await ask_all(way, encrypts(10, size=MAX_FRAME_BYTES // 4), patience=PATIENCE)
    assert len(results) == 10
    assert servicer.frames == [3, 3, 3, 1]


async def test_a_refused_call_is_an_answer_with_its_status() -> None:
    operation = wire.Operation(operation_id=3, decrypt=wire.DecryptRequest())
    async with connected(echoing(), "--transport=unary") as way:
        (result,) = await ask_all(way, [operation], patience=PATIENCE)
    assert result.error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert result.error.message == "enough"


async def test_a_refused_call_brings_its_details() -> None:
    operation = wire.Operation(operation_id=3, restore=wire.RestoreRequest())
    async with connected(echoing(), "--transport=unary") as way:
        (result,) = await ask_all(way, [operation], patience=PATIENCE)
    assert result.error == FULL
    assert len(result.error.details) == 2


async def test_a_stream_that_the_service_ends_is_told() -> None:
    servicer = echoing()
    servicer.ends_stream = True
    async with connected(servicer) as way:
        with pytest.raises(TransportError, match="has ended the stream"):
            await ask_all(way, encrypts(1), patience=PATIENCE)


async def test_a_stream_that_breaks_is_told_with_its_status() -> None:
    async with connected(echoing()) as way:
        with pytest.raises(TransportError, match="the stream broke: RESOURCE_EXHAUSTED"):
            await ask_all(way, encrypts(1, size=5 << 20), patience=PATIENCE)


# --- Asking for all -------------------------------------------------------------------------------


async def ask(service: PacedService, count: int) -> list[wire.OperationResult]:
    return await ask_all(service, encrypts(count), patience=0.2)


async def test_asking_for_nothing_gives_nothing() -> None:
    assert await ask(PacedService(), 0) == []


async def test_errors_are_answers() -> None:
    results = await ask(PacedService(answer=lambda operation: failure(operation, 14)), 3)
    assert [result.error.code for result in results] == [14, 14, 14]


async def test_answers_that_are_missing_are_counted() -> None:
    def answer(operation: wire.Operation) -> wire.OperationResult | None:
        return echo(operation) if operation.operation_id < 2 else None

    with pytest.raises(TransportError, match=r"3 of 5 answers are missing after 0.2 s"):
        await ask(PacedService(answer=answer), 5)


@pytest.mark.parametrize("number", [0, 7])
async def test_an_answer_that_came_before_or_was_not_asked_for_is_told(number: int) -> None:
    class Twice(PacedService):
        def _deliver(self, operations: Iterable[wire.Operation]) -> None:
            super()._deliver([*operations])
            assert self._listener is not None
            self._listener.on_results([wire.OperationResult(operation_id=number)])

    with pytest.raises(TransportError, match=f"nobody asked for answer number {number}"):
        await ask(Twice(), 2)


async def test_a_failure_of_the_transport_ends_the_asking() -> None:
    service = PacedService(seconds=60)
    asyncio.get_running_loop().call_later(0.01, service.fail, TransportError("it broke"))
    with pytest.raises(TransportError, match="it broke"):
        await ask_all(service, encrypts(1), patience=PATIENCE)


# --- Held keys ------------------------------------------------------------------------------------


async def test_messages_ahead_of_others_come_as_fast_as_the_service_lets_them() -> None:
    asked: Counter[int] = Counter()

    def refuse_once(operation: wire.Operation) -> wire.OperationResult:
        asked[operation.operation_id] += 1
        is_first = asked[operation.operation_id] == 1
        return failure(operation, FULL.code) if is_first else echo(operation)

    settings = load_settings(RunSettings, ["--skipped-keys=3"], {})
    ends = [EchoEnd(number) for number in range(1, 20)]
    await _skip_messages(PacedService(batch=8, answer=refuse_once), ends, settings)
    assert asked == dict.fromkeys(range(1, 20), 2)
    unknown = grpc.StatusCode.NOT_FOUND.value[0]
    broken = PacedService(batch=8, answer=lambda operation: failure(operation, unknown))
    with pytest.raises(TransportError, match="refused a message ahead"):
        await _skip_messages(broken, ends, settings)
