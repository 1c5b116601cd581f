"""No verdict where nothing was shown: a saturated generator, no overload, no kill."""

import io
from collections.abc import Mapping, Sequence

import pytest
from rich.console import Console

from connect_loadgen.crash.command import parts_of as parts_of_crash
from connect_loadgen.crash.results import StrategyFigures
from connect_loadgen.experiment.bounds import Bound, Verdict
from connect_loadgen.experiment.model import promise, withhold
from connect_loadgen.experiment.results import Result, Round, Side
from connect_loadgen.experiments.audit import claims, rows_of_claims
from connect_loadgen.experiments.compare import LOOK, parts_of
from connect_loadgen.experiments.run import LOOK as RUN
from connect_loadgen.probes.capacity import CHANNELS, Tried, search
from connect_loadgen.program.exits import Exit
from connect_loadgen.report.html import render
from connect_loadgen.report.page import page_of
from tests.support.results import (
    WHEN,
    course,
    environment,
    load,
    make_compare,
    make_overload,
    make_run,
    round_of,
    show_result,
    sides_of,
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


def compared(done: Mapping[str, Sequence[Round]]) -> Result[None]:
    return Result[None].model_validate({**dict(make_compare()), **parts_of(sides_of(done))})


def shown(name: str, result: object) -> str:
    show_result(name, result, Console(file=(text := io.StringIO()), width=200))
    return text.getvalue()


# --- A run ----------------------------------------------------------------------------------------


def test_a_saturated_generator_is_an_exit_code_and_stands_above_the_answer() -> None:
    result = make_run(load(generator_warnings=BUSY))
    assert result.exit is Exit.INVALID
    assert result.notices == ["INVALID: generator saturated: no verdict on the service"]
    assert shown("run", result).startswith("* INVALID")
    assert page_of(result, RUN).sections[0].anchor == "notices"


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
    result = compared(rounds(bound={"differential": [1], "full": [3]}))
    row = next(row for row in result.rows if row.name == "differential.messages_per_second")
    assert row.measured is not None
    assert (row.measured.low, row.measured.high) == (200, 300)
    # The only round in which both are valid.
    assert row.ratio is not None
    assert (row.ratio.low, row.ratio.high, row.rounds) == (1, 1, 1)
    assert "in 2 of 3 rounds, which are left out" in row.remark
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
    render(page_of(result, LOOK))


def test_a_comparison_of_nothing_has_no_answer_but_that() -> None:
    result = compared(rounds(bound={"full": [1, 2, 3]}))
    assert "differential, beside full: no verdict." in shown("compare", result)
    render(page_of(result, LOOK))


# --- The audit ------------------------------------------------------------------------------------


def verdict_of_throughput(bound: Mapping[str, Sequence[int]]) -> tuple[Verdict, str, str]:
    done = {f"saturated/{name}": turns for name, turns in rounds(bound=bound).items()}
    name = "throughput_differential"
    row = next(row for row in rows_of_claims(sides_of(done)) if row.name == name)
    remark = next(claim.remark for claim in claims() if claim.name == name)
    return row.verdict, row.remark, remark


def test_a_claim_is_judged_by_valid_rounds_and_its_row_says_so() -> None:
    verdict, remark, own = verdict_of_throughput({"differential": [2], "full": [3]})
    assert verdict is Verdict.DOES_NOT_HOLD
    left = "the generator was the limit in 2 of 3 rounds, which are left out"
    assert remark == (f"{own}; {left}" if own else left)
    verdict, remark, _ = verdict_of_throughput({"differential": [1, 2], "full": [3]})
    assert verdict is Verdict.NO_VERDICT
    assert remark == "the generator was the limit in every round"


def test_routers_are_not_compared_by_rounds_of_the_generator() -> None:
    valid, bound = round_of("full", 1, load()), round_of("full", 1, load(generator_warnings=BUSY))
    rows = rows_of_claims(sides_of({"routers/forwarding": [valid], "routers/awaiting": [bound]}))
    missed = [row for row in rows if row.name.startswith("router_")]
    assert {row.verdict for row in missed} == {Verdict.NO_VERDICT}


async def test_a_capacity_that_the_generator_broke_is_none_of_the_service() -> None:
    for is_bound in (True, False):

        async def probe(channels: int, *, is_bound: bool = is_bound) -> Tried:
            return Tried(channels, channels <= 10, generator_bound=is_bound)

        found = await search(probe, 10)
        assert found.figures[CHANNELS] == 10
        assert found.generator_bound is is_bound


# --- Promises -------------------------------------------------------------------------------------


def test_a_service_that_refused_nothing_was_not_overloaded() -> None:
    result = make_overload(course(), course(transport="unary", refused=0))
    assert result.exit is Exit.NO_VERDICT
    assert result.notices == [
        "Over unary: not overloaded, not one operation was refused: no verdict"
    ]
    assert make_overload(course()).exit is Exit.RIGHT
    busy = make_overload(course(refused=0, generator_warnings=BUSY))
    assert busy.exit is Exit.INVALID
    assert len(busy.notices) == 2
    assert make_overload(course(wrong=1), course(refused=0)).exit is Exit.WRONG


def test_bounds_without_a_verdict_neither_hold_nor_break_but_wrong_answers_stay() -> None:
    rows = withhold(
        [
            promise("a", "Growth", "", 5, Bound.at_most(1)),
            promise("b", "Throughput", "", 5, Bound.at_least(1)),
            promise("c", "Wrong answers", "operations", 0, Bound.at_most(0)),
            promise("d", "Wrong answers", "operations", 2, Bound.at_most(0)),
        ]
    )
    assert [row.verdict for row in rows] == [Verdict.NO_VERDICT] * 3 + [Verdict.DOES_NOT_HOLD]
    assert [row.is_broken for row in rows] == [False, False, False, True]


def test_a_promise_whose_figure_is_not_known_is_broken() -> None:
    assert promise("a", "Growth", "", None, Bound.at_most(1)).is_broken


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
    result = Result[list[StrategyFigures]](
        command="crash",
        started_at=WHEN,
        seconds=1,
        settings={},
        environment=environment(),
        detail=[figures],
        **parts_of_crash([figures]),
    )
    assert result.exit is code
    assert ("No fault" in shown("crash", result)) == (code is Exit.RIGHT)
    assert any("nothing is proved" in text for text in result.notices) == (0 in (kills, done))


def test_a_side_keeps_apart_what_the_generator_limited() -> None:
    turns = rounds(bound={"full": [2]})["full"]
    assert Side(name="full", rounds=turns).valid == [turns[0], turns[2]]
