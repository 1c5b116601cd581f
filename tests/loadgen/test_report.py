"""What a command shows and writes: the result's own figures, on a terminal and as files."""

import asyncio
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from connect_loadgen import cli, commands
from connect_loadgen.experiment.numbers import figure, ratio
from connect_loadgen.experiment.results import CompareResult, Ratio, RunResult
from connect_loadgen.program.exits import Exit
from connect_loadgen.program.files import ReportError, require_writable
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.report.compare_tables import HEADLINES, ratio_table, variant_table
from connect_loadgen.report.findings import FIGURE, Verdict, answer, verdict_on, what_got_worse
from connect_loadgen.settings.load import CompareSettings, RunSettings, load_settings
from tests.support.results import (
    cost,
    load,
    make_compare,
    make_run,
    show_result,
    write_result,
)

WIDTHS = (60, 80, 100, 160)


def console(width: int = 100) -> Console:
    return Console(file=io.StringIO(), width=width)


def compare_settings(output: Path) -> CompareSettings:
    return load_settings(CompareSettings, [f"--output={output}"], {})


def run_settings(*flags: str) -> RunSettings:
    return load_settings(RunSettings, flags, {})


def text_of(target: Console) -> str:
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


def compare_text(result: CompareResult, tmp_path: Path, width: int) -> str:
    target = console(width)
    write_result("compare", result, compare_settings(tmp_path))
    show_result("compare", result, target)
    return text_of(target)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.012345, "0.0123"),
        (1.005, "1.00"),
        (9.996, "10.0"),
        (99.95, "100"),
        (123.4, "123"),
        (12345.6, "12,346"),
    ],
)
def test_a_figure_keeps_three_digits_and_all_before_the_point(value: float, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.00"), (0.0027397, "0.0027"), (0.1, "0.10"), (0.924, "0.92"), (12.345, "12.35")],
)
def test_a_ratio_keeps_two_places_or_two_digits(value: float, text: str) -> None:
    assert ratio(value) == text


def test_each_cell_of_the_variant_table_is_the_figure_of_the_result() -> None:
    result = make_compare()
    table = variant_table(result)
    assert [row[0].text for row in table.rows] == [variant.name for variant in result.variants]
    for row, variant in zip(table.rows, result.variants, strict=True):
        for cell, name in zip(row[1:], HEADLINES, strict=True):
            spread = variant.summary.figures[name]
            assert cell.sort_by == (None if spread is None else spread.median)
    assert table.rows[2][1].text == "2,420"
    assert table.rows[2][6].text == "12.0"


def test_a_ratio_is_the_variant_divided_by_full_and_not_the_reverse() -> None:
    table = ratio_table(make_compare())
    assert [column.title for column in table.columns] == [
        "Figure",
        "cached",
        "differential",
        "memory",
    ]
    throughput, record = table.rows[0], table.rows[HEADLINES.index("record_bytes_per_message")]
    assert throughput[2].text == "2.10 [2.00, 2.20]"
    assert record[2].text == "0.0050 [0.0050, 0.0050]"


def test_a_missing_figure_is_a_dash_with_a_reason_and_never_zero(tmp_path: Path) -> None:
    table = variant_table(make_compare())
    memory = table.rows[3]
    cell = memory[1 + HEADLINES.index("disk_write_bytes_per_message")]
    assert (cell.text, cell.sort_by) == ("-", None)
    assert cell.reason == "memory: nothing is kept on disk"
    assert cell.reason in compare_text(make_compare(), tmp_path, 100)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_figure_is_cut_at_any_width(tmp_path: Path, width: int) -> None:
    result = make_compare()
    shown = compare_text(result, tmp_path, width)
    for table in (variant_table(result), ratio_table(result)):
        for row in table.rows:
            for cell in row:
                assert cell.text in shown
        for column in table.columns:
            assert column.title in shown
    frames = [line for line in shown.splitlines() if not line.startswith("written")]
    assert max(map(len, frames)) <= width
    assert "…" not in shown


def test_a_pipe_gets_no_control_codes(tmp_path: Path) -> None:
    shown = compare_text(make_compare(warnings=["careful [bold]"]), tmp_path, 80)
    assert "\x1b" not in shown
    assert "careful [bold]" in shown


def test_a_terminal_marks_what_is_worse_by_more_than_colour(tmp_path: Path) -> None:
    assert "! 1.50 [1.50, 1.50]" in compare_text(make_compare(), tmp_path, 100)


@pytest.mark.parametrize(
    ("name", "low", "median", "high", "verdict"),
    [
        ("messages_per_second", 1.1, 1.2, 1.3, Verdict.BETTER),
        ("messages_per_second", 0.7, 0.8, 0.9, Verdict.WORSE),
        ("p99_ms", 1.1, 1.2, 1.3, Verdict.WORSE),
        ("p99_ms", 0.7, 0.8, 0.9, Verdict.BETTER),
        ("p99_ms", 0.9, 1.2, 1.3, Verdict.OPEN),
        ("p99_ms", 1.0, 1.2, 1.3, Verdict.OPEN),
        ("p99_ms", 1.01, 1.02, 1.05, Verdict.OPEN),
        ("commits", 1.1, 1.2, 1.3, None),
    ],
)
def test_a_difference_stands_only_if_material_and_shown_by_every_round(
    name: str, low: float, median: float, high: float, verdict: Verdict | None
) -> None:
    assert verdict_on(FIGURE[name], Ratio(low=low, median=median, high=high)) is verdict


