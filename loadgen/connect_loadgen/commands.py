"""The commands: of each its settings, its work, its files, and what it shows."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from connect_loadgen.audit.command import execute_audit
from connect_loadgen.audit.report import audit_blocks, audit_page
from connect_loadgen.audit.settings import AuditSettings
from connect_loadgen.bench.command import execute_bench, select
from connect_loadgen.bench.report import bench_blocks, bench_page
from connect_loadgen.bench.settings import BenchSettings
from connect_loadgen.compare import execute_compare
from connect_loadgen.crash.command import execute_crash
from connect_loadgen.crash.report import crash_blocks
from connect_loadgen.crash.settings import CrashSettings
from connect_loadgen.experiment.difference import execute_diff
from connect_loadgen.experiment.results import Result, RunResult
from connect_loadgen.overload.command import execute_overload
from connect_loadgen.overload.report import overload_blocks, overload_page
from connect_loadgen.overload.settings import OverloadSettings
from connect_loadgen.plan import plan_of_compare, plan_of_run
from connect_loadgen.reach.command import execute_reach, rows_chosen
from connect_loadgen.reach.report import reach_blocks, reach_page
from connect_loadgen.reach.results import ReachResult
from connect_loadgen.reach.settings import ReachSettings
from connect_loadgen.report.blocks import Page
from connect_loadgen.report.compare_page import compare_page
from connect_loadgen.report.diff_tables import diff_blocks
from connect_loadgen.report.markdown import render_markdown
from connect_loadgen.report.run_blocks import compare_blocks, run_blocks
from connect_loadgen.report.run_page import run_page
from connect_loadgen.run import execute_run
from connect_loadgen.runner import Command, Render, html, with_notices
from connect_loadgen.settings.load import (
    CompareSettings,
    ConfigurationError,
    DiffSettings,
    RunSettings,
    load_settings,
)
from connect_loadgen.soak.command import execute_soak
from connect_loadgen.soak.picture import picture
from connect_loadgen.soak.report import soak_blocks, soak_page
from connect_loadgen.soak.settings import SoakSettings

__all__ = ["COMMANDS"]

_Result = TypeVar("_Result", bound=Result)


class _HasOutput(Protocol):
    @property
    def output(self) -> Path:
        """Directory of the files."""


def _json(result: Result) -> str:
    return result.model_dump_json(indent=2)


def _in_directory(
    name: str,
    page_of: Callable[[_Result], Page] | None = None,
    **others: Render[_Result],
) -> Callable[[_HasOutput], Mapping[Path, Render[_Result]]]:
    """Return where ``NAME.json``, ``NAME.html`` and others go, and what makes them."""
    renders: dict[str, Render[_Result]] = {"json": _json}
    if page_of is not None:
        renders["html"] = html(page_of)
    renders |= others
    return lambda settings: {
        settings.output / f"{name}.{kind}": render for kind, render in renders.items()
    }


def _files_of_run(settings: RunSettings) -> Mapping[Path, Render[RunResult]]:
    files: dict[Path, Render[RunResult]] = {}
    if settings.output is not None:
        files[settings.output] = _json
    if settings.report is not None:
        if settings.report in files:
            raise ConfigurationError(f"--output and --report are both {settings.report}")
        files[settings.report] = html(run_page)
    return files


def _markdown(result: ReachResult) -> str:
    return render_markdown(with_notices(reach_page(result), result))


def _plan_of_run(settings: RunSettings) -> Sequence[str] | None:
    return plan_of_run(settings) if settings.dry_run else None


def _plan_of_compare(settings: CompareSettings) -> Sequence[str] | None:
    return plan_of_compare(settings) if settings.dry_run else None


def _benchmarks(settings: BenchSettings) -> Sequence[str] | None:
    return [benchmark.name for benchmark in select(settings)] if settings.list else None


def _rows(settings: ReachSettings) -> Sequence[str] | None:
    return [row.name for row in rows_chosen(settings)] if settings.list else None


COMMANDS: Mapping[str, Command[Any, Any]] = {
    "run": Command(
        partial(load_settings, RunSettings),
        execute_run,
        run_blocks,
        _files_of_run,
        preview=_plan_of_run,
        # Where the metrics are is told in a pipe, too: the system may have chosen the port.
        lines_in_pipe=lambda settings: settings.serve_metrics is not None,
    ),
    "compare": Command(
        partial(load_settings, CompareSettings),
        execute_compare,
        compare_blocks,
        _in_directory("compare", compare_page),
        preview=_plan_of_compare,
    ),
    "diff": Command(partial(load_settings, DiffSettings), execute_diff, diff_blocks),
    "audit": Command(
        partial(load_settings, AuditSettings),
        execute_audit,
        audit_blocks,
        _in_directory("audit", audit_page),
    ),
    "bench": Command(
        partial(load_settings, BenchSettings),
        execute_bench,
        bench_blocks,
        _in_directory("bench", bench_page),
        preview=_benchmarks,
        lines_in_pipe=lambda _: False,
    ),
    "crash": Command(
        partial(load_settings, CrashSettings), execute_crash, crash_blocks, _in_directory("crash")
    ),
    "overload": Command(
        partial(load_settings, OverloadSettings),
        execute_overload,
        overload_blocks,
        _in_directory("overload", overload_page),
    ),
    "soak": Command(
        partial(load_settings, SoakSettings),
        execute_soak,
        soak_blocks,
        _in_directory("soak", soak_page, png=picture),
    ),
    "reach": Command(
        partial(load_settings, ReachSettings),
        execute_reach,
        reach_blocks,
        _in_directory("reach", reach_page, md=_markdown),
        preview=_rows,
    ),
}
