"""Coming back after kill -9, on the real service: every channel is asked, and must answer right."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.drive.channels import establish
from connect_loadgen.drive.peer import PeerEnd
from connect_loadgen.drive.transport import TransportError, open_transport
from connect_loadgen.probes.recovery import recover
from connect_loadgen.service.process import ServiceOptions, ServiceProcess
from connect_loadgen.settings.load import RunSettings, load_settings

SETTINGS = load_settings(RunSettings, ["--channels=3"])


class Impostor:
    """An end that goes by another channel's name."""

    def __init__(self, end: PeerEnd, connect_id: int) -> None:
        self.connect_id = connect_id
        self._end = end

    def seal(self, plaintext: bytes) -> wire.CipherPayload:
        return self._end.seal(plaintext)

    def open(self, payload: wire.CipherPayload) -> bytes:
        return self._end.open(payload)


@pytest.fixture
def options(tmp_path: Path) -> ServiceOptions:
    return ServiceOptions(strategy="differential", journal="sqlite", data_dir=tmp_path)


@pytest.fixture
async def ends(options: ServiceOptions) -> Sequence[PeerEnd]:
    """Three channels of a service that has been killed."""
    async with ServiceProcess(options, SETTINGS.timeout_seconds) as service:
        async with open_transport(service.endpoint, SETTINGS) as transport:
            ends = await establish(transport, SETTINGS, service.endpoint)
        await service.kill()
    return ends


async def test_channels_that_come_back_with_other_keys_are_not_verified(
    options: ServiceOptions, ends: Sequence[PeerEnd]
) -> None:
    first, second, third = ends
    swapped = [Impostor(first, second.connect_id), Impostor(second, first.connect_id), third]
    recovery = await recover(options, swapped, SETTINGS)
    assert (recovery.channels, recovery.verified_channels) == (3, 1)
    assert recovery.channels_per_second == pytest.approx(3 / recovery.restore_seconds)


async def test_a_channel_that_does_not_come_back_is_told(
    options: ServiceOptions, ends: Sequence[PeerEnd]
) -> None:
    with pytest.raises(TransportError, match="a channel was not restored"):
        await recover(options, [*ends, Impostor(ends[0], 12345)], SETTINGS)