def test_the_answer_follows_the_figures_whichever_way_they_point() -> None:
    cached, differential, ceiling = answer(make_compare())
    assert "2.10 times the throughput (2,420 against 1,100 messages/s)" in differential
    assert "1/200 of the record bytes per message (12.0 against 2,400 B/message)" in differential
    assert "for the worse 50% more recovery time" in differential
    assert "no steady difference" in cached
    assert "throughput" in cached
    assert "full 25% (25% to 25%)" in ceiling
    slower = make_compare(
        throughput={
            "full": (1000.0, 1000.0),
            "cached": (1000.0, 1000.0),
            "differential": (500.0, 600.0),
            "memory": (2000.0, 2000.0),
        }
    )
    assert "for the worse 45% less throughput" in answer(slower)[1]


def test_what_got_worse_names_only_what_is_worse_in_every_round() -> None:
    assert what_got_worse(make_compare()) == [
        "differential: Recovery 1.50 [1.50, 1.50] times that of full (0.750 against 0.500 s)"
    ]


def test_the_files_of_a_comparison_hold_the_result(tmp_path: Path) -> None:
    result = make_compare()
    compare_text(result, tmp_path / "new", 100)
    written = (tmp_path / "new" / "compare.json").read_text()
    assert CompareResult.model_validate_json(written) == result
    assert written.startswith("{\n  ")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "compare.html",
        "compare.json",
    ]


def test_a_run_writes_only_the_files_that_were_asked_for(tmp_path: Path) -> None:
    result = make_run()
    write_result("run", result, run_settings())
    assert list(tmp_path.iterdir()) == []
    write_result(
        "run",
        result,
        run_settings(f"--output={tmp_path}/run.json", f"--report={tmp_path}/run.html"),
    )
    assert RunResult.model_validate_json((tmp_path / "run.json").read_text()) == result
    assert (tmp_path / "run.html").read_text().startswith("<!DOCTYPE html>")


def test_an_open_loop_shows_due_and_sent_side_by_side() -> None:
    target = console()
    show_result("run", make_run(load(rate=500)), target)
    rows = [line.split() for line in text_of(target).splitlines() if line.startswith("encrypt")]
    assert [row[1] for row in rows] == ["due", "sent"]
    assert [row[4] for row in rows] == ["502", "2.00"]


def test_a_closed_loop_has_no_row_from_the_due_time() -> None:
    target = console()
    show_result("run", make_run(), target)
    rows = [line.split() for line in text_of(target).splitlines() if line.startswith("encrypt")]
    assert [row[1] for row in rows] == ["sent"]


def test_a_run_without_metrics_says_so_instead_of_showing_costs() -> None:
    target = console()
    show_result("run", make_run(), target)
    assert "The service's metrics were not read" in text_of(target)
    assert "B/message" not in text_of(target)


def test_a_run_that_got_no_message_through_has_no_cost_of_a_message() -> None:
    target = console()
    show_result("run", make_run(cost_=cost().model_copy(update={"messages": 0})), target)
    assert "-  Record: no message got through" in text_of(target)


@pytest.mark.parametrize(
    ("result", "right"),
    [
        (make_run(), True),
        (make_run(load(wrong=1)), False),
        (make_run(load(errors={"INTERNAL": 1})), False),
    ],
)
def test_a_run_is_right_only_without_wrong_answers_and_errors(
    result: RunResult, *, right: bool
) -> None:
    assert (result.exit is Exit.RIGHT) is right


def test_a_comparison_is_right_only_if_every_round_and_recovery_is() -> None:
    assert make_compare().exit is Exit.RIGHT
    assert make_compare(wrong=1).exit is Exit.WRONG
    lost = make_compare().model_dump()
    lost["variants"][1]["rounds"][2]["recovery"]["verified_channels"] -= 1
    assert CompareResult.model_validate(lost).exit is Exit.WRONG


@pytest.mark.parametrize(("wrong", "code"), [(0, Exit.RIGHT), (1, Exit.WRONG)])
def test_a_wrong_answer_makes_the_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: int, code: int
) -> None:
    async def compared(settings: CompareSettings, progress: CommandProgress) -> CompareResult:
        del settings, progress
        await asyncio.sleep(0)
        return make_compare(wrong=wrong)

    command = replace(commands.COMMANDS["compare"], execute=compared)
    monkeypatch.setitem(commands.COMMANDS, "compare", command)
    assert cli.main(["compare", "--output", str(tmp_path)]) == code


def test_an_output_that_cannot_be_written_is_told_before_the_load(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    code = cli.main(["compare", "--output", str(tmp_path / "file")])
    assert code == Exit.CONFIGURATION
    assert "compare.json can't be written" in capsys.readouterr().err
    with pytest.raises(ReportError, match="is a directory"):
        require_writable(tmp_path)


def test_what_fails_to_be_written_leaves_the_old_file_and_is_shown_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async def compared(*_: object) -> CompareResult:
        (tmp_path / "compare.json").mkdir()
        await asyncio.sleep(0)
        return make_compare()

    command = replace(commands.COMMANDS["compare"], execute=compared)
    monkeypatch.setitem(commands.COMMANDS, "compare", command)
    assert cli.main(["compare", "--output", str(tmp_path)]) == Exit.UNWRITTEN
    said = capsys.readouterr()
    assert "2,420" in said.out
    assert f"written: {tmp_path / 'compare.html'}" in said.out
    assert f"{tmp_path / 'compare.json'} can't be written" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compare.html", "compare.json"]


def test_the_json_says_null_for_what_could_not_be_had(tmp_path: Path) -> None:
    compare_text(make_compare(), tmp_path, 100)
    memory = json.loads((tmp_path / "compare.json").read_text())["variants"][3]
    assert memory["summary"]["figures"]["restore_seconds"] is None
