"""The generator's own metrics: fed by hand, and against the result of a real run."""

import re
import socket

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from connect_actor.v1 import connect_pb2 as wire
from connect_loadgen.cli import main
from connect_loadgen.drive.exporter import LoadExporter
from connect_loadgen.drive.load import Progress
from connect_loadgen.drive.pacing import Line
from connect_loadgen.drive.peer import Finished, Outcome, Peers, Pending
from connect_loadgen.drive.recording import Recorder
from connect_loadgen.drive.workload import Kind
from connect_loadgen.experiments.run import run_load
from connect_loadgen.settings.load import RunSettings, load_settings
from tests.support.loads import EchoEnd, PacedService, plan_of
from tests.support.process import scrape

MILLISECOND = 1_000_000


class Fed:
    """An exporter, and a line whose recorders are fed by hand."""

    def __init__(self, intended_rate: float | None = None) -> None:
        self.peers = Peers([EchoEnd(), EchoEnd(), EchoEnd()], plan_of(Kind.ENCRYPT))
        self.line = Line(self.peers, PacedService(), Recorder(0, 0), lambda: 0)
        self.exporter = LoadExporter(intended_rate)
        self._registry = CollectorRegistry()
        self._registry.register(self.exporter)

    def watch(self) -> "Fed":
        self.exporter.watch(self.line)
        return self

    def finish(
        self, kind: Kind, outcome: Outcome, *, milliseconds: int = 1, status: str = "OK"
    ) -> None:
        pending = Pending(kind, self.peers.peers[0], b"", wire.Operation(), messages=1)
        self.line.recorder.record_finished(
            Finished(pending, outcome, status), milliseconds * MILLISECOND
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(f"loadgen_{name}", labels)


def test_operations_count_by_kind_and_outcome() -> None:
    fed = Fed().watch()
    for _ in range(3):
        fed.finish(Kind.ENCRYPT, Outcome.RIGHT)
    fed.finish(Kind.DECRYPT, Outcome.RIGHT)
    fed.finish(Kind.ROUND_TRIP, Outcome.WRONG)
    fed.finish(Kind.DECRYPT, Outcome.ERROR, status="UNAVAILABLE")
    found = {
        (kind.value, outcome): fed.value("operations_total", operation=kind.value, outcome=outcome)
        for kind in Kind
        for outcome in ("right", "wrong", "error")
    }
    expected = dict.fromkeys(found, 0.0) | {
        ("encrypt", "right"): 3,
        ("decrypt", "right"): 1,
        ("round_trip", "wrong"): 1,
        ("decrypt", "error"): 1,
    }
    assert found == expected
    assert fed.value("messages_total") == 6
    assert fed.value("verification_failures_total") == 1
    assert fed.value("errors_total", status="UNAVAILABLE") == 1
    assert fed.value("errors_total", status="NO_ANSWER") == 0


def test_only_right_operations_have_a_latency() -> None:
    fed = Fed().watch()
    fed.finish(Kind.ENCRYPT, Outcome.RIGHT, milliseconds=3)
    fed.finish(Kind.ENCRYPT, Outcome.WRONG, milliseconds=7)
    assert fed.value("latency_seconds_count", operation="encrypt") == 1
    assert fed.value("latency_seconds_sum", operation="encrypt") == pytest.approx(0.003)
    assert fed.value("latency_seconds_bucket", operation="encrypt", le="0.0025") == 0
    assert fed.value("latency_seconds_bucket", operation="encrypt", le="0.005") == 1


def test_the_phases_of_a_load_add_up() -> None:
    fed = Fed().watch()
    fed.finish(Kind.ENCRYPT, Outcome.RIGHT)
    fed.line.recorder.skipped_at_cap += 2
    fed.line.recorders.append(Recorder(0, 0))
    fed.finish(Kind.ENCRYPT, Outcome.RIGHT)
    fed.line.recorder.skipped_at_cap += 1
    fed.line.recorder.skipped_late += 5
    fed.line.recorder.wrong += 1
    assert fed.value("operations_total", operation="encrypt", outcome="right") == 2
    assert fed.value("latency_seconds_count", operation="encrypt") == 2
    assert fed.value("skipped_total", reason="cap") == 3
    assert fed.value("skipped_total", reason="late") == 5
    assert fed.value("verification_failures_total") == 1


def test_what_is_in_flight_and_how_many_channels_there_are_is_told() -> None:
    fed = Fed().watch()
    fed.peers.begin()
    fed.peers.begin()
    assert fed.value("operations_in_flight") == 2
    assert fed.value("channels") == 3


def test_before_the_load_begins_there_is_nothing_but_zeros() -> None:
    fed = Fed()
    assert fed.value("channels") == fed.value("operations_in_flight") == 0
    assert fed.value("operations_total", operation="encrypt", outcome="right") == 0
    assert fed.value("latency_seconds_count", operation="encrypt") == 0


def test_a_rate_is_told_only_if_there_is_one() -> None:
    assert Fed(250).value("intended_rate") == 250
    assert Fed().value("intended_rate") is None


def test_the_loop_that_runs_is_told_and_a_rate_only_while_it_is_an_open_one() -> None:
    fed = Fed(250).watch()
    assert (fed.value("pacing", loop="open"), fed.value("pacing", loop="closed")) == (0, 0)
    fed.line.loop = "open"
    assert (fed.value("pacing", loop="open"), fed.value("pacing", loop="closed")) == (1, 0)
    assert fed.value("intended_rate") == 250
    fed.line.loop = "closed"
    assert (fed.value("pacing", loop="open"), fed.value("pacing", loop="closed")) == (0, 1)
    assert fed.value("intended_rate") is None


class Listening(Progress):
    """Reads the metrics when the load is over and the service is still there."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.text = ""

    def step(self, text: str) -> None:
        self.steps.append(text)
        if text.startswith("stopping"):
            told = re.search(r"http://([\d.:]+)/metrics", self.steps[0])
            assert told is not None
            self.text = scrape(told[1])

    def tick(self, share: float, text: str) -> None:
        """Nothing to show."""


def sums(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0) + sample.value
    return found


async def test_a_runs_metrics_are_its_results() -> None:
    progress = Listening()
    flags = "--serve-metrics=127.0.0.1:0 --journal=memory --channels=5 --rate=500"
    times = "--warm-up-seconds=0 --duration-seconds=0.3"
    settings = load_settings(RunSettings, [*flags.split(), *times.split()])
    (turn,) = (await run_load(settings, progress)).sides["run"].rounds
    assert turn.load is not None
    found = sums(progress.text)
    assert found["loadgen_operations_total"] == turn.load.operations_finished > 0
    assert found["loadgen_messages_total"] == turn.load.messages
    assert found["loadgen_latency_seconds_count"] == turn.load.operations_finished
    assert found["loadgen_intended_rate"] == 500
    assert found["loadgen_channels"] == 5
    assert found["loadgen_operations_in_flight"] == 0
    assert found["process_cpu_seconds_total"] > 0


def test_an_address_in_use_is_one_clear_line(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["run", f"--serve-metrics={address}"]) == 2
    assert capsys.readouterr().err == (
        f"loadgen run: --serve-metrics: can't listen on {address}: the address is in use\n"
    )
