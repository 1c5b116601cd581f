"""No verdict where nothing was shown: a saturated generator, no overload, no kill."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from connect_loadgen.audit.claims import CLAIMS
from connect_loadgen.audit.figures import FigureBook
from connect_loadgen.audit.results import CapacityProbe, CapacitySearch
from connect_loadgen.audit.rows import AWAITING, FORWARDING, claim_rows, missed_rows
from connect_loadgen.cli import main
from connect_loadgen.compare import BASELINE, summarise, warnings_of
from connect_loadgen.crash.results import CrashResult, StrategyFigures
from connect_loadgen.experiment.difference import diff_results
from connect_loadgen.experiment.results import CompareResult, Round
from connect_loadgen.experiment.verdicts import Verdict
from connect_loadgen.overload.results import Course, OverloadResult
from connect_loadgen.program.exits import Exit
from connect_loadgen.report.compare_page import compare_page
from connect_loadgen.report.html import render
from connect_loadgen.report.promises import Promise, verdict_on_all, withhold_verdicts
from connect_loadgen.report.run_page import run_page
from connect_loadgen.runner import with_notices
from tests.support.results import (
    course,
    environment,
    load,
    make_compare,
    make_run,
    round_of,
    show_result,
)

BUSY = ["the generator used 95% of a core"]
VARIANTS = ("full", "cached", "differential", "memory")


def rounds(*, bound: Mapping[str, Sequence[int]], of: int = 3) -> dict[str, list[Round]]:
    """Return rounds of all variants; those numbered in ``bound`` were the generator's limit."""
    return {
        name: [
            round_of(
                name,
                number,
                load(
                    100.0 * number, generator_warnings=BUSY if number in bound.get(name, ()) else ()
                ),
            )
            for number in range(1, of + 1)
        ]
        for name in VARIANTS
    }


def compared(done: Mapping[str, Sequence[Round]]) -> CompareResult:
    result = make_compare()
    variants = [
        variant.model_copy(
            update={
                "rounds": list(done[variant.name]),
                "summary": summarise(done[variant.name], done[BASELINE]),
            }
        )
        for variant in result.variants
    ]
    return result.model_copy(update={"variants": variants, "warnings": warnings_of(done)})


def shown(name: str, result: object) -> str:
    show_result(name, result, Console(file=(text := io.StringIO()), width=200))
    return text.getvalue()


# --- A run ----------------------------------------------------------------------------------------


def test_a_saturated_generator_is_an_exit_code_and_stands_above_the_answer() -> None:
    result = make_run(load(generator_warnings=BUSY))
    assert result.exit is Exit.INVALID
    assert result.notices == ["INVALID: generator saturated: no verdict on the service"]
    first = with_notices(run_page(result), result).sections[0]
    assert "INVALID" in render(with_notices(run_page(result), result))
    assert first.anchor == "notices"
    assert with_notices(run_page(make_run()), make_run()).sections[0].anchor == "question"


def test_a_wrong_answer_is_wrong_whatever_the_generator_did() -> None:
    assert make_run(load(wrong=1, generator_warnings=BUSY)).exit is Exit.WRONG


def test_a_run_without_an_answer_has_shown_nothing() -> None:
    idle = load().model_copy(update={"operations_finished": 0})
    result = make_run(idle)
    assert result.exit is Exit.NO_VERDICT
    assert result.notices == ["No operation was finished: no verdict"]
    assert make_run(idle.model_copy(update={"errors": {"INTERNAL": 1}})).exit is Exit.WRONG


# --- Rounds ---------------------------------------------------------------------------------------


def test_a_round_that_the_generator_limited_is_in_no_figure_and_is_told() -> None:
    done = rounds(bound={"differential": [1], "full": [3]})
    result = compared(done)
    summary = {variant.name: variant.summary for variant in result.variants}
    throughput = "messages_per_second"
    of_differential = summary["differential"].figures[throughput]
    assert of_differential is not None
    assert (of_differential.low, of_differential.high) == (200, 300)
    # The only round in which both are valid.
    ratio = summary["differential"].ratios[throughput]
    assert ratio is not None
    assert (ratio.low, ratio.high) == (1, 1)
    assert [summary[name].rounds_left_out for name in VARIANTS] == [1, 0, 1, 0]
    assert result.exit is Exit.RIGHT
    assert [text for text in result.warnings if "left out" in text] == [
        "full, round 3: INVALID: generator saturated; the round is left out",
        "differential, round 1: INVALID: generator saturated; the round is left out",
    ]


