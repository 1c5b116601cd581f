"""``python -m benchmarks.ladder``: its steps, its table, and a real run."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.checkouts import REPOSITORY, find_revision
from benchmarks.ladder import main, parse_steps, rotated
from benchmarks.ladder_table import PACED, LadderDetail, StepTold, markdown_of
from connect_loadgen.experiment.figures import round_of
from connect_loadgen.experiment.model import Probe
from connect_loadgen.experiment.results import Result, Round
from connect_loadgen.experiments.compare import CompareSettings
from connect_loadgen.settings.load import ConfigurationError, load_settings
from tests.support.results import WHEN, cost, environment, load, read, sides_of

in_git = pytest.mark.skipif(not (REPOSITORY / ".git").exists(), reason="no checkout of git's")


# --- Steps ----------------------------------------------------------------------------------------


@in_git
def test_steps_are_revisions_with_labels_and_flags() -> None:
    head = find_revision("HEAD")
    plain, labelled, flagged, both = parse_steps(
        ["HEAD", "HEAD=as it is", "HEAD --a=1 --b='x y'", "HEAD=a = 2 --a=2"]
    )
    assert {step.commit for step in (plain, labelled, flagged, both)} == {head.commit}
    assert (plain.label, plain.flags) == (head.subject, ())
    assert (labelled.label, labelled.flags) == ("as it is", ())
    assert (flagged.label, flagged.flags) == (f"{head.subject} --a=1 --b=x y", ("--a=1", "--b=x y"))
    assert (both.label, both.flags) == ("a = 2", ("--a=2",))


@in_git
@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (["HEAD", "HEAD"], "write HEAD=LABEL"),
        (["HEAD=a", "HEAD=a --b=1"], "two steps are called 'a'"),
        (["no-such-revision"], "no-such-revision"),
        (["HEAD --a='1"], "No closing quotation"),
    ],
)
def test_steps_that_can_not_be_told_apart_or_read_are_refused(
    texts: Sequence[str], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        parse_steps(texts)


async def never(_: object) -> Round:
    raise AssertionError("measured")


def test_every_step_has_every_place_once_in_as_many_rounds() -> None:
    probes = [Probe(name, never) for name in "abc"]
    orders = ["".join(probe.name for probe in order) for order in rotated(probes, 4)]
    assert orders == ["abc", "bca", "cab", "abc"]


# --- The table ------------------------------------------------------------------------------------


def made_up(*, paced: bool = False, allocated: int | None = 20_000_000) -> Result[LadderDetail]:
    def rounds(throughput: Sequence[float], milliseconds: float, cpu: float) -> list[Round]:
        spent = cost().model_copy(update={"cpu_seconds": cpu, "allocated_bytes": allocated})
        return [
            round_of(load(value, milliseconds=[milliseconds]), spent, None) for value in throughput
        ]

    done = {
        "before": rounds((1000, 2000, 4000), 40, 0.4),
        "a|b": rounds((2000, 6000, 8000), 20, 0.2),
        "both": rounds((3000, 6000, 16_000), 10, 0.1),
    }
    also = {f"{PACED}{name}": turns for name, turns in done.items()} if paced else {}
    return Result[LadderDetail](
        command="ladder",
        started_at=WHEN,
        seconds=60.0,
        settings=load_settings(CompareSettings, [], {}).model_dump(mode="json"),
        environment=environment(),
        sides=sides_of({**done, **also}),
        warnings=["before, round 1: too slow"],
        detail=LadderDetail(
            paced_rate=1400.0 if paced else None,
            steps=[
                StepTold(
                    label=label,
                    commit="0123456789abcdef",
                    flags=["--x=a b"] if label == "both" else [],
                )
                for label in done
            ],
        ),
    )


def rows_of(result: Result[LadderDetail]) -> list[str]:
    return [line for line in markdown_of(result).splitlines() if line.startswith("|")][2:]


def test_each_figure_is_shown_step_by_step_with_ratios_within_the_rounds() -> None:
    rows = rows_of(made_up())
    assert rows[:3] == [
        "| **Throughput, messages/s** | before | 2,000 [1,000, 4,000] | - | - |",
        "|  | a\\|b | 6,000 [2,000, 8,000] | 2.00 [2.00, 3.00] | 2.00 [2.00, 3.00] |",
        "|  | both | 6,000 [3,000, 16,000] | 3.00 [3.00, 4.00] | 1.50 [1.00, 2.00] |",
    ]
    assert rows[5] == "|  | both | 10.0 [10.0, 10.0] | 0.25 [0.25, 0.25] | 0.50 [0.50, 0.50] |"
    # 0.4 seconds on 4,000 messages.
    assert rows[6].startswith("| **Service CPU, µs/message** | before | 100 [100, 100] |")
    assert rows[9].startswith("| **Allocated, B/message** | before | 5,000 [5,000, 5,000] |")
    assert rows[12].startswith("| **GC collections per 1,000 messages** | before | 3.00 ")
    assert len(rows) == 15


def test_a_paced_load_has_rows_of_its_own() -> None:
    rows = rows_of(made_up(paced=True))
    assert len(rows) == 21
    assert rows[15].startswith("| **p99 at 1,400 messages/s, ms** | before | 40.0 ")
    assert rows[18].startswith("| **Service CPU at 1,400 messages/s, µs/message** | before | 100 ")


def test_what_was_run_and_what_to_doubt_is_said_around_the_table() -> None:
    text = markdown_of(made_up())
    assert "p99 is latency under saturation" in text
    assert "open loop" not in text
    assert "70% of the first step's" in markdown_of(made_up(paced=True))
    assert text.endswith(
        "- before: `0123456789`\n"
        "- a|b: `0123456789`\n"
        "- both: `0123456789` `'--x=a b'`\n"
        "- **Warning**: before, round 1: too slow"
    )


def test_a_figure_that_can_not_be_had_is_left_out_with_its_reason() -> None:
    result = made_up(allocated=None)
    assert rows_of(result)[10] == "|  | a\\|b | - | - | - |"
    assert "- a|b, Allocated, B/message: not known" in markdown_of(result)


# --- A run ----------------------------------------------------------------------------------------

TINY = (
    "--rounds=2",
    "--seconds=0.3",
    "--channels=4",
    "--concurrency=16",
    "--frame-operations=8",
    "--warm-up-seconds=0",
)


@in_git
def test_a_run_measures_each_step_with_its_flags_in_each_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "ladder.json"
    steps = ("HEAD=seldom", "HEAD=often --snapshot-interval=2")
    assert main([*steps, *TINY, "--workload=encrypt", f"--output={output}"]) == 0
    result = read(output)
    seldom, often = (result.sides[name].rounds for name in ("seldom", "often"))
    assert [[turn.position for turn in each] for each in (seldom, often)] == [[1, 2], [2, 1]]
    for turn in (*seldom, *often):
        assert turn.cost is not None
        assert turn.cost.records == turn.cost.messages > 10
        assert turn.load is not None
        assert list(turn.load.latency) == ["encrypt"]
        # An end's flags win over those of every variant.
        assert (turn.cost.snapshots > turn.cost.messages / 4) == (turn in often)
    assert result.detail["steps"][1]["flags"] == ["--snapshot-interval=2"]
    assert "| **Throughput, messages/s** | seldom |" in capsys.readouterr().out


@in_git
@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["no-such-revision"], "no-such-revision"),
        (["HEAD", "--rounds=0"], "--rounds"),
        (["HEAD", "--frame-operations=4000"], "raise --concurrency"),
        (["HEAD", "--serve='"], "No closing quotation"),
    ],
)
def test_what_can_not_be_run_is_told_in_a_line(
    flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(flags) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("loadgen ladder: ")
    assert told in line


def test_a_rate_from_the_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOADGEN_RATE", "100")
    assert main(["HEAD"]) == 2
    assert "LOADGEN_RATE" in capsys.readouterr().err
