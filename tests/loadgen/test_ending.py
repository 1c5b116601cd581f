"""Commands that end early: what they measured, marked as cut short, and nothing left behind."""

import asyncio
import io
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from connect_loadgen.bench import command as bench_command
from connect_loadgen.bench.cases import Benchmark
from connect_loadgen.bench.memory import MemoryFigures
from connect_loadgen.bench.settings import BenchSettings
from connect_loadgen.bench.workers import Timed
from connect_loadgen.crash.command import run_crash
from connect_loadgen.crash.settings import CrashSettings
from connect_loadgen.drive.load import Progress
from connect_loadgen.drive.transport import TransportError
from connect_loadgen.experiment.bounds import Verdict
from connect_loadgen.experiment.model import Probe
from connect_loadgen.experiment.results import Result, Round, Side
from connect_loadgen.experiment.turns import Turns
from connect_loadgen.experiments import audit, compare, overload
from connect_loadgen.experiments.audit import SHAPES, AuditSettings
from connect_loadgen.experiments.compare import CompareSettings
from connect_loadgen.experiments.overload import Course, OverloadSettings
from connect_loadgen.experiments.soak import SoakSettings, run_soak
from connect_loadgen.probes import trial
from connect_loadgen.probes.capacity import CHANNELS, Objective
from connect_loadgen.probes.in_process import measure_round
from connect_loadgen.probes.trial import Variant
from connect_loadgen.program.ending import Ended, Ending, ending, heeding_signals
from connect_loadgen.program.exits import Exit
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.report.html import render
from connect_loadgen.report.page import page_of
from connect_loadgen.settings.load import LoadSettings, load_settings
from tests.support.compiler import needs_hook
from tests.support.process import PATIENCE, child_of, none_left
from tests.support.results import course, load, read, round_of, show_result
from tests.support.virtual_time import SECOND, VirtualClock, run_virtually

Started = subprocess.Popen[str]

WHY = "ended by a test"
TINY = (
    "--channels=4",
    "--concurrency=16",
    "--frame-operations=8",
    "--warm-up-seconds=0",
    "--duration-seconds=0.1",
)


# --- Parts of a command ---------------------------------------------------------------------------


def ended_by(work: Callable[[Ending], Coroutine[Any, Any, None]]) -> Ending:
    """Run the work of a command and return its ending."""
    with heeding_signals() as current:
        asyncio.run(work(current))
    return current


def test_a_part_is_cancelled_and_later_ones_are_not_begun() -> None:
    async def for_ever() -> None:
        asyncio.get_running_loop().call_soon(ending().end, WHY)
        await asyncio.Event().wait()

    async def never() -> None:
        raise AssertionError("begun")

    async def work(current: Ending) -> None:
        for part in (for_ever, never):
            with pytest.raises(Ended, match=WHY):
                await current.part(part())

    assert ended_by(work).reason == WHY


def test_what_fails_while_it_is_cancelled_was_ended_and_what_fails_else_was_not() -> None:
    async def fails_when_cancelled() -> None:
        asyncio.get_running_loop().call_soon(ending().end, WHY)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ValueError("cut") from None

    async def fails() -> None:
        raise ValueError("own")

    async def work(current: Ending) -> None:
        with pytest.raises(ValueError, match="own"):
            await current.part(fails())
        with pytest.raises(Ended):
            await current.part(fails_when_cancelled())

    ended_by(work)


def test_a_part_that_can_be_stopped_keeps_what_it_has() -> None:
    async def stoppable() -> str:
        stopped = asyncio.Event()
        reasons = []

        def stop(reason: str) -> None:
            reasons.append(reason)
            stopped.set()

        ending().rather(stop)
        asyncio.get_running_loop().call_soon(ending().end, WHY)
        await stopped.wait()
        return f"kept, {reasons[0]}"

    async def work(current: Ending) -> None:
        assert await current.part(stoppable()) == f"kept, {WHY}"

    ended_by(work)