def test_a_variant_without_a_valid_round_has_no_verdict() -> None:
    result = compared(rounds(bound={"memory": [1, 2, 3]}))
    assert result.exit is Exit.INVALID
    assert result.notices == ["memory: the generator was the limit in every round: no verdict"]
    assert "memory: the generator was the limit in every round" in shown("compare", result)
    render(compare_page(result))


def test_a_comparison_of_nothing_does_not_say_that_nothing_is_worse() -> None:
    result = compared(rounds(bound={"full": [1, 2, 3]}))
    text = shown("compare", result)
    assert "No round allows a comparison with full: no verdict." in text
    assert "No figure is worse" not in text
    render(compare_page(result))


# --- The audit ------------------------------------------------------------------------------------


def verdict_of_throughput(bound: Mapping[str, Sequence[int]]) -> tuple[str, str]:
    book = FigureBook()
    book.add_saturated(rounds(bound=bound))
    name = "messages_per_second.differential"
    claim = next(claim for claim in CLAIMS if claim.figure == name)
    row = next(row for row in claim_rows(book) if row.name == claim.name)
    return row.verdict, row.remark


def test_a_claim_is_judged_by_valid_rounds_and_its_row_says_so() -> None:
    _, plain = verdict_of_throughput({})
    verdict, remark = verdict_of_throughput({"differential": [2], "full": [3]})
    assert verdict == Verdict.DOES_NOT_HOLD.value
    assert remark.removesuffix(plain).strip() == (
        "The generator was the limit in 2 of 3 rounds, which are left out."
    )
    verdict, remark = verdict_of_throughput({"differential": [1, 2], "full": [3]})
    assert verdict == Verdict.NO_VERDICT.value
    assert remark == "The generator was the limit in every round."


def test_routers_are_not_compared_by_rounds_of_the_generator() -> None:
    valid, bound = round_of("full", 1, load()), round_of("full", 1, load(generator_warnings=BUSY))
    rows = missed_rows({FORWARDING: [valid], AWAITING: [bound]})
    assert {(row.measured, row.verdict) for row in rows} == {(None, Verdict.NO_VERDICT.value)}


def test_a_capacity_that_the_generator_broke_is_none_of_the_service() -> None:
    def search(*, bound: bool) -> CapacitySearch:
        kept = CapacityProbe(channels=10, rate=1, p99_ms=1, skipped=0, keeps_objective=True)
        broken = CapacityProbe(
            channels=20, rate=1, p99_ms=99, skipped=5, keeps_objective=False, generator_bound=bound
        )
        return CapacitySearch(channels=10, probes=[kept, broken])

    book = FigureBook()
    book.add_capacity(
        {"full": [search(bound=False)] * 2, "cached": [search(bound=False), search(bound=True)]}
    )
    measured = book.get("channels_within_objective.cached")
    assert measured is not None
    assert (measured.rounds, measured.rounds_left_out) == (1, 1)
    book = FigureBook()
    book.add_capacity({"full": [search(bound=True)], "cached": [search(bound=False)]})
    assert book.is_invalid("channels_within_objective.cached")
    assert book.get("channels_within_objective.cached") is None


# --- Promises -------------------------------------------------------------------------------------


def overloaded(*courses: Course) -> OverloadResult:
    return OverloadResult(
        started_at="2026-01-01T00:00:00+00:00",
        settings={},
        environment=environment(),
        courses=list(courses),
    )


def test_a_service_that_refused_nothing_was_not_overloaded() -> None:
    result = overloaded(course(), course(transport="unary", refused=0))
    assert result.exit is Exit.NO_VERDICT
    assert result.notices == [
        "Over unary: not overloaded, not one operation was refused: no verdict"
    ]
    assert overloaded(course()).exit is Exit.RIGHT
    busy = overloaded(course(refused=0, generator_warnings=BUSY))
    assert busy.exit is Exit.INVALID
    assert len(busy.notices) == 2
    assert overloaded(course(kept=False), course(refused=0)).exit is Exit.WRONG


