"""What a refusal costs: a service that may hold next to no bytes refuses all that have some."""

import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.channels import establish
from connect_loadgen.drive.load import Progress
from connect_loadgen.drive.transport import Transport, ask_all, open_transport
from connect_loadgen.experiment.numbers import Spread, ratio_to
from connect_loadgen.experiment.results import Record
from connect_loadgen.program.scratch import scratch_directory
from connect_loadgen.service.bare import ECHO_COMMAND
from connect_loadgen.service.process import ServiceOptions, ServiceProcess
from connect_loadgen.service.sampling import cpu_seconds_of
from connect_loadgen.settings.overload import OverloadSettings

__all__ = ["RefusalCost", "measure_refusals", "options_of", "says_when_to_retry"]

# A handshake is below it, such a message beyond: none is accepted, so none has to be taken off.
_MAX_BYTES = 3_000
_PLAINTEXT_BYTES = 2_048
# As large as the service's frames of results.
_FRAME_OPERATIONS = 1_024
# Calls take the generator many times as long; so many in each turn.
_FRAMES = {"stream": 30, "unary": 2}
_ROUNDS_OF_CALLS = 5


class RefusalCost(Record):
    """What it costs the service to refuse, beside what it costs to accept."""

    accepted_cpu_us: float
    refused_cpu_us: float
    refused: int
    has_retry_info: bool
    """Whether every refusal said when to try again."""
    bare_cpu_us: float | None
    """What the same call costs a bare gRPC server that answers it; null for streams."""
    of_bare: Spread | None
    """The one of the other, over rounds in which both had a turn; null for streams."""


def says_when_to_retry(status: Status) -> bool:
    """Tell whether a status is a refusal for lack of room that says when to try again."""
    return status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0] and any(
        detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details
    )


async def measure_refusals(
    settings: OverloadSettings, accepted_cpu_us: float, progress: Progress
) -> RefusalCost:
    """Have a service of its own refuse frames of operations, or calls, and read its CPU time.

    Calls are made to a bare gRPC server, too, in turns: gRPC is most of what a call costs.

    Args:
        settings: the load.
        accepted_cpu_us: what an accepted operation costs, as measured under load.
        progress: told how it goes.

    Raises:
        ServiceError: the service did not start, or died.
        TransportError: it could not be reached.
        MetricsError: its process can't be read.
    """
    progress.step("what a refusal costs")
    with scratch_directory() as data_dir:
        options = replace(
            options_of(settings, data_dir), flags=(f"--max-bytes-in-service={_MAX_BYTES}",)
        )
        patience = settings.timeout_seconds
        async with ServiceProcess(options, patience) as service:
            if settings.transport == "stream":
                work = _measure_operations(service, settings, accepted_cpu_us)
                found = await service.while_alive(work)
            else:
                async with ServiceProcess(replace(options, command=ECHO_COMMAND), patience) as bare:
                    work = _measure_calls(service, bare, settings, accepted_cpu_us)
                    found = await service.while_alive(bare.while_alive(work))
                    await bare.stop()
            await service.stop()
    return found


def options_of(settings: OverloadSettings, data_dir: Path) -> ServiceOptions:
    """Return how to start the service that is loaded."""
    options = ServiceOptions(
        strategy=settings.strategy, journal=settings.journal, data_dir=data_dir
    )
    command = settings.service_command
    return options if command is None else replace(options, command=command)


async def _measure_operations(
    service: ServiceProcess, settings: OverloadSettings, accepted_cpu_us: float
) -> RefusalCost:
    async with _opened(service, settings) as (transport, connect_id):
        cpu_us, results = await _cpu_us_of(transport, service, connect_id, settings)
    return _cost(accepted_cpu_us, [cpu_us], results)


async def _measure_calls(
    service: ServiceProcess,
    bare: ServiceProcess,
    settings: OverloadSettings,
    accepted_cpu_us: float,
) -> RefusalCost:
    refused_us: list[float] = []
    bare_us: list[float] = []
    results: list[wire.OperationResult] = []
    async with (
        _opened(service, settings) as (transport, connect_id),
        open_transport(bare.endpoint, _one_channel(settings)) as beside,
    ):
        for _ in range(_ROUNDS_OF_CALLS):
            cpu_us, refusals = await _cpu_us_of(transport, service, connect_id, settings)
            refused_us.append(cpu_us)
            results += refusals
            bare_us.append((await _cpu_us_of(beside, bare, connect_id, settings))[0])
    return _cost(accepted_cpu_us, refused_us, results, bare_us)


def _cost(
    accepted_cpu_us: float,
    refused_us: Sequence[float],
    results: Sequence[wire.OperationResult],
    bare_us: Sequence[float] = (),
) -> RefusalCost:
    refused = [result.error for result in results if result.HasField("error")]
    return RefusalCost(
        accepted_cpu_us=accepted_cpu_us,
        refused_cpu_us=statistics.median(refused_us),
        refused=len(refused),
        has_retry_info=bool(refused) and all(map(says_when_to_retry, refused)),
        bare_cpu_us=statistics.median(bare_us) if bare_us else None,
        of_bare=ratio_to(bare_us, refused_us) if bare_us else None,
    )


@asynccontextmanager
async def _opened(
    service: ServiceProcess, settings: OverloadSettings
) -> AsyncIterator[tuple[Transport, int]]:
    """A transport to a service, and a channel there."""
    one = _one_channel(settings)
    async with open_transport(service.endpoint, one) as transport:
        (end,) = await establish(transport, one, service.endpoint)
        yield transport, end.connect_id


def _one_channel(settings: OverloadSettings) -> OverloadSettings:
    return settings.model_copy(update={"channels": 1, "frame_operations": _FRAME_OPERATIONS})


async def _cpu_us_of(
    transport: Transport, server: ServiceProcess, connect_id: int, settings: OverloadSettings
) -> tuple[float, Sequence[wire.OperationResult]]:
    """Return what one of many Encrypts costs a server, and how it answered."""
    request = wire.EncryptRequest(connect_id=connect_id, plaintext=bytes(_PLAINTEXT_BYTES))
    results: list[wire.OperationResult] = []
    before = await cpu_seconds_of(server.metrics)
    for _ in range(_FRAMES[settings.transport]):
        operations = [
            wire.Operation(operation_id=number, encrypt=request)
            for number in range(1, _FRAME_OPERATIONS + 1)
        ]
        results += await ask_all(transport, operations, patience=settings.timeout_seconds)
    cpu_us = (await cpu_seconds_of(server.metrics) - before) * 1e6
    return cpu_us / len(results), results