def test_what_must_be_finished_is_not_interrupted() -> None:
    with heeding_signals() as current:
        with current.put_off():
            os.kill(os.getpid(), signal.SIGTERM)
        assert current.by_signal
        assert current.reason == "ended by SIGTERM"
        # Only the first ends in order; a second would end this very process.
        with heeding_signals(), pytest.raises(Ended, match="SIGHUP"):
            os.kill(os.getpid(), signal.SIGHUP)


def test_signals_are_as_they_were_afterwards_and_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with heeding_signals() as current:
            os.kill(os.getpid(), signal.SIGHUP)
            assert current.reason is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


# --- Commands of rounds: the complete ones --------------------------------------------------------


class EndsAt(CommandProgress):
    """Progress that ends the command at the step, or tick, that begins so."""

    def __init__(self, text: str, *, after: float = 0.0) -> None:
        super().__init__()
        self._text = text
        self._after = after

    def step(self, text: str) -> None:
        if f"{self._prefix}{text}".startswith(self._text):
            if self._after:
                asyncio.get_running_loop().call_later(self._after, ending().end, WHY)
            else:
                ending().end(WHY)
        super().step(text)

    def tick(self, share: float, text: str) -> None:
        if text.startswith(self._text):
            ending().end(WHY)
        super().tick(share, text)


def run_ended(execute: Callable[..., Any], settings: object, progress: CommandProgress) -> Any:  # noqa: ANN401 - of any command
    """Run a command that its progress ends, and return its result."""
    with heeding_signals() as current, progress:
        return asyncio.run(current.part(execute(settings, progress)))


