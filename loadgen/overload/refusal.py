"""What a refusal costs: a service that may hold next to no bytes refuses all that have some."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from loadgen.channels import establish
from loadgen.echo import ECHO_COMMAND
from loadgen.load import Progress
from loadgen.overload.results import RefusalCost
from loadgen.overload.settings import OverloadSettings
from loadgen.sampling import sample_process
from loadgen.service_process import ServiceOptions, ServiceProcess
from loadgen.transport import Transport, ask_all, open_transport
from protos.connect_actor.v1 import connect_pb2 as wire

__all__ = ["measure_refusals", "says_when_to_retry"]

# A handshake is below it, such a message beyond: none is accepted, so none has to be taken off.
_MAX_BYTES = 3_000
_PLAINTEXT_BYTES = 2_048
# As large as the service's frames of results.
_FRAME_OPERATIONS = 1_024
# Calls take the generator many times as long.
_FRAMES = {"stream": 30, "unary": 8}


def says_when_to_retry(status: Status) -> bool:
    """Tell whether a status is a refusal for lack of room that says when to try again."""
    return status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0] and any(
        detail.Is(RetryInfo.DESCRIPTOR) for detail in status.details
    )


async def measure_refusals(
    settings: OverloadSettings, accepted_cpu_us: float, progress: Progress
) -> RefusalCost:
    """Have a service of its own refuse frames of operations, or calls, and read its CPU time.

    Calls are then made to a bare gRPC server, too, since that is most of what a call costs.

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
    with tempfile.TemporaryDirectory(prefix="loadgen-") as data_dir:
        options = replace(
            options_of(settings, Path(data_dir)), flags=(f"--max-bytes-in-service={_MAX_BYTES}",)
        )
        async with ServiceProcess(options, settings.timeout_seconds) as service:
            found = await service.while_alive(_measure(service, settings, accepted_cpu_us))
            await service.stop()
        if settings.transport == "stream":
            return found
        bare = replace(options, command=ECHO_COMMAND)
        async with ServiceProcess(bare, settings.timeout_seconds) as server:
            bare_cpu_us = await server.while_alive(_measure_bare(server, settings))
            await server.stop()
    return found.model_copy(update={"bare_cpu_us": bare_cpu_us})


def options_of(settings: OverloadSettings, data_dir: Path) -> ServiceOptions:
    """Return how to start the service that is loaded."""
    options = ServiceOptions(
        strategy=settings.strategy, journal=settings.journal, data_dir=data_dir
    )
    command = settings.service_command
    return options if command is None else replace(options, command=command)


async def _measure(
    service: ServiceProcess, settings: OverloadSettings, accepted_cpu_us: float
) -> RefusalCost:
    one = _one_channel(settings)
    async with open_transport(service.endpoint, one) as transport:
        (end,) = await establish(transport, one, service.endpoint)
        cpu_us, results = await _cpu_us_of(transport, service, end.connect_id, settings)
    refused = [result.error for result in results if result.HasField("error")]
    return RefusalCost(
        accepted_cpu_us=accepted_cpu_us,
        refused_cpu_us=cpu_us / len(results),
        refused=len(refused),
        has_retry_info=bool(refused) and all(map(says_when_to_retry, refused)),
        bare_cpu_us=None,
    )


async def _measure_bare(server: ServiceProcess, settings: OverloadSettings) -> float:
    async with open_transport(server.endpoint, _one_channel(settings)) as transport:
        cpu_us, results = await _cpu_us_of(transport, server, 1, settings)
    return cpu_us / len(results)


def _one_channel(settings: OverloadSettings) -> OverloadSettings:
    return settings.model_copy(update={"channels": 1, "frame_operations": _FRAME_OPERATIONS})


async def _cpu_us_of(
    transport: Transport, server: ServiceProcess, connect_id: int, settings: OverloadSettings
) -> tuple[float, Sequence[wire.OperationResult]]:
    """Return what many Encrypts cost a server together, and how it answered."""
    request = wire.EncryptRequest(connect_id=connect_id, plaintext=bytes(_PLAINTEXT_BYTES))
    results: list[wire.OperationResult] = []
    before = sample_process(server.pid).cpu_seconds
    for _ in range(_FRAMES[settings.transport]):
        operations = [
            wire.Operation(operation_id=number, encrypt=request)
            for number in range(1, _FRAME_OPERATIONS + 1)
        ]
        results += await ask_all(transport, operations, patience=settings.timeout_seconds)
    return (sample_process(server.pid).cpu_seconds - before) * 1e6, results
