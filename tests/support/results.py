"""Results of the lab, made up: small, exact, and as odd as a test wants them."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from connect_loadgen.commands import COMMANDS
from connect_loadgen.drive.figures import Generator, Latency, LoadFigures, OperationLatency
from connect_loadgen.drive.recording import Histogram
from connect_loadgen.experiment.figures import round_of as round_of_load
from connect_loadgen.experiment.results import Environment, Recovery, Result, Round, Side
from connect_loadgen.experiments import compare, overload, run
from connect_loadgen.experiments.compare import CompareSettings
from connect_loadgen.experiments.overload import Course, Phase
from connect_loadgen.probes.refusal import RefusalCost
from connect_loadgen.program.exits import Exit
from connect_loadgen.program.files import write_whole
from connect_loadgen.report.terminal import show_all
from connect_loadgen.service.cost import Cost
from connect_loadgen.settings.load import RunSettings, load_settings
from connect_loadgen.settings.overload import TransportName

__all__ = [
    "WHEN",
    "cost",
    "course",
    "environment",
    "latency",
    "load",
    "make_compare",
    "make_overload",
    "make_run",
    "read",
    "require_sound",
    "round_of",
    "show_result",
    "sides_of",
    "write_result",
]

WHEN = "2026-01-02T03:04:05+00:00"

# Throughput of the rounds, and what else tells the variants apart.
THROUGHPUT: Mapping[str, Sequence[float]] = {
    "full": (1000.0, 1100.0, 1200.0),
    "cached": (1000.0, 1090.0, 1230.0),
    "differential": (2000.0, 2420.0, 2520.0),
    "memory": (4000.0, 4400.0, 4800.0),
}
RECORD_BYTES = {"full": 2400.0, "cached": 2400.0, "differential": 12.0, "memory": 12.0}
RESTORE_SECONDS = {"full": 0.5, "cached": 0.5, "differential": 0.75}


@functools.cache
def latency(*milliseconds: float) -> Latency:
    """Return the distribution of these durations."""
    histogram = Histogram()
    for value in milliseconds:
        histogram.record(int(value * 1e6))
    summary = histogram.summary()
    assert summary is not None
    return summary


def load(
    messages_per_second: float = 1000.0,
    *,
    wrong: int = 0,
    errors: Mapping[str, int] | None = None,
    rate: float | None = None,
    milliseconds: Sequence[float] = (1, 2, 3, 40),
    generator_warnings: Sequence[str] = (),
) -> LoadFigures:
    """Return what one load did."""
    service_time = latency(*milliseconds)
    due = None if rate is None else latency(*(value + 500 for value in milliseconds))
    return LoadFigures(
        model="closed loop" if rate is None else "open loop",
        duration_seconds=4.0,
        intended_rate=rate,
        operations_per_second=messages_per_second,
        messages_per_second=messages_per_second,
        operations_sent=4321,
        operations_finished=4320,
        messages=4000,
        reordered_messages=43,
        verification_failures=wrong,
        errors=dict(errors or {}),
        skipped_at_cap=0,
        skipped_by_late_generator=0,
        latency={"encrypt": OperationLatency(from_intended_send=due, service_time=service_time)},
        generator=Generator(
            cpu_share=0.41,
            loop_lag=latency(0.5),
            send_lag=None if rate is None else latency(0.25),
            warnings=list(generator_warnings),
        ),
    )


def cost(record_bytes: float = 2400.0) -> Cost:
    """Return the cost of 4,000 messages, at so many bytes of record each."""
    return Cost(
        messages=4000,
        cpu_seconds=0.5,
        cpu_share=0.12,
        peak_rss_bytes=81_000_000,
        records=4000,
        record_bytes=record_bytes * 4000,
        commits=77,
        snapshots=80,
        snapshot_bytes=160_000,
        journal_growth_bytes=9_000_000,
        disk_write_bytes=12_000_000,
        file_growth_bytes=8_000_000,
        duration_seconds=4.1,
        gc_collections=12,
        gc_pause_seconds=0.02,
        allocated_bytes=20_000_000,
        allocations=160_000,
    )


def round_of(variant: str, number: int, load_: LoadFigures) -> Round:
    """Return one run of a variant."""
    seconds = RESTORE_SECONDS.get(variant)
    recovery = None
    if seconds is not None:
        recovery = Recovery(
            channels=20,
            start_seconds=0.4,
            restore_seconds=seconds,
            channels_per_second=20 / seconds,
            verified_channels=20,
        )
    turn = round_of_load(
        load_, cost(RECORD_BYTES[variant]), recovery, is_durable=variant != "memory"
    )
    return turn.model_copy(update={"number": number})


def sides_of(rounds: Mapping[str, Sequence[Round]]) -> dict[str, Side]:
    """Return the sides that have these rounds."""
    return {name: Side(name=name, rounds=list(turns)) for name, turns in rounds.items()}


def environment(*, cpu_model: str | None = "Test CPU", filesystem: str = "ext4") -> Environment:
    """Return a machine."""
    return Environment(
        git_revision="0123abcd",
        git_dirty=False,
        python="CPython 3.11.0",
        versions={"grpcio": "1.85.0"},
        platform="Linux-test",
        cpu_model=cpu_model,
        cpus=2,
        memory_bytes=8 * 2**30,
        filesystem=filesystem,
    )


def make_compare(
    *,
    throughput: Mapping[str, Sequence[float]] = THROUGHPUT,
    wrong: int = 0,
    warnings: Sequence[str] = (),
    cpu_model: str | None = "Test CPU",
) -> Result[None]:
    """Return a comparison; ``wrong`` answers are in each round of differential."""
    rounds = {
        name: [
            round_of(
                name,
                number,
                load(value, wrong=wrong if (name, number) == ("differential", 1) else 0),
            )
            for number, value in enumerate(values, 1)
        ]
        for name, values in throughput.items()
    }
    parts = compare.parts_of(sides_of(rounds))
    return Result[None](
        command="compare",
        started_at=WHEN,
        seconds=120.0,
        settings=load_settings(CompareSettings, [], {}).model_dump(mode="json"),
        environment=environment(cpu_model=cpu_model),
        **{**parts, "warnings": [*parts["warnings"], *warnings]},
        detail=None,
    )


def make_run(load_: LoadFigures | None = None, cost_: Cost | None = None) -> Result[None]:
    """Return a run."""
    side = Side(name="run", rounds=[round_of_load(load_ or load(), cost_, None)])
    return Result[None](
        command="run",
        started_at=WHEN,
        seconds=5.0,
        settings=load_settings(RunSettings, [], {}).model_dump(mode="json"),
        environment=environment(),
        **run.parts_of(side, has_metrics=cost_ is not None),
        detail=None,
    )


def make_overload(*courses: Course) -> Result[list[Course]]:
    """Return what overload found."""
    return Result[list[Course]](
        command="overload",
        started_at=WHEN,
        seconds=60.0,
        settings={},
        environment=environment(),
        **overload.parts_of(courses),
        detail=list(courses),
    )


def course(
    *,
    transport: TransportName = "stream",
    refused: int = 5,
    generator_warnings: Sequence[str] = (),
    wrong: int = 0,
) -> Course:
    """Return a course in which so many operations were refused under overload."""
    names = ("normal", "sustainable", "overload", "normal again")
    return Course(
        transport=transport,
        sustainable_per_second=1_000,
        phases=[
            Phase(
                name=name,
                begins_seconds=10 * index,
                seconds=10,
                offered_per_second=1_000,
                accepted_per_second=900,
                refused={"RESOURCE_EXHAUSTED": refused if name == "overload" else 1},
                p50_ms=1,
                p99_ms=2,
                cpu_share=0.9,
                peak_rss_bytes=1_000_000,
            )
            for index, name in enumerate(names)
        ],
        windows=[],
        held_back=0,
        skipped_at_cap=0,
        skipped_by_late_generator=0,
        wrong_answers=wrong,
        recovery_seconds=1,
        refusal=RefusalCost(
            accepted_cpu_us=100,
            refused_cpu_us=10,
            refused=5,
            has_retry_info=True,
            bare_cpu_us=None,
            of_bare=None,
        ),
        connections=None,
        generator=load(generator_warnings=generator_warnings).generator,
    )


def read(path: Path) -> Result[Any]:
    """Read a saved result."""
    return Result[Any].model_validate_json(path.read_text())


def require_sound(code: int, result: Result[Any]) -> None:
    """Check that a real load went right, and that the exit code says so.

    On a busy machine the generator may have been the limit, which has a code of its own.
    """
    assert code == result.exit
    assert result.exit in {Exit.RIGHT, Exit.INVALID}, result.notices


def show_result(name: str, result: object, console: Console) -> None:
    """Show what a command shows of its result."""
    show_all(console, COMMANDS[name].blocks(result))


def write_result(name: str, result: object, settings: Any) -> None:  # noqa: ANN401 - of any command
    """Write the files that a command writes."""
    for path, rendered in COMMANDS[name].files(settings).items():
        write_whole(path, rendered(result))
