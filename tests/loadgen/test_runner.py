"""What every command does alike: files first, then the show; one exit code for each end."""

import asyncio
import io
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvloop
from rich.console import Console

from connect_loadgen.cli import COMMAND_HELP
from connect_loadgen.commands import COMMANDS
from connect_loadgen.program.exits import Exit
from connect_loadgen.program.files import ReportError, require_writable, write_whole
from connect_loadgen.program.progress import CommandProgress
from connect_loadgen.runner import Command, Render, run_command
from tests.support.process import PATIENCE
from tests.support.results import read

ROOT = Path(__file__).parents[2]
SMALL = (
    "run",
    "--channels=5",
    "--concurrency=64",
    "--frame-operations=16",
    "--warm-up-seconds=0",
    "--duration-seconds=0.3",
)


def loadgen(
    *arguments: str,
    redirection: str = "",
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
) -> "subprocess.CompletedProcess[str]":
    """Run the command as a shell does with such a redirection."""
    command = (sys.executable, "-m", "connect_loadgen.cli", *arguments)
    return subprocess.run(  # noqa: S603 - our own command
        ["/bin/sh", "-c", f'exec "$@" {redirection}', "sh", *command],
        text=True,
        timeout=PATIENCE * 2,
        check=False,
        stdout=stdout,
        stderr=stderr,
    )


@pytest.fixture
def broken_pipe() -> int:
    """A pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing


# --- Whatever becomes of what is shown ------------------------------------------------------------


@pytest.mark.parametrize(
    ("redirection", "code"),
    [
        (">/dev/full", Exit.UNSHOWN),
        (">&-", Exit.RIGHT),
        ("2>/dev/full", Exit.RIGHT),
        ("2>&-", Exit.RIGHT),
        ("<&- >/dev/null", Exit.RIGHT),
        ("<&- >&- 2>&-", Exit.RIGHT),
    ],
)
def test_a_result_is_written_whatever_becomes_of_the_standard_streams(
    tmp_path: Path, redirection: str, code: Exit
) -> None:
    page = tmp_path / "run.html"
    done = loadgen(*SMALL, f"--output={tmp_path}", redirection=redirection)
    result = read(tmp_path / "run.json")
    assert page.read_text().endswith("</html>\n")
    assert done.returncode == (code if result.exit is Exit.RIGHT else result.exit)
    assert "Traceback" not in done.stderr
    if code is Exit.UNSHOWN and "2>" not in redirection:
        assert "the output can't be written" in done.stderr


def test_a_reader_that_has_enough_changes_nothing(tmp_path: Path, broken_pipe: int) -> None:
    done = loadgen(*SMALL, f"--output={tmp_path}", stdout=broken_pipe)
    assert done.returncode == read(tmp_path / "run.json").exit
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("run", "--help"),
        ("run", "--dry-run"),
        ("compare", "--dry-run"),
        ("bench", "--list"),
        ("reach", "--list"),
    ],
    ids=" ".join,
)
def test_a_text_that_is_not_read_to_its_end_is_no_failure(
    arguments: tuple[str, ...], broken_pipe: int
) -> None:
    done = loadgen(*arguments, stdout=broken_pipe)
    assert (done.returncode, done.stderr) == (Exit.RIGHT, "")
    os.close(broken_pipe)


def test_progress_that_nobody_reads_does_not_end_a_command(
    tmp_path: Path, broken_pipe: int
) -> None:
    # Lines of progress and the result go into the same pipe, as with "2>&1 | head".
    done = loadgen(
        *("reach", "--only=idle-memory", "--rounds=1", "--idle-channels=100"),
        f"--output={tmp_path}",
        stdout=broken_pipe,
        stderr=broken_pipe,
    )
    assert done.returncode == Exit.RIGHT
    assert (tmp_path / "reach.html").exists()
    os.close(broken_pipe)


# --- One way for all ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What a made-up command found."""

    exit: Exit = Exit.RIGHT


def command_of(
    found: Found | Exception, files: Mapping[Path, Render[Found]], shown: Sequence[str] = ("shown",)
) -> Command[None, Found]:
    async def execute(_: None, progress: CommandProgress) -> Found:
        progress.step("working")
        await asyncio.sleep(0)
        if isinstance(found, Exception):
            raise found
        return found

    return Command(lambda _: None, execute, lambda _: shown, lambda _: files)


def test_files_are_written_before_anything_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "new" / "a.json", tmp_path / "b.html"

    def render_second(_: Found) -> str:
        assert first.read_text() == "first\n"
        assert capsys.readouterr().out == ""
        return "second"

    files = {first: lambda _: "first", second: render_second}
    found = Found(Exit.NO_VERDICT)
    assert run_command("test", command_of(found, files), []) is Exit.NO_VERDICT
    assert second.read_text() == "second\n"
    assert capsys.readouterr().out.splitlines() == [
        "shown",
        f"written: {first}",
        f"written: {second}",
    ]


