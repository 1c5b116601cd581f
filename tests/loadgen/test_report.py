"""What a command shows and writes: the result's own figures, on a terminal and as files."""

import asyncio
import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from connect_loadgen import cli, commands
from connect_loadgen.experiment.bounds import Bound, Verdict
from connect_loadgen.experiment.model import promise
from connect_loadgen.experiment.results import Result
from connect_loadgen.experiments.compare import HEADLINES, CompareSettings, pivot
from connect_loadgen.program.exits import Exit
from connect_loadgen.program.files import ReportError, require_writable
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.report.page import condensed, csv_of, junit_of
from connect_loadgen.report.tables import rows_table
from connect_loadgen.report.terminal import show
from connect_loadgen.settings.load import RunSettings, load_settings
from tests.support.results import (
    cost,
    course,
    load,
    make_compare,
    make_overload,
    make_run,
    round_of,
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


LEAST = Bound.at_least(1e9)


def compare_text(result: Result[None], tmp_path: Path, width: int) -> str:
    target = console(width)
    write_result("compare", result, compare_settings(tmp_path))
    show_result("compare", result, target)
    return text_of(target)


def test_a_ratio_is_the_variant_divided_by_full_and_not_the_reverse() -> None:
    table = pivot("t", make_compare().rows, HEADLINES)
    assert [column.title for column in table.columns] == [
        *("Figure", "Unit", "full", "cached", "differential", "memory")
    ]
    throughput, record = table.rows[0], table.rows[HEADLINES.index("record_bytes_per_message")]
    assert throughput[2].text == "1,100"
    assert throughput[4].text == "2.10 [2.00, 2.20]"
    assert record[4].text == "0.0050 [0.0050, 0.0050]"


def test_a_missing_figure_is_a_dash_with_a_reason_and_never_zero(tmp_path: Path) -> None:
    table = pivot("t", make_compare().rows, HEADLINES)
    cell = table.rows[HEADLINES.index("disk_write_bytes_per_message")][-1]
    assert (cell.text, cell.sort_by) == ("-", None)
    assert "memory has no disk_write_bytes_per_message" in cell.reason
    assert cell.reason in compare_text(make_compare(), tmp_path, 200)


@pytest.mark.parametrize("width", WIDTHS)
def test_no_figure_is_cut_at_any_width(tmp_path: Path, width: int) -> None:
    result = make_compare()
    shown = compare_text(result, tmp_path, width)
    table = pivot("t", result.rows, HEADLINES)
    for row in table.rows:
        for cell in row:
            assert cell.text in shown
    for column in table.columns:
        assert column.title in shown
    frames = [line for line in shown.splitlines() if not line.startswith("written")]
    assert max(map(len, frames)) <= width
    assert "…" not in shown


def test_a_verdict_stands_in_the_line_of_its_figure_at_80_columns() -> None:
    target = console(80)
    show_result("overload", make_overload(course(), course(transport="unary")), target)
    shown = text_of(target).splitlines()
    row = promise("x", "A promise of many words that have to wrap", "operations", 12345678, LEAST)
    verdict = next(line for line in shown if "Peak memory" in line)
    assert " 1 " in verdict
    assert "<= 1.50" in verdict
    assert "holds" in verdict
    table = rows_table("t", [row.model_copy(update={"remark": "long " * 40})], detailed=False)
    show(target, table)
    line = next(line for line in text_of(target).splitlines() if "12,345,678" in line)
    assert "does not hold" in line


def test_a_pipe_gets_no_control_codes(tmp_path: Path) -> None:
    shown = compare_text(make_compare(warnings=["careful [bold]"]), tmp_path, 80)
    assert "\x1b" not in shown
    assert "careful [bold]" in shown


def test_a_terminal_marks_what_is_worse_by_more_than_colour(tmp_path: Path) -> None:
    assert "! 1.50 [1.50, 1.50]" in compare_text(make_compare(), tmp_path, 100)


def test_the_answer_follows_the_figures_whichever_way_they_point() -> None:
    cached, differential, ceiling = make_compare().answer
    assert "2.10 times the throughput" in differential
    assert "1/200 of the record bytes" in differential
    assert "but for the worse 50% more recovery time" in differential
    assert cached == "cached, beside full: no difference that every round shows."
    assert "full 25%" in ceiling
    slower = make_compare(
        throughput={
            "full": (1000.0, 1000.0),
            "cached": (1000.0, 1000.0),
            "differential": (500.0, 600.0),
            "memory": (2000.0, 2000.0),
        }
    )
    assert "for the worse 45% less throughput" in slower.answer[1]


def test_only_what_every_round_shows_is_worse() -> None:
    rows = make_compare().rows
    assert [row.name for row in rows if row.verdict is Verdict.WORSE] == [
        "differential.restore_seconds",
        "differential.restored_channels_per_second",
    ]


def test_every_command_writes_the_same_kinds_of_files(tmp_path: Path) -> None:
    result = make_compare()
    compare_text(result, tmp_path / "new", 100)
    written = (tmp_path / "new" / "compare.json").read_text()
    assert Result[None].model_validate_json(written) == result
    assert written.startswith("{\n  ")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        f"compare.{kind}" for kind in ("csv", "html", "json", "md", "svg", "xml")
    ]