def test_promises_without_a_verdict_are_neither_kept_nor_broken_but_wrong_answers_stay() -> None:
    promises = withhold_verdicts(
        [
            Promise.at_most(1, "ratio", "Growth", 5),
            Promise.at_least(1, "ratio", "Throughput", 5),
            Promise.at_most(0, "operations", "Wrong answers", 0),
        ]
    )
    assert [promise.kept for promise in promises] == [None, None, None]
    assert verdict_on_all(promises) == "No verdict on 3 of 3 promises"
    (wrong,) = withhold_verdicts([Promise.at_most(0, "operations", "Wrong answers", 2)])
    assert wrong.is_broken


# --- Kills ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kills", "done", "faults", "code"),
    [
        (4, 100, {}, Exit.RIGHT),
        (0, 100, {}, Exit.NO_VERDICT),
        (4, 0, {}, Exit.NO_VERDICT),
        (0, 0, {"down": 1}, Exit.WRONG),
    ],
)
def test_a_crash_run_without_a_kill_or_an_operation_proves_nothing(
    kills: int, done: int, faults: dict[str, int], code: Exit
) -> None:
    figures = StrategyFigures(
        strategy="full",
        seconds=1,
        kills={"under load": kills},
        lives=1,
        ended_before_the_kill=0,
        lives_proved=1,
        kills_with_in_flight={},
        operations={"encrypt": {"done": done, "not done": 7, "unknown": 7}},
        messages=done,
        replays_refused=0,
        undecided_refused=0,
        redelivered=0,
        channels=1,
        closed=0,
        proved_at_the_end=1,
        service_work={},
        faults=faults,
        fault_records=[],
    )
    result = CrashResult(
        started_at="2026-01-01T00:00:00+00:00",
        settings={},
        environment=environment(),
        strategies=[figures],
    )
    assert result.exit is code
    assert ("No fault" in shown("crash", result)) == (code is Exit.RIGHT)
    assert any("nothing is proved" in text for text in result.notices) == (0 in (kills, done))


# --- Two results ----------------------------------------------------------------------------------


def test_identical_results_are_called_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for result in (make_run(), make_compare()):
        for name in ("a.json", "b.json"):
            (tmp_path / name).write_text(result.model_dump_json())
        assert main(["diff", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == Exit.RIGHT
        said = capsys.readouterr().out
        assert said == "* Nothing differs: the two results are the same\n\n"


def test_results_with_no_figure_in_common_have_no_verdict() -> None:
    before, after = make_compare(), make_compare()
    others = [each.model_copy(update={"name": f"new {each.name}"}) for each in after.variants]
    diff = diff_results(before, after.model_copy(update={"variants": others}), 0.1)
    assert diff.exit is Exit.NO_VERDICT
    assert diff.notices == ["Nothing can be compared, no figure is in both results: no verdict"]
    shown("diff", diff)


def test_rounds_that_the_generator_limited_are_not_compared() -> None:
    bound = make_run(load(generator_warnings=BUSY))
    for diff in (diff_results(bound, make_run(), 0.1), diff_results(make_run(), bound, 0.1)):
        assert diff.exit is Exit.INVALID
        assert diff.notices == ["Nothing can be compared, the generator was the limit: no verdict"]
        assert any("such rounds are left out" in note for note in diff.notes)
    before = compared(rounds(bound={"full": [3]}))
    (throughput,) = (
        change
        for change in diff_results(before, compared(rounds(bound={})), 0.1).changes
        if (change.variant, change.figure.name) == ("full", "messages_per_second")
    )
    assert (throughput.before.high, throughput.after.high) == (200, 300)


def test_a_result_that_was_cut_short_is_told() -> None:
    cut = make_run().model_copy(update={"cut_short": "ended by SIGINT"})
    assert "before, cut short: ended by SIGINT" in diff_results(cut, make_run(), 0.1).notes
