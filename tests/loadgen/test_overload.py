"""The overload command: its rules on made-up figures, its parts, and once for real."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import grpc
import pytest
from google.rpc.status_pb2 import Status

from connect_actor.client import ConnectClient, Identity
from connect_actor.errors import ChannelNotFoundError, OverloadedError
from connect_actor.rpc.status import status_of
from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.cli import main
from connect_loadgen.drive import pressure
from connect_loadgen.drive.flood import flood
from connect_loadgen.drive.idle import hold_connections
from connect_loadgen.drive.peer import Finished, Outcome, Peer, Pending
from connect_loadgen.drive.pressure import Answers
from connect_loadgen.drive.timeline import Timeline, Window
from connect_loadgen.drive.transport import TransportError
from connect_loadgen.drive.workload import Kind
from connect_loadgen.experiment.bounds import Verdict
from connect_loadgen.experiment.numbers import ratio_to
from connect_loadgen.experiment.results import Row
from connect_loadgen.experiments.overload import (
    Course,
    OverloadSettings,
    Phase,
    judge_course,
    normal_p99,
    seconds_to_normal,
    with_pressure,
)
from connect_loadgen.probes.connections import ConnectionsFound
from connect_loadgen.probes.refusal import RefusalCost, says_when_to_retry
from connect_loadgen.program.exits import Exit
from connect_loadgen.service.process import ServiceOptions, ServiceProcess
from connect_loadgen.settings.load import load_settings
from tests.support.loads import EchoEnd
from tests.support.results import course, read
from tests.support.virtual_time import SECOND, VirtualClock, run_virtually

MEBI = 2**20


def window(at: float, p99_ms: float | None) -> Window:
    return Window(at_seconds=at, seconds=1, right=1, errors={}, due=1, p50_ms=1, p99_ms=p99_ms)


def phase(name: str, accepted: float, rss: int = 100 * MEBI) -> Phase:
    return Phase(
        name=name,
        begins_seconds=0,
        seconds=1,
        offered_per_second=1,
        accepted_per_second=accepted,
        refused={},
        p50_ms=1,
        p99_ms=1,
        cpu_share=1,
        peak_rss_bytes=rss,
    )


def verdicts(
    *,
    overloaded: float = 900,
    rss: int = 100 * MEBI,
    recovery: float | None = 1,
    refused_cpu: float = 10,
    bare_cpu: float | None = None,
    retry: bool = True,
    connections: ConnectionsFound | None = None,
    wrong: int = 0,
) -> list[Row]:
    made = course().model_copy(
        update={
            "sustainable_per_second": 1_000,
            "phases": [
                phase("normal", 700),
                phase("sustainable", 1_000),
                phase("overload", overloaded, rss),
                phase("normal again", 700),
            ],
            "recovery_seconds": recovery,
            "refusal": RefusalCost(
                accepted_cpu_us=100,
                refused_cpu_us=refused_cpu,
                refused=5,
                has_retry_info=retry,
                bare_cpu_us=bare_cpu,
                of_bare=ratio_to([bare_cpu], [refused_cpu]) if bare_cpu else None,
            ),
            "connections": connections,
            "wrong_answers": wrong,
        }
    )
    return judge_course(made)


def found(*, idle: float = 10, flooded: float = 10, failed: int = 0) -> ConnectionsFound:
    return ConnectionsFound(
        idle=1,
        rss_per_idle_connection_bytes=1,
        p99_alone_ms=10,
        p99_with_idle_ms=idle,
        flood_connections=1,
        flood_seconds=1,
        p99_in_flood_ms=flooded,
        errors={"INTERNAL": failed} if failed else {},
    )


def broken(rows: Sequence[Row]) -> int:
    return sum(row.verdict is not Verdict.HOLDS for row in rows)


def test_a_service_that_bears_it_keeps_every_promise() -> None:
    assert broken(verdicts(connections=found())) == 0


def test_a_refused_call_is_held_against_what_grpc_itself_takes_for_one() -> None:
    assert broken(verdicts(refused_cpu=90, bare_cpu=60)) == 0


@pytest.mark.parametrize(
    "promises",
    [
        verdicts(overloaded=799),
        verdicts(rss=151 * MEBI),
        verdicts(recovery=None),
        verdicts(recovery=5.1),
        verdicts(refused_cpu=34),
        verdicts(refused_cpu=20, bare_cpu=13),
        verdicts(retry=False),
        verdicts(wrong=1),
        verdicts(connections=found(idle=36)),
        verdicts(connections=found(flooded=1_001)),
        verdicts(connections=found(failed=1)),
    ],
)
def test_each_promise_can_be_broken_alone(promises: list[Row]) -> None:
    assert broken(promises) == 1


def test_latency_is_normal_again_once_it_stays_so() -> None:
    course = [10.0, 900.0, 800.0, 15.0, 700.0, 15.0, 16.0, 900.0]
    windows = [window(at, p99) for at, p99 in enumerate(course)]
    assert seconds_to_normal(windows, 2, 20) == 3
    assert seconds_to_normal(windows, 6, 20) is None


def test_windows_without_an_answer_are_not_normal() -> None:
    windows = [window(0, 5), window(1, None), window(2, 5), window(3, 5)]
    assert seconds_to_normal(windows, 0, 20) == 2


def test_normal_is_twice_the_usual_and_some_slack_where_that_is_little() -> None:
    assert normal_p99([window(0, 100), window(1, 100), window(2, 5_000)]) == 200
    assert normal_p99([window(0, 1)]) == 26
    assert normal_p99([window(0, None)]) is None


def finished(due_at: int, outcome: Outcome = Outcome.RIGHT) -> Finished:
    pending = Pending(Kind.ENCRYPT, Peer(EchoEnd()), b"", wire.Operation(), intended_at=due_at)
    return Finished(pending, outcome, "RESOURCE_EXHAUSTED")


def test_answers_count_when_they_come_and_latencies_when_they_were_due() -> None:
    timeline = Timeline(0, 3 * SECOND, 1.0)
    timeline.record_finished(finished(SECOND // 2), 2 * SECOND)
    timeline.record_finished(finished(SECOND // 2, Outcome.ERROR), SECOND)
    first, second, third = timeline.windows()
    assert [each.right for each in (first, second, third)] == [0, 0, 1]
    assert (first.due, first.p99_ms) == (1, 1_500)
    assert second.errors == {"RESOURCE_EXHAUSTED": 1}
    assert third.p99_ms is None


def test_what_the_pressure_came_to_counts_in_its_windows() -> None:
    answers = Answers(accepted=[5, 6], refused=[{"RESOURCE_EXHAUSTED": 2}, {}], held_back=1)
    merged = with_pressure([window(at, 1) for at in range(3)], answers, 1)
    assert [each.right for each in merged] == [1, 6, 7]
    assert [each.errors for each in merged] == [{}, {"RESOURCE_EXHAUSTED": 2}, {}]


class Calls:
    """The service's end of unary calls: answers, refuses, or keeps each waiting."""

    def __init__(self, *, answers: bool) -> None:
        self.answers = answers
        self.asked: list[int] = []

    async def Encrypt(self, request: wire.EncryptRequest) -> None:  # noqa: N802 - gRPC's naming
        self.asked.append(request.connect_id)
        if not self.answers:
            await asyncio.get_running_loop().create_future()
        if request.connect_id == 2:
            raise grpc.aio.AioRpcError(
                grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), grpc.aio.Metadata()
            )


