"""``loadgen bench``: every benchmark does its work, and figures are those of the values."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from connect_loadgen import cli
from connect_loadgen.bench.cases import Benchmark, Operation
from connect_loadgen.bench.command import read_saved
from connect_loadgen.bench.memory import measure_memory
from connect_loadgen.bench.report import bench_blocks
from connect_loadgen.bench.results import BenchResult, Row, compare, make_row
from connect_loadgen.bench.settings import BenchSettings
from connect_loadgen.bench.suite import SUITE, chosen
from connect_loadgen.program.exits import Exit
from connect_loadgen.report.terminal import show_all
from connect_loadgen.settings.load import ConfigurationError, load_settings
from tests.support.compiler import needs_hook
from tests.support.process import PATIENCE, child_of, none_left
from tests.support.results import environment


def row(name: str, *rounds: list[float], baseline: list[list[float]] | None = None) -> Row:
    return make_row(
        name,
        group=name.partition(":")[0],
        is_baseline=False,
        rounds=rounds,
        baseline=baseline,
        allocated_bytes=100.0,
        allocated_blocks=3.0,
        collections=0.0,
    )


def result(*rows: Row) -> BenchResult:
    return BenchResult(
        started_at="2026-01-02T03:04:05+00:00",
        settings={},
        environment=environment(),
        rows=list(rows),
    )


# --- The suite ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SUITE)
def test_every_benchmark_does_its_work(name: str) -> None:
    SUITE[name].require_right()


def test_the_audits_wishes_are_all_in_the_suite() -> None:
    groups = {benchmark.group for benchmark in SUITE.values()}
    for wished in (
        "handshake",
        "ratchet",
        "encrypt",
        "decrypt",
        "payload create 64 B",
        "payload process 2048 B",
        "AES-GCM decrypt 512 B",
        "protobuf bytes 10240 B",
        "identity keys and handshake",
        "ratchet to stored form",
        "ratchet parsed from it",
        "session to stored form",
        "session from stored form",
        "change",
        "record of 0 skipped keys and 10 prekeys",
        "record of 1000 skipped keys and 100 prekeys",
        "journal append",
        "recovery of 50 records after a snapshot",
        "actor",
        "channel",
        "one channel with 64 pipelined",
        "64 parallel channels",
        "GC pressure at 2000/s on 100 channels",
        "long session",
    ):
        assert wished in groups


def test_no_group_has_two_baselines() -> None:
    baselines = [benchmark.group for benchmark in SUITE.values() if benchmark.is_baseline]
    assert len(baselines) == len(set(baselines))


@contextmanager
def _idle(_: int) -> Iterator[Operation]:
    yield lambda: None


def test_a_benchmark_that_does_no_work_is_refused() -> None:
    with pytest.raises(ArithmeticError, match="does not do its work"):
        Benchmark("idle: nothing", _idle, lambda made: made is not None).require_right()


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (("encrypt: 64 B",), ["encrypt: 64 B"]),
        (("DH turn",), ["ratchet: DH turn of both ends"]),
        (("change: *",), ["change: encode", "change: decode and apply"]),
        (
            ("ratchet: D*", "X3DH"),
            ["handshake: X3DH of both ends", "ratchet: DH turn of both ends"],
        ),
        # A pattern is of the whole name: no AES-GCM here.
        (("GCM*",), []),
        (("no such thing",), []),
    ],
)
def test_benchmarks_are_chosen_by_name_or_a_part_of_it(
    patterns: tuple[str, ...], found: list[str]
) -> None:
    assert [benchmark.name for benchmark in chosen(patterns)] == found


def test_every_benchmark_can_be_asked_for_by_its_whole_name() -> None:
    for name in SUITE:
        only = load_settings(BenchSettings, [f"--only={name}"], {}).only
        assert SUITE[name] in chosen(only)
        assert len(only) == 1


def test_without_a_pattern_all_are_chosen() -> None:
    assert len(chosen(())) == len(SUITE)


# --- Memory ---------------------------------------------------------------------------------------


@needs_hook
def test_allocations_are_those_of_one_operation() -> None:
    @contextmanager
    def prepare(_: int) -> Iterator[Operation]:
        yield lambda: [bytes(1_000), bytes(1_000)]

    figures = measure_memory(Benchmark("bytes: two", prepare, bool, operations=2))
    assert figures.allocated_bytes is not None
    assert 1_000 < figures.allocated_bytes < 1_200
    assert figures.allocated_blocks is not None
    assert 1 <= figures.allocated_blocks < 3


# --- Figures --------------------------------------------------------------------------------------


def test_the_rows_figures_are_those_of_its_values() -> None:
    made = row("group: some", [4.0, 1.0], [2.0, 3.0])
    assert made.rounds == [[4.0, 1.0], [2.0, 3.0]]
    assert made.mean == 2.5
    assert made.median == 2.5
    assert made.p95 == pytest.approx(3.85)
    assert made.operations_per_second == 0.4
    # Student's t for 3 degrees of freedom, times the standard deviation, by the root of 4.
    assert made.error == pytest.approx(12.92 * 1.2909944 / 2)
    assert made.ratio is None


def test_between_two_known_degrees_of_freedom_the_wider_error_holds() -> None:
    made = row("group: some", [1.0, 3.0] * 11)
    # 21 degrees: t is 3.819, and 19 have 3.883.
    assert made.error == pytest.approx(3.883 * (22 / 21) ** 0.5 / 22**0.5)


def test_a_ratio_is_taken_within_each_round() -> None:
    # The third round was ten times slower for both: that is the machine, not the benchmark.
    baseline = [[1.0, 1.0], [1.0, 1.2], [10.0, 10.0]]
    made = row("group: some", [2.0, 2.0], [3.2, 3.4], [25.0, 25.0], baseline=baseline)
    assert made.ratio is not None
    assert (made.ratio.low, made.ratio.median) == (2.0, 2.5)
    assert made.ratio.high == pytest.approx(3.0)


def test_a_planted_regression_is_found_and_noise_is_not() -> None:
    steady = [1.00, 1.01, 0.99, 1.00, 1.01, 0.99]
    saved = result(row("a: slower", steady), row("b: same", steady), row("c: noisy", steady))
    slower = [value * 1.3 for value in steady]
    noisy = [0.6, 2.6, 0.7, 2.5, 1.2, 1.3]
    new = result(row("a: slower", slower), row("b: same", steady), row("c: noisy", noisy))
    found = {one.name: one.is_slower for one in compare(saved, new.rows, threshold=0.1)}
    assert found == {"a: slower": True, "b: same": False, "c: noisy": False}
    assert not any(one.is_slower for one in compare(saved, new.rows, threshold=0.5))


def test_only_what_both_runs_have_is_compared() -> None:
    saved, new = result(row("a: x", [1.0, 1.0])), result(row("b: x", [9.0, 9.0]))
    assert compare(saved, new.rows, threshold=0.1) == []


# --- The command ----------------------------------------------------------------------------------


@needs_hook
def test_a_run_writes_what_it_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quick = ("--quick", "--values=2", "--only=change: encode")
    assert cli.main(["bench", *quick, f"--output={tmp_path}"]) == 0
    written = (tmp_path / "bench.json").read_text()
    content = json.loads(written)
    assert BenchResult.model_validate_json(written).model_dump(mode="json") == content
    (only,) = content["rows"]
    assert only["name"] == "change: encode"
    assert [len(values) for values in only["rounds"]] == [2, 2]
    assert only["mean"] > 0
    assert only["allocated_bytes"] > 0
    said = capsys.readouterr()
    assert "encode" in said.out
    assert said.err.startswith("1 to 1 of 1: ")
    assert "encode" in (tmp_path / "bench.html").read_text()


@pytest.mark.parametrize(("factor", "right"), [(1.3, False), (1.0, True)])
def test_a_run_that_became_slower_is_told_apart_for_ci(
    tmp_path: Path,
    factor: float,
    right: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    steady = [1.00, 1.01, 0.99, 1.00, 1.01, 0.99]
    saved = tmp_path / "saved.json"
    saved.write_text(result(row("change: encode", steady)).model_dump_json())
    flags = ["--only=change: encode", f"--compare={saved}", f"--output={tmp_path}"]
    settings = load_settings(BenchSettings, flags, {})
    new = result(row("change: encode", [value * factor for value in steady]))
    before = read_saved(settings)
    assert before is not None
    compared = compare(before, new.rows, settings.threshold)
    code = new.model_copy(update={"compared": compared}).exit
    assert code is (Exit.RIGHT if right else Exit.WRONG)


def test_list_names_the_benchmarks(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--list", "--only=X3DH"]) == 0
    assert capsys.readouterr().out == "handshake: X3DH of both ends\n"


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--only=no such", "no benchmark"),
        ("--only=change: encode,no such", "no such"),
        ("--compare=/no/such", "no bench.json"),
    ],
)
def test_what_is_not_there_is_refused(
    flag: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bench", flag]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("given", "understood"), [("10%", 0.1), ("0.25", 0.25), ("150%", 1.5)])
def test_a_threshold_is_a_share_or_percent(given: str, understood: float) -> None:
    settings = load_settings(BenchSettings, [f"--threshold={given}"], {})
    assert settings.threshold == pytest.approx(understood)


@pytest.mark.parametrize("given", ["0%", "-10%", "much%", "nan"])
def test_a_threshold_that_makes_no_sense_is_refused(given: str) -> None:
    with pytest.raises(ConfigurationError, match="--threshold"):
        load_settings(BenchSettings, [f"--threshold={given}"], {})


def test_quick_takes_fewer_rounds_and_flags_still_win() -> None:
    settings = load_settings(BenchSettings, ["--quick", "--rounds=3"], {})
    assert (settings.rounds, settings.values) == (3, 2)


def test_a_saved_run_without_any_of_the_benchmarks_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "saved.json"
    saved.write_text(result(row("gone: since then", [1.0, 1.0])).model_dump_json())
    flags = ("--quick", "--only=change: encode", f"--compare={saved}", f"--output={tmp_path}")
    assert cli.main(["bench", *flags]) == 2
    assert "none of the benchmarks" in capsys.readouterr().err


def test_what_the_saved_run_lacks_is_told() -> None:
    saved = result(row("change: encode", [1.0, 1.0]))
    new = result(*saved.rows, row("ratchet: new", [1.0, 1.0]))
    new = new.model_copy(
        update={"settings": {"threshold": 0.1}, "compared": compare(saved, new.rows, 0.1)}
    )
    show_all(Console(file=(said := io.StringIO()), width=100), bench_blocks(new))
    assert new.exit is Exit.RIGHT
    assert "Not in the saved run, and so not compared: 1." in said.getvalue()


def test_a_run_that_is_ended_leaves_no_worker_behind(tmp_path: Path) -> None:
    (temporary := tmp_path / "temporary").mkdir()
    # Paced, so that a worker left alone lasts 20 seconds, however fast the machine.
    flags = ("--only=GC pressure*full", "--rounds=1", "--values=100", f"--output={tmp_path}")
    bench = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "connect_loadgen.cli", "bench", *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    try:
        worker = worker_of(bench)
        bench.send_signal(signal.SIGTERM)
        assert bench.wait(PATIENCE) == Exit.INTERRUPTED
        assert none_left([worker])
        # Its journal, and the key to it, lay there.
        assert list(temporary.iterdir()) == []
    finally:
        bench.kill()
        bench.wait()


def worker_of(bench: subprocess.Popen[bytes]) -> psutil.Process:
    """Return the process in which pyperf times, once it is there."""
    return child_of(bench, lambda child: "--worker" in child.cmdline())
