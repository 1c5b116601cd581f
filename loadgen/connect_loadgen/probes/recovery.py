"""What it takes to come back: kill -9, start on the same data, Restore every channel at once."""

import time
from collections.abc import Sequence
from functools import partial

from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.peer import PeerEnd, RefusedByPeerError
from connect_loadgen.drive.transport import Transport, TransportError, ask_all, open_transport
from connect_loadgen.experiment.results import Recovery
from connect_loadgen.service.cost import take
from connect_loadgen.service.process import ServiceOptions, ServiceProcess
from connect_loadgen.service.sampling import cpu_seconds_of
from connect_loadgen.settings.load import LoadSettings

__all__ = ["recover"]


async def recover(
    options: ServiceOptions, ends: Sequence[PeerEnd], settings: LoadSettings
) -> Recovery:
    """Start the service again, time how it recovers all channels, and check that they live.

    Args:
        options: those of the service that was killed, its data directory above all.
        ends: the peers' ends of the channels.
        settings: by which transport to ask.

    Raises:
        ServiceError: it did not start, or died.
        TransportError: it can't be reached, or did not recover every channel.
        MetricsError: its counters can't be read.
    """
    begun = time.perf_counter()
    async with ServiceProcess(options, settings.timeout_seconds) as service:
        start_seconds = time.perf_counter() - begun
        recovery = await service.while_alive(
            _restore_all(service, ends, settings, start_seconds=start_seconds)
        )
        await service.stop()
    return recovery


async def _restore_all(
    service: ServiceProcess,
    ends: Sequence[PeerEnd],
    settings: LoadSettings,
    *,
    start_seconds: float,
) -> Recovery:
    async with open_transport(service.endpoint, settings) as transport:
        operations = [
            wire.Operation(
                operation_id=number, restore=wire.RestoreRequest(connect_id=end.connect_id)
            )
            for number, end in enumerate(ends)
        ]
        cpu_before = await cpu_seconds_of(service.metrics)
        begun = time.perf_counter()
        results = await ask_all(transport, operations, patience=settings.timeout_seconds)
        restore_seconds = time.perf_counter() - begun
        cpu_seconds = await cpu_seconds_of(service.metrics) - cpu_before
        for result in results:
            if result.WhichOneof("outcome") != "restore":
                raise TransportError(
                    "after the restart a channel was not restored:"
                    f" {result.error.message or 'no answer'}"
                )
        reading = await take(service.metrics)
        recovered = int(reading.metrics["connect_actor_recoveries_total"])
        if recovered < len(ends):
            raise TransportError(
                f"{len(ends)} channels answered, but only {recovered} were recovered:"
                " what was timed was no recovery"
            )
        return Recovery(
            channels=len(ends),
            start_seconds=start_seconds,
            restore_seconds=restore_seconds,
            channels_per_second=len(ends) / restore_seconds,
            verified_channels=await _verify(transport, ends, settings),
            restore_cpu_seconds=cpu_seconds,
            replayed_records=reading.metrics.get("connect_recovered_records_total"),
        )


async def _verify(transport: Transport, ends: Sequence[PeerEnd], settings: LoadSettings) -> int:
    """Send a message each way on every channel; return how many carried both unharmed."""
    ask = partial(ask_all, transport, patience=settings.timeout_seconds)
    texts = [f"still there? {number}".encode() for number in range(len(ends))]
    encrypted = await ask(
        [
            wire.Operation(
                operation_id=number,
                encrypt=wire.EncryptRequest(connect_id=end.connect_id, plaintext=text),
            )
            for number, (end, text) in enumerate(zip(ends, texts, strict=True))
        ]
    )
    opened = [_open(end, result) for end, result in zip(ends, encrypted, strict=True)]
    decrypted = await ask(
        [
            wire.Operation(
                operation_id=number,
                decrypt=wire.DecryptRequest(connect_id=end.connect_id, payload=end.seal(text)),
            )
            for number, (end, text) in enumerate(zip(ends, texts, strict=True))
        ]
    )
    # Of an answer that is an error, the plaintext is empty.
    return sum(
        text == there == result.decrypt.plaintext
        for text, there, result in zip(texts, opened, decrypted, strict=True)
    )


def _open(end: PeerEnd, result: wire.OperationResult) -> bytes | None:
    try:
        return end.open(result.encrypt.payload)
    except RefusedByPeerError:
        # It came back with other keys than it had.
        return None
