"""The commands: of each its settings, its work, and what it shows."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from connect_loadgen.bench.command import execute_bench, select
from connect_loadgen.bench.report import bench_blocks, bench_page
from connect_loadgen.bench.settings import BenchSettings
from connect_loadgen.crash.command import LOOK as CRASH
from connect_loadgen.crash.command import run_crash
from connect_loadgen.crash.settings import CrashSettings
from connect_loadgen.experiment.results import Result
from connect_loadgen.experiments import audit, compare, diff, overload, reach, run, soak
from connect_loadgen.plan import plan_of_compare, plan_of_run
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.report.html import render
from connect_loadgen.report.markdown import render_markdown
from connect_loadgen.report.page import Look, csv_of, junit_of, page_of, terminal_blocks
from connect_loadgen.report.picture import picture_of
from connect_loadgen.runner import Command
from connect_loadgen.settings.load import CommandSettings, DiffSettings, RunSettings, load_settings

__all__ = ["COMMANDS", "completion"]

_Settings = TypeVar("_Settings", bound=CommandSettings)


def _json(result: Any) -> str:  # noqa: ANN401 - of any command
    return str(result.model_dump_json(indent=2))


def _command(
    settings: type[_Settings],
    work: Callable[[_Settings, CommandProgress], Coroutine[Any, Any, Result[Any]]],
    look: Look,
    preview: Callable[[_Settings], Sequence[str] | None] = lambda _: None,
) -> Command[_Settings, Result[Any]]:
    """Return a command; all of them write the same files, the figures first."""
    kinds: Mapping[str, Callable[[Result[Any]], str]] = {
        "json": _json,
        "csv": csv_of,
        "xml": junit_of,
        "md": lambda result: render_markdown(page_of(result, look)),
        "svg": lambda result: picture_of(page_of(result, look)),
        "html": lambda result: render(page_of(result, look)),
    }
    return Command(
        partial(load_settings, settings),
        work,
        lambda result: terminal_blocks(result, look),
        lambda told: (
            {}
            if told.directory is None
            else {told.directory / f"{told.command}.{kind}": made for kind, made in kinds.items()}
        ),
        preview,
    )


def _plan_of_run(settings: RunSettings) -> Sequence[str] | None:
    return plan_of_run(settings) if settings.dry_run else None


def _plan_of_compare(settings: compare.CompareSettings) -> Sequence[str] | None:
    return plan_of_compare(settings) if settings.dry_run else None


def _benchmarks(settings: BenchSettings) -> Sequence[str] | None:
    return [benchmark.name for benchmark in select(settings)] if settings.list else None


def _rows(settings: reach.ReachSettings) -> Sequence[str] | None:
    return [row.name for row in reach.rows_chosen(settings)] if settings.list else None


COMMANDS: Mapping[str, Command[Any, Any]] = {
    "run": _command(RunSettings, run.run_load, run.LOOK, _plan_of_run),
    "compare": _command(
        compare.CompareSettings, compare.run_compare, compare.LOOK, _plan_of_compare
    ),
    "diff": _command(DiffSettings, diff.run_diff, diff.LOOK),
    "audit": _command(audit.AuditSettings, audit.run_audit, audit.LOOK),
    "reach": _command(reach.ReachSettings, reach.run_reach, reach.LOOK, _rows),
    "overload": _command(overload.OverloadSettings, overload.run_overload, overload.LOOK),
    "soak": _command(soak.SoakSettings, soak.run_soak, soak.LOOK),
    "crash": _command(CrashSettings, run_crash, CRASH),
    "bench": Command(
        partial(load_settings, BenchSettings),
        execute_bench,
        bench_blocks,
        lambda told: {
            told.directory / "bench.json": _json,
            told.directory / "bench.html": lambda result: render(bench_page(result)),
        },
        _benchmarks,
    ),
}

_SETTINGS: Mapping[str, type[CommandSettings]] = {
    each.command: each
    for each in (
        *(RunSettings, compare.CompareSettings, DiffSettings, audit.AuditSettings),
        *(reach.ReachSettings, overload.OverloadSettings, soak.SoakSettings, CrashSettings),
        BenchSettings,
    )
}

_COMPLETION = """\
type compdef >/dev/null 2>&1 && autoload -U +X bashcompinit && bashcompinit
_loadgen() {{
  local words="{commands}"
  if ((COMP_CWORD > 1)); then case ${{COMP_WORDS[1]}} in
{cases}
  esac; fi
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _loadgen loadgen
"""


def completion() -> str:
    """Return a script for bash and zsh that completes commands and flags."""
    flags = {
        name: " ".join(f"--{field.replace('_', '-')}" for field in settings.model_fields)
        for name, settings in _SETTINGS.items()
    }
    return _COMPLETION.format(
        commands=" ".join(flags),
        cases="\n".join(f'    {name}) words="{words}" ;;' for name, words in flags.items()),
    )