@pytest.fixture
def made_up_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trials take no service and no time."""

    async def run_trial(
        _: Variant, __: LoadSettings, progress: Progress, *, recovers: bool = True
    ) -> Round:
        progress.step("made up")
        await asyncio.sleep(0)
        return round_of("full" if recovers else "memory", 1, load())

    monkeypatch.setattr(trial, "run_trial", run_trial)


@pytest.mark.usefixtures("made_up_trials")
def test_a_comparison_that_is_ended_has_its_complete_rounds() -> None:
    settings = load_settings(CompareSettings, ["--rounds=3"], {})
    result = run_ended(compare.run_compare, settings, EndsAt("round 3 of 3"))
    assert result.cut_short == WHY
    assert [len(side.rounds) for side in result.sides.values()] == [2, 2, 2, 2]
    assert result.notices == [f"CUT SHORT: {WHY}", "Left out: 1 of 3 rounds"]
    assert result.exit is Exit.RIGHT
    assert f"CUT SHORT: {WHY}" in render(page_of(result, compare.LOOK))
    with pytest.raises(Ended):
        run_ended(compare.run_compare, settings, EndsAt("round 1 of 3"))


@pytest.mark.parametrize(
    ("at", "rounds", "left_out"),
    [
        (
            "saturated, round 2 of 2",
            (1, 0, 0, 0),
            ["saturated, 1 of 2 rounds", "paced", "capacity", "routers"],
        ),
        ("capacity, round 1 of 1", (2, 2, 0, 0), ["capacity", "routers"]),
        ("usual: as configured", (2, 2, 1, 1), []),
    ],
)
@needs_hook
@pytest.mark.usefixtures("made_up_trials")
def test_an_audit_that_is_ended_judges_what_it_has_and_says_what_is_left_out(
    monkeypatch: pytest.MonkeyPatch, at: str, rounds: tuple[int, ...], left_out: list[str]
) -> None:
    search_made_up(monkeypatch)
    settings = load_settings(AuditSettings, ["--quick"], {})
    result = run_ended(audit.run_audit, settings, EndsAt(at))
    parts = ("saturated/full", "paced/full", "capacity/full", "routers/forwarding")
    done = [result.sides.get(name, Side(name=name, rounds=[])).rounds for name in parts]
    assert tuple(map(len, done)) == rounds
    shapes = [shape.name for shape in SHAPES if shape.is_quick]
    assert result.left_out == [*left_out, *shapes]
    assert result.notices == [f"CUT SHORT: {WHY}", f"Left out: {'; '.join(result.left_out)}"]
    verdicts = {row.verdict for row in result.rows}
    assert (Verdict.LEFT_OUT in verdicts) == bool(left_out)
    assert Verdict.NO_VERDICT not in verdicts
    routed = Verdict.LEFT_OUT if "routers" in left_out else Verdict.NO_BOUND
    assert {row.verdict for row in result.rows if row.name.startswith("router_")} == {routed}
    page = render(page_of(result, audit.LOOK))
    for text in (page, shown_of("audit", result)):
        assert "DH ratchet every: 1" in text.partition("Left out: ")[2]


@needs_hook
def test_a_shape_that_can_not_be_measured_takes_nothing_from_an_audit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    search_made_up(monkeypatch)

    async def run_trial(
        _: Variant, load_: LoadSettings, __: Progress, *, recovers: bool = True
    ) -> Round:
        await asyncio.sleep(0)
        if load_.channels == 1:
            raise TransportError("refused")
        return round_of("full" if recovers else "memory", 1, load())

    monkeypatch.setattr(trial, "run_trial", run_trial)
    settings = load_settings(AuditSettings, ["--quick", "--rounds=1"], {})
    result = run_ended(audit.run_audit, settings, CommandProgress())
    assert sorted(result.faults) == [
        f"channels: 1/{name}, round 1: refused" for name in ("cached", "differential", "full")
    ]
    assert result.exit is Exit.WRONG
    assert result.sides["message: 16 KiB/full"].rounds
    assert len(result.answer) <= 5


def search_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def probe(name: str, _: Variant, __: AuditSettings, ___: Objective, ____: int) -> Probe:
        async def find(progress: Progress) -> Round:
            progress.step("made up")
            await asyncio.sleep(0)
            return Round(figures={CHANNELS: 100, "loads_tried": 1})

        return Probe(name, find)

    monkeypatch.setattr(audit, "capacity_probe", probe)


def shown_of(name: str, result: Result[Any]) -> str:
    console = Console(file=(text := io.StringIO()), width=200)
    show_result(name, result, console)
    return text.getvalue()


@pytest.mark.parametrize(("seconds_a_trial", "is_complete"), [(2, True), (12, False), (90, False)])
def test_a_quick_audit_takes_no_more_than_its_time(
    monkeypatch: pytest.MonkeyPatch, seconds_a_trial: float, *, is_complete: bool
) -> None:
    micro = measure_round()
    monkeypatch.setattr(audit, "measure_round", lambda: micro)
    search_made_up(monkeypatch)

    async def run_trial(*_: object, recovers: bool = True) -> Round:
        del recovers
        await asyncio.sleep(seconds_a_trial)
        return round_of("memory", 1, load())

    monkeypatch.setattr(trial, "run_trial", run_trial)
    settings = load_settings(AuditSettings, ["--quick"], {})

    async def audited(clock: VirtualClock) -> tuple[Result[None], float]:
        begun = clock()
        with CommandProgress() as progress:
            result = await audit.run_audit(settings, progress)
        return result, (clock() - begun) / SECOND

    with heeding_signals() as current:
        result, took = run_virtually(lambda clock: current.part(audited(clock)))
    assert took <= audit.QUICK_SECONDS + 1 < 300
    assert (result.cut_short is None) == is_complete
    assert (result.left_out == []) == is_complete
    # What it left out is no fault, and no signal has ended it.
    assert result.exit is Exit.RIGHT
    assert not current.by_signal


def test_a_group_of_rows_that_is_ended_has_its_complete_rounds() -> None:
    def probe_of(name: str) -> Probe:
        async def measure(progress: Progress) -> Round:
            progress.step("measuring")
            await asyncio.sleep(0)
            return Round(figures={"rate": 1.0})

        return Probe(name, measure)

    async def turns(_: None, progress: CommandProgress) -> Turns:
        taken = Turns(1, progress)
        await taken.take("", [probe_of("a"), probe_of("b")], 3)
        await taken.take("more", [probe_of("c")], 3)
        return taken

    found = run_ended(turns, None, EndsAt("round 3 of 3"))
    assert {name: len(side.rounds) for name, side in found.sides.items()} == {"a": 2, "b": 2}
    assert found.left_out == ["1 of 3 rounds", "more"]


def test_benchmarks_that_are_ended_keep_their_complete_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def count(benchmark: Benchmark) -> MemoryFigures:
        await asyncio.sleep(0)
        return MemoryFigures(benchmark.name, None, None, 0.0)

    async def time(*_: object, **__: object) -> Timed:
        await asyncio.sleep(0)
        return Timed([1.0, 1.0], 1)

    monkeypatch.setattr(bench_command, "count_in_worker", count)
    monkeypatch.setattr(bench_command, "time_in_worker", time)
    settings = load_settings(BenchSettings, ["--quick", "--only=change*,handshake*"], {})
    names = {benchmark.name: benchmark.group for benchmark in bench_command.select(settings)}
    first, second = dict.fromkeys(names.values())
    count_of_first = list(names.values()).count(first)
    progress = EndsAt(f"{count_of_first + 1} to")
    result = run_ended(bench_command.execute_bench, settings, progress)
    assert {row.group for row in result.rows} == {first} != {second}
    assert result.cut_short == WHY
    with pytest.raises(Ended):
        run_ended(bench_command.execute_bench, settings, EndsAt("1 to"))


def test_overload_that_is_ended_has_the_transports_that_were_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def course_of(settings: OverloadSettings, _: Progress) -> Course:
        await asyncio.sleep(0)
        return course(transport=settings.transport)

    monkeypatch.setattr(overload, "_course", course_of)
    settings = load_settings(OverloadSettings, [], {})
    execute = overload.run_overload
    result = run_ended(execute, settings, EndsAt("overload over unary"))
    assert [each.transport for each in result.detail] == ["stream"]
    assert result.cut_short == WHY
    with pytest.raises(Ended):
        run_ended(execute, settings, EndsAt("overload over stream"))


# --- Commands of a load: what was measured until then ---------------------------------------------


def test_a_soak_that_is_ended_has_its_samples_and_no_verdict_on_growth() -> None:
    flags = [*TINY, "--duration=600", "--sample-seconds=0.1", "--load=0.2", "--connections=1"]
    settings = load_settings(SoakSettings, flags, {})
    result = run_ended(run_soak, settings, EndsAt("soaking", after=0.7))
    assert result.cut_short == WHY
    assert 0 < result.detail.soaked_seconds < 600
    assert result.detail.operations > 0
    assert result.detail.samples
    assert result.detail.ageing is None
    assert {row.verdict for row in result.rows} == {Verdict.NO_VERDICT}
    assert result.exit in {Exit.RIGHT, Exit.INVALID}


def test_a_crash_run_that_is_ended_counts_its_kills_until_then() -> None:
    flags = ["--kills=50", "--channels=5", "--in-flight=8", "--load-seconds=0.1", "--seed=25906"]
    settings = load_settings(CrashSettings, flags, {})
    result = run_ended(run_crash, settings, EndsAt("2 of 50 kills"))
    (figures,) = result.detail
    assert figures.total_kills == 2
    assert figures.proved_at_the_end == 0
    assert figures.faults == {}
    assert result.cut_short == WHY
    assert "No fault" not in shown_of("crash", result)


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """Where a command puts its temporary files."""
    (directory := tmp_path / "temporary").mkdir()
    return directory


@pytest.fixture
def start_command(tmp_path: Path, temporary: Path) -> Iterator[Callable[..., Started]]:
    """Start commands whose temporary files go into a directory of their own."""
    started: list[Started] = []

    def start(*arguments: str) -> Started:
        process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "connect_loadgen.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def wait_until_measuring(run: Started, temporary: Path) -> psutil.Process:
    """Wait until messages of the load are in the journal, and return the service."""
    service = child_of(run, lambda child: "connect_actor.cli" in child.cmdline())
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if any(file.stat().st_size > 1_000_000 for file in temporary.glob("*/journal.db-wal")):
            return service
        time.sleep(0.05)
    raise AssertionError("nothing was measured")


LONG = (
    "run",
    "--channels=50",
    "--concurrency=256",
    "--strategy=full",
    "--warm-up-seconds=0",
    "--duration-seconds=600",
    "--output=.",
)


@pytest.mark.parametrize(
    ("number", "processes"),
    [(signal.SIGINT, 2), (signal.SIGTERM, 1), (signal.SIGHUP, 1)],
)
def test_a_run_that_is_ended_has_its_result_and_leaves_nothing_behind(
    start_command: Callable[..., Started],
    tmp_path: Path,
    temporary: Path,
    number: signal.Signals,
    processes: int,
) -> None:
    run = start_command(*LONG, f"--processes={processes}")
    service = wait_until_measuring(run, temporary)
    family = [service, *psutil.Process(run.pid).children(recursive=True)]
    run.send_signal(number)
    shown, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == Exit.INTERRUPTED, said
    result = read(tmp_path / "run.json")
    (turn,) = result.sides["run"].rounds
    assert turn.load is not None
    assert result.cut_short == turn.load.stopped == f"ended by {number.name}"
    assert 0 < turn.load.duration_seconds < 600
    assert turn.load.operations_finished == turn.load.operations_sent > 0
    assert (turn.load.verification_failures, turn.load.errors) == (0, {})
    for text in (shown, (tmp_path / "run.html").read_text()):
        assert f"CUT SHORT: ended by {number.name}" in text
    assert said.splitlines()[-1].startswith("loadgen run: ended by")
    assert none_left(family)
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("numbers", [[signal.SIGQUIT], [signal.SIGINT, signal.SIGINT]])
def test_a_command_that_is_ended_at_once_leaves_no_keys_behind(
    start_command: Callable[..., Started],
    tmp_path: Path,
    temporary: Path,
    numbers: list[signal.Signals],
) -> None:
    run = start_command(*LONG)
    service = wait_until_measuring(run, temporary)
    # A service that no longer answers would keep an orderly end waiting.
    service.suspend()
    for number in numbers:
        run.send_signal(number)
        time.sleep(0.2)
    run.communicate(timeout=PATIENCE)
    assert run.returncode == Exit.INTERRUPTED
    assert none_left([service])
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "run.json").exists()


def test_a_command_that_is_ended_before_it_measures_has_no_result(
    start_command: Callable[..., Started], tmp_path: Path, temporary: Path
) -> None:
    run = start_command(
        *LONG,
        f"--service-command={shlex.join((sys.executable, '-c', 'import time; time.sleep(99)'))}",
    )
    service = child_of(run, lambda child: "time.sleep" in " ".join(child.cmdline()))
    run.send_signal(signal.SIGTERM)
    shown, said = run.communicate(timeout=PATIENCE)
    assert run.returncode == Exit.INTERRUPTED
    told = "loadgen run: ended by SIGTERM before anything was measured: no result"
    assert said.splitlines()[-1] == told
    assert shown == ""
    assert none_left([service])
    assert list(temporary.iterdir()) == []
    assert not (tmp_path / "run.json").exists()


def test_a_storm_to_come_does_not_keep_an_early_end_waiting(
    start_command: Callable[..., Started], temporary: Path
) -> None:
    run = start_command(*LONG, "--storms=restore@500")
    wait_until_measuring(run, temporary)
    run.send_signal(signal.SIGINT)
    run.communicate(timeout=PATIENCE)
    assert run.returncode == Exit.INTERRUPTED
