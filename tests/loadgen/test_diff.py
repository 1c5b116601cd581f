"""Two saved results beside each other: what differs, and what counts as worse."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from connect_loadgen.cli import main
from connect_loadgen.experiment.bounds import Verdict
from connect_loadgen.experiment.difference import diff_results, read_result
from connect_loadgen.experiment.results import Result, Row
from connect_loadgen.program.exits import Exit
from connect_loadgen.settings.load import ConfigurationError
from tests.support.results import THROUGHPUT, cost, load, make_compare, make_run


def with_throughput(*full: float) -> Result[None]:
    return make_compare(throughput={**THROUGHPUT, "full": full})


def throughput_of_full(
    before: Sequence[float], after: Sequence[float], threshold: float = 0.1
) -> Row:
    diff = diff_results(with_throughput(*before), with_throughput(*after), threshold)
    return next(row for row in diff.rows if row.name == "full.messages_per_second")


def worse(diff: Result[Any]) -> set[str]:
    return {row.name.partition(".")[2] or row.name for row in diff.rows if row.is_broken}


def test_a_result_does_not_differ_from_itself() -> None:
    diff = diff_results(make_compare(), make_compare(), 0.0)
    assert (diff.detail.settings, diff.detail.environment, diff.rows) == ([], [], [])
    assert diff.answer == ["Nothing differs: the two results are the same"]
    assert diff.exit is Exit.RIGHT


def test_a_ratio_goes_from_the_worst_to_the_best_that_two_rounds_give() -> None:
    ratio = throughput_of_full((100, 110, 120), (220, 240, 200)).ratio
    assert ratio is not None
    assert ratio.median == pytest.approx(2.0)
    assert ratio.low == pytest.approx(200 / 120)
    assert ratio.high == pytest.approx(240 / 100)


@pytest.mark.parametrize(
    ("before", "after", "threshold", "is_worse"),
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
    before: Sequence[float], after: Sequence[float], threshold: float, *, is_worse: bool
) -> None:
    assert throughput_of_full(before, after, threshold).is_broken is is_worse


def test_what_more_is_better_of_is_told_from_what_less_is_better_of() -> None:
    spent = cost()
    slow = make_run(load(), spent)
    fast = make_run(load(), spent.model_copy(update={"cpu_seconds": 0.25}))
    assert worse(diff_results(fast, slow, 0.1)) == {"cpu_seconds_per_1000_messages"}
    assert diff_results(slow, fast, 0.1).exit is Exit.RIGHT


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
    found = diff_results(before, after, 0.1).detail
    assert {name: after for name, _, after in found.settings} == {"channels": "77", "new": "1"}
    assert next(before for name, before, _ in found.settings if name == "new") == "-"
    assert {name: after for name, _, after in found.environment} == {"cpus": "96", "grpcio": "9.9"}


def test_of_a_run_without_costs_the_load_is_compared() -> None:
    faster = make_run(load(2_000))
    rows = diff_results(make_run(), faster, 0.1).rows
    assert {row.name for row in rows} == {"messages_per_second", "p50_ms", "p99_ms", "p99_9_ms"}


def test_a_single_round_and_doubtful_results_are_told() -> None:
    doubtful = make_compare(wrong=1)
    told = diff_results(make_compare(), doubtful, 0.1).warnings
    assert "after: differential, round 1: 1 answers were WRONG" in told
    single = diff_results(make_run(), make_run(load(999)), 0.1).warnings
    assert any("single round" in note for note in single)


def test_results_with_no_figure_in_common_have_no_verdict() -> None:
    before, after = make_compare(), make_compare()
    others = [row.model_copy(update={"name": f"new {row.name}"}) for row in after.rows]
    diff = diff_results(before, after.model_copy(update={"rows": others}), 0.1)
    assert diff.exit is Exit.NO_VERDICT
    assert diff.notices == ["Nothing can be compared, no figure is in both results: no verdict"]


def test_rounds_that_the_generator_limited_are_not_compared() -> None:
    bound = make_run(load(generator_warnings=["the generator used 95% of a core"]))
    for diff in (diff_results(bound, make_run(), 0.1), diff_results(make_run(), bound, 0.1)):
        assert diff.exit is Exit.INVALID
        assert diff.notices == ["Nothing can be compared, the generator was the limit: no verdict"]
        assert any("the round is left out" in note for note in diff.warnings)


def test_a_result_that_was_cut_short_is_told() -> None:
    cut = make_run().model_copy(update={"cut_short": "ended by SIGINT"})
    assert "before: CUT SHORT: ended by SIGINT" in diff_results(cut, make_run(), 0.1).warnings


# --- Files, and the command -----------------------------------------------------------------------


def saved(path: Path, result: Result[None]) -> str:
    path.write_text(result.model_dump_json())
    return str(path)


def test_a_saved_result_is_read_as_it_was(tmp_path: Path) -> None:
    for result in (make_run(), make_compare()):
        saved(tmp_path / "a.json", result)
        assert read_result(tmp_path / "a.json").model_dump() == result.model_dump()


def test_the_exit_code_says_whether_something_got_worse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = saved(tmp_path / "a.json", with_throughput(100, 101, 102))
    after = saved(tmp_path / "b.json", with_throughput(80, 81, 82))
    assert main(["diff", before, after]) == 1
    said = capsys.readouterr().out
    assert "Worse: full: Throughput" in said
    assert f"! {Verdict.DOES_NOT_HOLD}" in said
    assert main(["diff", after, before]) == 0
    assert main(["diff", before, after, "--threshold=0.5"]) == 0


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"format": "other/1"}'])
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