def test_csv_and_junit_say_what_the_rows_say() -> None:
    result = make_overload(course(), course(wrong=3, transport="unary"))
    lines = list(csv.DictReader(io.StringIO(csv_of(result))))
    assert [line["name"] for line in lines] == [row.name for row in result.rows]
    wrong = next(line for line in lines if line["name"] == "unary.wrong")
    assert (wrong["measured_median"], wrong["verdict"]) == ("3.0", "does not hold")
    suite = ET.fromstring(junit_of(result))  # noqa: S314 - our own text
    assert suite.attrib["failures"] == "1"
    assert [case.attrib["name"] for case in suite if case.find("failure") is not None] == [
        "unary.wrong"
    ]


def test_alike_warnings_are_one_line_and_many_are_few() -> None:
    alike = [f"full, round {number}: the generator used {number}0% of a core" for number in (1, 2)]
    assert condensed(alike) == [f"{alike[0]} (and 1 more alike)"]
    assert len(condensed([f"a: {letter * 3}" for letter in "abcdefgh"])) == 6


def test_a_run_writes_only_the_files_that_were_asked_for(tmp_path: Path) -> None:
    result = make_run()
    write_result("run", result, run_settings())
    assert list(tmp_path.iterdir()) == []
    write_result(
        "run",
        result,
        run_settings(f"--output={tmp_path}"),
    )
    assert Result[None].model_validate_json((tmp_path / "run.json").read_text()) == result
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
    rows = make_run(cost_=cost().model_copy(update={"messages": 0})).rows
    record = next(row for row in rows if row.name == "record_bytes_per_message")
    assert (record.measured, record.remark) == (None, "run has no record_bytes_per_message")


@pytest.mark.parametrize(
    ("result", "right"),
    [
        (make_run(), True),
        (make_run(load(wrong=1)), False),
        (make_run(load(errors={"INTERNAL": 1})), False),
    ],
)
def test_a_run_is_right_only_without_wrong_answers_and_errors(
    result: Result[None], *, right: bool
) -> None:
    assert (result.exit is Exit.RIGHT) is right


def test_a_comparison_is_right_only_if_every_round_and_recovery_is() -> None:
    assert make_compare().exit is Exit.RIGHT
    assert make_compare(wrong=1).exit is Exit.WRONG
    turn = round_of("full", 1, load())
    assert turn.recovery is not None
    assert turn.is_right
    lost = turn.recovery.model_copy(update={"verified_channels": 19})
    assert not turn.model_copy(update={"recovery": lost}).is_right


@pytest.mark.parametrize(("wrong", "code"), [(0, Exit.RIGHT), (1, Exit.WRONG)])
def test_a_wrong_answer_makes_the_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: int, code: int
) -> None:
    async def compared(settings: CompareSettings, progress: CommandProgress) -> Result[None]:
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
    async def compared(*_: object) -> Result[None]:
        (tmp_path / "compare.json").mkdir()
        await asyncio.sleep(0)
        return make_compare()

    command = replace(commands.COMMANDS["compare"], execute=compared)
    monkeypatch.setitem(commands.COMMANDS, "compare", command)
    assert cli.main(["compare", "--output", str(tmp_path)]) == Exit.UNWRITTEN
    said = capsys.readouterr()
    assert "1,100" in said.out
    assert f"written: {tmp_path / 'compare.html'}" in said.out
    assert f"{tmp_path / 'compare.json'} can't be written" in said.err
    assert (tmp_path / "compare.json").is_dir()


def test_the_json_says_null_for_what_is_not_known(tmp_path: Path) -> None:
    compare_text(make_compare(), tmp_path, 100)
    sides = json.loads((tmp_path / "compare.json").read_text())["sides"]
    assert sides["memory"]["rounds"][0]["figures"]["restore_seconds"] is None