def call_for_two_seconds(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Put a pressure of 256 calls a second on them; 511 are due before its end."""

    async def work(clock: VirtualClock) -> Answers:
        virtual = SimpleNamespace(monotonic=lambda: clock() / SECOND)
        monkeypatch.setattr(pressure, "time", virtual)
        asked = pressure.Pressure(
            address="",
            transport="unary",
            connections=1,
            channels=2,
            frame_operations=64,
            plaintext_bytes=8,
            seconds=2,
            window_seconds=0.5,
        )
        counter = pressure._Counter(asked)
        await pressure._Sender(cast("Any", calls), [1, 2], asked).send(256, counter)
        return counter.answers()

    return run_virtually(work)


def test_calls_beyond_what_the_service_takes_of_a_connection_are_held_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = Calls(answers=False)
    answers = call_for_two_seconds(calls, monkeypatch)
    assert len(calls.asked) == 256
    assert answers.held_back == 511 - 256
    assert answers.accepted == [0] * 4


def test_a_line_of_calls_has_no_more_under_way_than_the_service_takes_of_a_connection() -> None:
    settings = load_settings(OverloadSettings, ["--connections=2"])
    assert settings.over("stream").max_in_flight == 8_192
    assert settings.over("unary").max_in_flight == 512
    few = settings.model_copy(update={"max_in_flight": 100})
    assert few.over("unary").max_in_flight == 100


def test_calls_are_counted_when_they_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = call_for_two_seconds(Calls(answers=True), monkeypatch)
    assert answers.held_back == 0
    # The last one is still under way at the end.
    assert answers.accepted == [64, 64, 64, 63]
    assert [each["RESOURCE_EXHAUSTED"] for each in answers.refused] == [63, 64, 64, 64]


def test_windows_that_were_split_off_are_forgotten() -> None:
    timeline = Timeline(0, 9 * SECOND, 1.0)
    for second in range(5):
        timeline.record_finished(finished(second * SECOND), second * SECOND + 1)
    ended = timeline.split_off(4 * SECOND)
    assert [each.at_seconds for each in ended.windows()] == [0, 1, 2]
    assert [each.at_seconds for each in timeline.windows()] == [3, 4]


def test_a_refusal_says_when_to_retry_if_waiting_helps() -> None:
    assert says_when_to_retry(status_of(OverloadedError("full")))
    assert not says_when_to_retry(status_of(ChannelNotFoundError("unknown")))
    assert not says_when_to_retry(Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]))


@pytest.mark.parametrize(
    "flags",
    [["--rate=5"], ["--transport=tcp"], ["--connections=201"], ["--idle-connections=100000"]],
)
def test_what_the_command_can_not_do_is_refused(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["overload", *flags]) == Exit.CONFIGURATION
    assert flags[0].partition("=")[0] in capsys.readouterr().err


async def test_a_real_service_bears_idle_connections_and_a_flood_of_new_ones(
    tmp_path: Path,
) -> None:
    options = ServiceOptions(strategy="full", journal="memory", data_dir=tmp_path)
    async with (
        ServiceProcess(options, 30) as service,
        ConnectClient(service.listen) as client,
    ):
        channel = await client.establish(Identity.generate(bytes))
        async with hold_connections(service.listen, 300):
            assert channel.open(await channel.encrypt(b"beside idle ones")) == b"beside idle ones"
        flooding = asyncio.create_task(asyncio.to_thread(flood, service.listen, 0.5))
        answered = 0
        while not flooding.done():
            assert channel.open(await channel.encrypt(b"in the flood")) == b"in the flood"
            answered += 1
        assert await flooding > 10
        assert answered > 0
        await service.stop()


async def test_connections_that_the_service_does_not_take_are_an_error(tmp_path: Path) -> None:
    options = ServiceOptions(
        strategy="full", journal="memory", data_dir=tmp_path, flags=("--max-connections=5",)
    )
    async with ServiceProcess(options, 30) as service:
        with pytest.raises(TransportError, match="closed a new connection"):
            async with hold_connections(service.listen, 6):
                pass


def test_a_short_run_on_a_real_service_tells_what_it_saw(tmp_path: Path) -> None:
    code = main(
        [
            "overload",
            "--quick",
            "--duration-seconds=1",
            "--warm-up-seconds=0.2",
            "--window-seconds=0.25",
            "--channels=20",
            "--idle-connections=50",
            f"--output={tmp_path}",
        ]
    )
    result = read(tmp_path / "overload.json")
    # Whether a loaded machine keeps the promises in a second, the exit code says the same.
    assert code == result.exit
    courses = [Course.model_validate(each) for each in result.detail]
    assert [each.transport for each in courses] == ["stream", "unary"]
    for one in courses:
        assert one.wrong_answers == 0
        assert [each.name for each in one.phases] == [
            "normal",
            "sustainable",
            "overload",
            "normal again",
        ]
        assert all(each.accepted_per_second > 0 for each in one.phases)
        assert one.refusal.has_retry_info
    streams, calls = courses
    assert streams.refusal.refused > 10_000
    assert calls.refusal.refused > 1_000
    assert calls.refusal.bare_cpu_us is not None
    assert calls.refusal.bare_cpu_us > 0
    assert calls.refusal.of_bare is not None
    assert streams.refusal.of_bare is None
    assert streams.connections is not None
    assert streams.connections.idle == 50
    assert calls.connections is None
    page = (tmp_path / "overload.html").read_text()
    assert page.count("<svg") == 4
    for way in ("streams", "unary calls"):
        assert f"Over {way}" in page
