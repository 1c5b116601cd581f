"""Two saved results beside each other: what differs, and what counts as worse."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from connect_loadgen.cli import main
from connect_loadgen.experiment.difference import Change, diff_results, read_result
from connect_loadgen.experiment.results import CompareResult
from connect_loadgen.program.exits import Exit
from connect_loadgen.settings.load import ConfigurationError
from tests.support.results import THROUGHPUT, make_compare, make_run


def with_throughput(*full: float) -> CompareResult:
    return make_compare(throughput={**THROUGHPUT, "full": full})


def throughput_of_full(
    before: Sequence[float], after: Sequence[float], threshold: float = 0.1
) -> Change:
    diff = diff_results(with_throughput(*before), with_throughput(*after), threshold)
    return next(
        change
        for change in diff.changes
        if (change.variant, change.figure.name) == ("full", "messages_per_second")
    )


def test_a_result_does_not_differ_from_itself() -> None:
    diff = diff_results(make_compare(), make_compare(), 0.0)
    assert (diff.settings, diff.environment, diff.notes) == ([], [], [])
    assert {change.ratio.median for change in diff.changes if change.ratio is not None} == {1.0}
    assert {change.variant for change in diff.changes} == set(THROUGHPUT)
    assert diff.exit is Exit.RIGHT


def test_a_ratio_goes_from_the_worst_to_the_best_that_two_rounds_give() -> None:
    ratio = throughput_of_full((100, 110, 120), (220, 240, 200)).ratio
    assert ratio is not None
    assert ratio.median == pytest.approx(2.0)
    assert ratio.low == pytest.approx(200 / 120)
    assert ratio.high == pytest.approx(240 / 100)


@pytest.mark.parametrize(
    ("before", "after", "threshold", "worse"),
    [
        ((100, 101, 102), (80, 81, 82), 0.1, True),
        # Better.
        ((80, 81, 82), (100, 101, 102), 0.1, False),
        # Within the threshold.
        ((100, 101, 102), (95, 96, 97), 0.1, False),
        ((100, 101, 102), (95, 96, 97), 0.01, True),
        # Beyond it, but rounds of the same result differ by as much.
        ((70, 101, 102), (65, 81, 82), 0.1, False),
    ],
)
def test_worse_is_beyond_the_threshold_and_beyond_the_rounds_own_spread(
    before: Sequence[float], after: Sequence[float], threshold: float, *, worse: bool
) -> None:
    assert throughput_of_full(before, after, threshold).is_worse is worse


def test_what_more_is_better_of_is_told_from_what_less_is_better_of() -> None:
    before = make_compare().model_dump(mode="json")
    for variant in before["variants"]:
        for round_ in variant["rounds"]:
            round_["cost"]["cpu_seconds"] /= 2
    faster = CompareResult.model_validate(before)
    diff = diff_results(faster, make_compare(), 0.1)
    worse = {change.figure.name for change in diff.changes if change.is_worse}
    assert worse == {"cpu_seconds_per_1000_messages"}
    assert diff_results(make_compare(), faster, 0.1).exit is Exit.RIGHT


def test_what_differs_in_settings_and_machine_is_told() -> None:
    before = make_run()
    after = before.model_copy(
        update={
            "settings": {**before.settings, "channels": 77, "output": "elsewhere", "new": 1},
            "environment": before.environment.model_copy(
                update={"cpus": 96, "versions": {"grpcio": "9.9"}}
            ),
        }
    )
    diff = diff_results(before, after, 0.1)
    settings = {difference.name: difference.after for difference in diff.settings}
    assert settings == {"channels": "77", "new": "1"}
    assert next(d.before for d in diff.settings if d.name == "new") == "-"
    assert {d.name: d.after for d in diff.environment} == {"cpus": "96", "grpcio": "9.9"}


def test_of_a_run_without_costs_the_load_is_compared() -> None:
    run = make_run().model_copy(update={"cost": None})
    for diff in (diff_results(run, make_run(), 0.1), diff_results(run, run, 0.1)):
        figures = {change.figure.name for change in diff.changes}
        assert figures == {"messages_per_second", "p50_ms", "p99_ms", "p99_9_ms"}


def test_a_single_round_and_doubtful_results_are_told() -> None:
    doubtful = make_compare(wrong=1)
    notes = diff_results(make_compare(), doubtful, 0.1).notes
    assert notes == ["after, differential: answers were WRONG"]
    assert any("single round" in note for note in diff_results(make_run(), make_run(), 0.1).notes)


# --- Files, and the command -----------------------------------------------------------------------


def saved(path: Path, result: CompareResult) -> str:
    path.write_text(result.model_dump_json())
    return str(path)


def test_a_saved_result_is_read_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(make_run().model_dump_json())
    assert read_result(tmp_path / "run.json") == make_run()
    saved(tmp_path / "compare.json", make_compare())
    assert read_result(tmp_path / "compare.json") == make_compare()


def test_the_exit_code_says_whether_something_got_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = saved(tmp_path / "a.json", with_throughput(100, 101, 102))
    after = saved(tmp_path / "b.json", with_throughput(80, 81, 82))
    assert main(["diff", before, after]) == 1
    assert "! 0.80" in capsys.readouterr().out
    assert main(["diff", after, before]) == 0
    assert main(["diff", before, after, "--threshold=0.5"]) == 0


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"schema_version": "other/1"}'])
def test_what_is_no_result_is_refused_by_its_name(
    tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    good, bad = saved(tmp_path / "a.json", make_compare()), tmp_path / "b.json"
    if content is not None:
        bad.write_text(content)
    assert main(["diff", good, str(bad)]) == 2
    said = capsys.readouterr().err
    assert str(bad) in said
    assert len(said.splitlines()) == 1


def test_results_of_two_kinds_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="give two of a kind"):
        diff_results(make_run(), make_compare(), 0.1)


def test_two_results_are_needed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", "one.json"]) == 2
    assert "AFTER" in capsys.readouterr().err
