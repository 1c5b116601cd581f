"""The generator's verdict on itself."""

import asyncio
import time

import pytest

from connect_loadgen.drive.recording import Recorder
from connect_loadgen.drive.self_check import SelfCheck, warnings_about

FINE = {
    "cpu_share": 0.5,
    "service_cpu_share": 0.5,
    "send_lag_p99_us": 900,
    "skipped_late": 0,
}


def warnings(**changed: float | None) -> list[str]:
    values = FINE | changed
    return warnings_about(**values)  # type: ignore[arg-type]


def test_nothing_is_said_of_a_generator_that_kept_up() -> None:
    assert warnings() == []
    assert warnings(service_cpu_share=None, send_lag_p99_us=None) == []


@pytest.mark.parametrize(("service", "said"), [(0.4, "the service 40%"), (None, "a core:")])
def test_a_generator_busier_than_the_service_may_be_the_limit(
    service: float | None, said: str
) -> None:
    (warning,) = warnings(cpu_share=0.85, service_cpu_share=service)
    assert "used 85% of a core" in warning
    assert said in warning


def test_a_busy_generator_is_no_limit_to_a_service_that_is_as_busy() -> None:
    assert warnings(cpu_share=0.99, service_cpu_share=0.85) == []
    assert warnings(cpu_share=0.849, service_cpu_share=0.1) == []


def test_late_sends_are_told() -> None:
    assert warnings(send_lag_p99_us=5_000) == []
    (warning,) = warnings(send_lag_p99_us=5_001)
    assert "5.0 ms late" in warning


def test_sends_skipped_by_a_late_generator_are_told() -> None:
    (warning,) = warnings(skipped_late=3)
    assert warning.startswith("3 sends were skipped")


async def test_a_loop_that_is_held_up_shows_as_lag_and_as_cpu() -> None:
    async with SelfCheck() as check:
        await asyncio.sleep(0.03)
        busy_until = time.perf_counter() + 0.1
        while time.perf_counter() < busy_until:
            pass
        await asyncio.sleep(0.03)
    verdict = check.verdict(Recorder(0, 1), None)
    assert verdict.loop_lag is not None
    assert verdict.loop_lag.max_us > 80_000
    assert verdict.cpu_share > 0
    assert verdict.send_lag is None


async def test_the_send_lag_of_the_measured_phase_counts() -> None:
    recorder = Recorder(0, 1)
    for _ in range(100):
        recorder.send_lag.record(20_000_000)
    recorder.skipped_late = 2
    async with SelfCheck() as check:
        await asyncio.sleep(0)
    verdict = check.verdict(recorder, None)
    assert verdict.send_lag is not None
    assert verdict.send_lag.count == 100
    assert len([text for text in verdict.warnings if "late" in text]) == 2