def test_a_page_that_can_not_be_drawn_takes_no_figures_away(tmp_path: Path) -> None:
    def fail(_: Found) -> str:
        raise ZeroDivisionError

    files = {tmp_path / "a.json": lambda _: "figures", tmp_path / "a.html": fail}
    with pytest.raises(ZeroDivisionError):
        run_command("test", command_of(Found(), files), [])
    assert (tmp_path / "a.json").read_text() == "figures\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FileNotFoundError(2, "No such file or directory", "/no/where"), "/no/where: No such"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("odd"), "odd"),
    ],
)
def test_what_the_system_refuses_is_one_line(
    error: OSError, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command("test", command_of(error, {}), []) is Exit.SERVICE
    progress, line = capsys.readouterr().err.splitlines()
    assert progress == "working"
    assert line.startswith(f"test: {said}")


@pytest.mark.parametrize("name", ["run", "compare", "audit", "bench", "crash", "soak", "reach"])
def test_every_command_finds_out_first_that_it_can_not_write(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("run")

    monkeypatch.setattr(uvloop, "run", never)
    (file := tmp_path / "file").write_text("")
    for output in (file / "x", tmp_path / ("x" * 300), file):
        assert run_command(name, COMMANDS[name], [f"--output={output}"]) is Exit.CONFIGURATION
        (line,) = capsys.readouterr().err.splitlines()
        assert str(output) in line


# --- Files ----------------------------------------------------------------------------------------


def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path: Path) -> None:
    (link := tmp_path / "link").symlink_to(tmp_path / "target")
    write_whole(link, "text")
    assert link.is_symlink()
    assert (tmp_path / "target").read_text() == "text\n"

    os.mkfifo(pipe := tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_whole(pipe, "through")
    reader.join(PATIENCE)
    assert read == ["through\n"]
    assert stat.S_ISFIFO(pipe.stat().st_mode), "as a device would have to stay one"


def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    require_writable(longest := tmp_path / ("x" * 255))
    write_whole(longest, "text")
    with pytest.raises(ReportError, match="too long"):
        require_writable(tmp_path / ("x" * 256))


def test_what_can_not_be_written_leaves_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file := tmp_path / "a.json").write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ReportError, match="No space left"):
        write_whole(file, "new")
    require_writable(file)
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("a.json", "old")]


# --- Exit codes -----------------------------------------------------------------------------------


def test_help_and_documentation_have_every_exit_code_with_its_meaning() -> None:
    shown = loadgen("--help").stdout
    documented = (ROOT / "docs" / "reference" / "commands.md").read_text()
    for code in Exit:
        assert f"  {code.value:<10} {code.meaning}\n" in shown
        assert f"| {code.value} | {code.meaning} |\n" in documented
    helped = {name: each for group in COMMAND_HELP.values() for name, each in group.items()}
    assert set(COMMANDS) == set(helped)
    for name, (about, example) in helped.items():
        assert f"  {name:<10} {about}\n" in shown
        # An example is a command line that can be read; only files and services may be missing.
        program, command, *flags = example.split()
        assert (program, command) == ("loadgen", name)
        COMMANDS[name].read(flags)


def test_an_unknown_command_gets_a_line_with_the_nearest_name() -> None:
    assert loadgen("compar").stderr == "loadgen: no command 'compar': did you mean compare?\n"


def test_a_shell_completes_commands_and_flags() -> None:
    script = loadgen("--completion").stdout
    ask = "COMP_WORDS=(loadgen run --chan); COMP_CWORD=2; _loadgen; echo ${COMPREPLY[@]}"
    done = subprocess.run(  # noqa: S603 - our own script
        ["/bin/bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["--channels", "--channel-skew"]


# --- Progress -------------------------------------------------------------------------------------


def test_a_pipe_gets_each_step_and_a_line_every_ten_seconds() -> None:
    now = 0.0
    console = Console(file=(text := io.StringIO()), width=200)
    with CommandProgress(console, lambda: now) as progress, progress.within("round 1: "):
        progress.step("measuring")
        for now in (4.0, 9.9, 10.0, 12.0, 20.1):
            progress.tick(now / 100, f"{now:g} messages/s")
    assert text.getvalue().splitlines() == [
        "round 1: measuring",
        "round 1: measuring: 10%, 10 messages/s",
        "round 1: measuring: 20%, 20.1 messages/s",
    ]
