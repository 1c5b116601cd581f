"""How a program begins and ends, whatever it inherits from the process that starts it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.process import PATIENCE

# The program under test runs a function of this text; what it reports goes to descriptor 9.
_PROGRAM = """
import os, sys
from connect_actor.process.program import run_program
def report(*words):
    os.write(9, (" ".join(map(str, words)) + "\\n").encode())
def command():
{body}
    return 0
sys.exit(run_program("prog", command))
"""


class Ended:
    """What a program has left behind."""

    def __init__(self, code: int, reported: str, error: str) -> None:
        self.code = code
        self.reported = reported.split()
        self.error = error


def launched(inherited: str) -> list[str]:
    """Return a command that does this, then becomes what follows it."""
    program = f"import os, resource, signal, sys\n{inherited}\nos.execvp(sys.argv[1], sys.argv[1:])"
    return [sys.executable, "-c", program]


def run(
    body: str,
    tmp_path: Path,
    *,
    redirect: str = "",
    inherited: str = "",
    environment: dict[str, str] | None = None,
) -> Ended:
    """Run a program's body by a shell, with redirections as shells have them.

    Args:
        body: what the program does.
        tmp_path: where it reports.
        redirect: what the shell does with its descriptors.
        inherited: what the shell's parent does before it becomes the shell.
        environment: variables to be set.
    """
    program = _PROGRAM.format(body="\n".join(f"    {line}" for line in body.splitlines()))
    report, error = tmp_path / "report", tmp_path / "error"
    report.touch()
    done = subprocess.run(  # noqa: S603 - our own program
        [
            *launched(inherited),
            "/bin/bash",
            "-c",
            f'exec 2>"$3"; exec 9>"$2"; "$0" -c "$1" {redirect}',
            sys.executable,
            program,
            str(report),
            str(error),
        ],
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
        timeout=PATIENCE,
        check=False,
    )
    return Ended(done.returncode, report.read_text(), error.read_text())


# --- Descriptors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- 2>&-", "<&- >&- 2>&-"]
)
def test_closed_descriptors_are_dev_null_and_no_files_get_their_numbers(
    tmp_path: Path, closed: str
) -> None:
    ended = run(
        "file = open('/dev/zero')\n"
        "sys.stdin.read(); print('x'); print('x', file=sys.stderr)\n"
        "report(file.fileno() > 2, *(os.readlink(f'/proc/self/fd/{n}') for n in range(3)))",
        tmp_path,
        redirect=closed,
    )
    assert ended.code == 0
    assert ended.reported[0] == "True"
    for mark, found in zip(("<", ">", "2>"), ended.reported[1:], strict=True):
        if f" {mark}&-" in f" {closed}":
            assert found == "/dev/null"


def test_a_child_of_a_program_without_descriptors_has_them(tmp_path: Path) -> None:
    ended = run(
        "import subprocess\nreport(subprocess.run(['ls', '/proc/self/fd/0', '/proc/self/fd/1',"
        " '/proc/self/fd/2']).returncode)",
        tmp_path,
        redirect="<&- >&- 2>&-",
    )
    assert ended.reported == ["0"]


@pytest.mark.parametrize("code", [0, 1, 3])
def test_a_reader_that_has_gone_changes_no_exit_code(tmp_path: Path, code: int) -> None:
    body = f"sys.stdout.write('x' * 1_000_000)\nsys.stdout.flush()\nprint('y')\nreturn {code}"
    ended = run(body, tmp_path, redirect='| true; exit "${PIPESTATUS[0]}"')
    assert (ended.code, ended.error) == (code, "")


@pytest.mark.parametrize(("code", "expected"), [(0, 4), (1, 1), (3, 3)])
def test_output_that_cannot_be_written_is_told_and_never_a_success(
    tmp_path: Path, code: int, expected: int
) -> None:
    ended = run(f"print('x')\nreturn {code}", tmp_path, redirect=">/dev/full")
    assert ended.code == expected
    assert ended.error == "prog: the output can't be written: No space left on device\n"


def test_a_full_standard_error_is_no_failure(tmp_path: Path) -> None:
    assert run("sys.stderr.write('x\\n')", tmp_path, redirect="2>/dev/full").code == 0


def test_a_descriptor_that_does_not_block_loses_nothing(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    ended = run(
        "import threading\n"
        f"threading.Timer(0.3, lambda: open({str(begun)!r}, 'w').close()).start()\n"
        "os.set_blocking(1, False)\nsys.stdout.write('x' * 1_000_000)",
        tmp_path,
        # Not read before the pipe is full.
        redirect=f"| (until [ -e {begun} ]; do sleep 0.01; done; wc -c >&9);"
        ' exit "${PIPESTATUS[0]}"',
    )
    assert (ended.code, ended.reported, ended.error) == (0, ["1000000"], "")


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "no_SUCH.locale"},
        {},
    ],
)
def test_what_the_encoding_has_no_character_for_is_shown_all_the_same(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    if "LC_ALL" in environment and sys.version_info < (3, 12) and not __file__.isascii():
        pytest.skip("before 3.12 Python itself can't start: it reads the .pth in the locale's code")
    body = "for stream in (sys.stdout, sys.stderr): stream.write('\\xfc \\udcff\\n')"
    assert run(body, tmp_path, environment=environment).code == 0


# --- Signals, files -------------------------------------------------------------------------------


def test_signals_that_were_blocked_are_not(tmp_path: Path) -> None:
    ended = run(
        "import signal\nreport(len(signal.pthread_sigmask(signal.SIG_BLOCK, ())))",
        tmp_path,
        inherited="signal.pthread_sigmask(signal.SIG_SETMASK, {1, 2, 15})",
    )
    assert ended.reported == ["0"]


def test_how_a_child_ends_is_known_though_the_parent_did_not_care(tmp_path: Path) -> None:
    ended = run(
        "import subprocess\nreport(subprocess.run(['false']).returncode)",
        tmp_path,
        inherited="signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    )
    assert ended.reported == ["1"]


@pytest.mark.parametrize(("umask", "mode"), [(0o777, 0o600), (0o277, 0o600), (0o022, 0o644)])
def test_the_owner_may_use_what_is_made_under_any_umask(
    tmp_path: Path, umask: int, mode: int
) -> None:
    made = tmp_path / "made"
    for name in ("report", "error"):
        (tmp_path / name).touch()  # not by the shell, which has that umask, too
    body = f"open({str(made)!r}, 'w').close()"
    assert run(body, tmp_path, inherited=f"os.umask({umask})").code == 0
    assert made.stat().st_mode & 0o777 == mode


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a process the first one")
def test_the_first_process_of_a_container_ends_at_sigterm() -> None:
    program = _PROGRAM.format(
        body="    print('ready', flush=True)\n    __import__('time').sleep(99)"
    )
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as outer:  # noqa: S603
        assert outer.stdout is not None
        assert outer.stdout.readline() == "ready\n"
        (child,) = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert outer.wait(PATIENCE) == 143


# --- Ends -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("open('/no/such/file')", 3, "prog: /no/such/file: No such file or directory\n"),
        ("raise OSError('told so')", 3, "prog: told so\n"),
        ("os.mkdir(b'/dev/null')", 3, "prog: /dev/null: File exists\n"),
        ("raise KeyboardInterrupt", 130, "prog: interrupted\n"),
        ("sys.exit(2)", 2, ""),
        ("sys.exit()", 0, ""),
    ],
)
def test_an_end_is_one_line_and_an_exit_code_of_its_own(
    tmp_path: Path, body: str, code: int, said: str
) -> None:
    ended = run(body, tmp_path)
    assert (ended.code, ended.error) == (code, said)


def test_a_defect_is_told_from_every_result(tmp_path: Path) -> None:
    ended = run("1 / 0", tmp_path)
    assert ended.code == 70
    assert ended.error.endswith("ZeroDivisionError: division by zero\n")


# --- The programs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["connect_actor.cli", "connect_loadgen.cli"])
def test_both_programs_begin_so(module: str) -> None:
    for redirect, code in ((">/dev/full", 4), (">&- <&- 2>&-", 0), ("| true", 0)):
        done = subprocess.run(  # noqa: S603 - our own program
            [
                "/bin/bash",
                "-c",
                f'"$0" -m {module} --help {redirect}; exit "${{PIPESTATUS[0]}}"',
                sys.executable,
            ],
            timeout=PATIENCE,
            stderr=subprocess.PIPE,
            check=False,
        )
        assert done.returncode == code
        assert b"Traceback" not in done.stderr


def test_too_few_descriptors_are_told_at_once(tmp_path: Path) -> None:
    done = subprocess.run(  # noqa: S603 - our own program
        [
            *launched("resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))"),
            *(
                sys.executable,
                "-m",
                "connect_actor.cli",
                "serve",
                f"--data-dir={tmp_path / 'data'}",
            ),
        ],
        capture_output=True,
        timeout=PATIENCE,
        text=True,
        check=False,
    )
    assert done.returncode == 3
    assert done.stderr == (
        "connect-actor: 40 file descriptors are too few: raise the limit (ulimit -n) above 128\n"
    )
    assert not (tmp_path / "data").exists()
