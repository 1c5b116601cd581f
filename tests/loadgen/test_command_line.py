"""``loadgen`` as its user meets it: real processes, real services, real failures."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from connect_actor.access.tokens import new_token, token_line
from connect_loadgen.program.exits import Exit
from tests.support.certificates import make_authority
from tests.support.plain_user import as_plain_user, plain_users_directory
from tests.support.process import PATIENCE, Start, child_of, none_left
from tests.support.results import read, require_sound

# A load that is over in a moment.
SMALL = (
    "--channels=5",
    "--concurrency=64",
    "--frame-operations=16",
    "--warm-up-seconds=0",
    "--duration-seconds=0.3",
)
# What the service tells of its own processes. Writes are 0 where the data is on a tmpfs.
USED = ("cpu_seconds", "cpu_share", "peak_rss_bytes")
LONG = ("--channels=5", "--duration-seconds=600")


def loadgen(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "connect_loadgen.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )


@pytest.fixture
def long_run() -> Iterator[subprocess.Popen[str]]:
    """A run that has started its service and is under way."""
    process = subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "connect_loadgen.cli", "run", *LONG],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.communicate()


def service_of(run: subprocess.Popen[str]) -> psutil.Process:
    """Return the service that a run has started, once it is there."""
    return child_of(
        run,
        lambda child: (
            "connect_actor.cli" in child.cmdline() and child.memory_info().rss > 40_000_000
        ),
    )


# --- Runs that succeed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        ("--transport=stream",),
        ("--transport=unary", "--concurrency=8"),
        ("--transport=stream", "--rate=500"),
        ("--transport=unary", "--rate=100"),
        ("--round-trip-weight=1", "--encrypt-weight=0", "--decrypt-weight=0"),
        ("--out-of-order=0.3", "--skipped-keys=20"),
        ("--strategy=full", "--snapshot-interval=3", "--dh-ratchet-every=1"),
        ("--journal=memory", "--router=awaiting"),
    ],
    ids=" ".join,
)
def test_a_run_verifies_every_answer(tmp_path: Path, how: tuple[str, ...]) -> None:
    output = tmp_path / "run.json"
    done = loadgen("run", *SMALL, *how, f"--output={output.parent}")
    require_sound(done.returncode, read(output))
    result = json.loads(output.read_text())["sides"]["run"]["rounds"][0]
    load = result["load"]
    assert load["messages"] > 10
    assert load["operations_finished"] == load["operations_sent"]
    assert load["verification_failures"] == 0
    assert load["errors"] == {}
    assert result["cost"]["records"] >= load["messages"]
    assert (load["intended_rate"] is not None) == any("--rate" in flag for flag in how)


def test_the_same_load_reaches_a_service_that_runs(start: Start, tmp_path: Path) -> None:
    service = start()
    output = tmp_path / "run.json"
    target = (
        f"--target={service.ready['listen']}",
        f"--target-metrics={service.ready['metrics']}",
    )
    done = loadgen("run", *SMALL, *target, f"--output={output.parent}")
    require_sound(done.returncode, read(output))
    result = json.loads(output.read_text())["sides"]["run"]["rounds"][0]
    assert result["cost"]["records"] == result["load"]["messages"]
    told = {name: result["cost"][name] for name in USED}
    assert all(figure > 0 for figure in told.values()), told
    # Where its data is, is its own.
    assert result["cost"]["file_growth_bytes"] is None
    assert service.signal(signal.SIGTERM) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_plain_user_learns_what_the_service_used(workers: int) -> None:
    with plain_users_directory() as directory:
        output = directory / "run.json"
        ran = subprocess.run(  # noqa: S603 - our own command
            as_plain_user(
                *(sys.executable, "-m", "connect_loadgen.cli", "run", *SMALL),
                *(f"--workers={workers}", f"--output={output.parent}"),
            ),
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
            check=False,
            env={**os.environ, "HOME": str(directory)},
        )
        assert ran.returncode == 0, ran.stderr
        cost = json.loads(output.read_text())["sides"]["run"]["rounds"][0]["cost"]
    told = {name: cost[name] for name in (*USED, "file_growth_bytes")}
    assert all(figure > 0 for figure in told.values()), told


@pytest.mark.parametrize("processes", [1, 2])
def test_the_same_load_reaches_a_service_that_wants_to_know_who_calls(
    start: Start, tmp_path: Path, processes: int
) -> None:
    authority, token = make_authority(), new_token()
    service_files = authority.issue("service").write(tmp_path, "service")
    own_files = authority.issue("generator").write(tmp_path, "generator")
    root, _ = authority.write(tmp_path, "root")
    hashes, secret = tmp_path / "hashes", tmp_path / "token"
    hashes.write_text(f"{token_line('generator', token)}\n")
    secret.write_text(f"{token}\n")
    service = start(
        f"--tls-certificate={service_files[0]}",
        f"--tls-private-key={service_files[1]}",
        f"--tls-client-ca={root}",
        f"--token-file={hashes}",
    )
    target = (f"--target={service.ready['listen']}", f"--target-tls-ca={root}")
    shown = (
        f"--target-tls-certificate={own_files[0]}",
        f"--target-tls-private-key={own_files[1]}",
        f"--target-token-file={secret}",
    )
    output = tmp_path / "run.json"
    beside = (f"--processes={processes}", "--churn-rate=20", "--storms=reconnect@0.1")
    done = loadgen("run", *SMALL, *beside, *target, *shown, f"--output={output.parent}")
    require_sound(done.returncode, read(output))
    load = json.loads(output.read_text())["sides"]["run"]["rounds"][0]["load"]
    assert load["errors"] == {}
    assert load["lifecycle"].keys() == {"establish", "close", "reconnect"}
    assert token not in output.read_text()

    secret.write_text(new_token())
    refused = loadgen("run", *SMALL, *target, *shown)
    assert "UNAUTHENTICATED" in refused.stderr
    # Without what it wants to see nobody gets so far.
    refused = loadgen("run", *SMALL, *target, "--timeout-seconds=1")
    assert "is the service running there, and by TLS?" in refused.stderr


def test_a_run_in_a_pipe_tells_its_course_and_where_it_serves_metrics() -> None:
    telling = loadgen("run", *SMALL, "--journal=memory", "--serve-metrics=127.0.0.1:0")
    assert re.search(
        r"^serving the generator's metrics at http://127\.0\.0\.1:\d+/metrics$",
        telling.stderr,
        re.MULTILINE,
    )
    assert telling.returncode in {Exit.RIGHT, Exit.INVALID}
    steps = ["starting the service, strategy differential", "measuring, 0.3 s"]
    assert all(step in telling.stderr.splitlines() for step in steps)


# --- Failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "--channels=0"), "--channels"),
        (("run", "--strategy=fastest"), "--strategy"),
        (("run", "--payload-bytes=64,huge"), "--payload-bytes"),
        (("run", "--target=nowhere"), "--target: expected host:port"),
        (("run", "--target=127.0.0.1:1", "--strategy=full"), "--strategy can't be obeyed"),
        (
            ("run", "--target=127.0.0.1:1", "--target-token-file=/no/token"),
            "what --target requires can't be read: [Errno 2]",
        ),
        (("run", "--concurrency=1"), "can't fill a frame"),
        (("run", "--no-such-flag=1"), "no-such-flag"),
        (("run", "--config=/no/such/file"), "/no/such/file"),
        (("compare", "--rounds=0"), "--rounds"),
        (("audit", "--channel-rate=0"), "--channel-rate"),
        (("dance",), "no command 'dance'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_bad_configuration_is_one_clear_line(arguments: tuple[str, ...], said: str) -> None:
    refused = loadgen(*arguments)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1


def test_a_service_that_cannot_listen_is_reported_with_its_own_words(start: Start) -> None:
    taken = start().ready["listen"]
    failed = loadgen("run", *SMALL, f"--listen={taken}")
    assert failed.returncode == 3
    assert f"can't listen on {taken}" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_a_service_that_does_not_start_is_reported() -> None:
    command = shlex.join((sys.executable, "-c", "import sys; sys.exit('no licence')"))
    failed = loadgen("run", *SMALL, f"--service-command={command}")
    assert failed.returncode == 3
    assert "no licence" in failed.stderr


def test_a_target_where_nobody_answers_is_reported() -> None:
    failed = loadgen("run", *SMALL, "--target=127.0.0.1:1", "--timeout-seconds=1")
    assert failed.returncode == 3
    assert "nobody answers at 127.0.0.1:1" in failed.stderr


def test_a_service_that_dies_in_mid_run_is_reported(long_run: subprocess.Popen[str]) -> None:
    service_of(long_run).kill()
    _, said = long_run.communicate(timeout=PATIENCE)
    assert long_run.returncode == 3
    assert "killed by SIGKILL" in said
    assert "Traceback" not in said


def test_a_run_that_is_killed_leaves_no_service_behind(long_run: subprocess.Popen[str]) -> None:
    service = service_of(long_run)
    os.kill(long_run.pid, signal.SIGKILL)
    assert none_left([service])


def test_a_wrong_answer_fails_the_run(tmp_path: Path) -> None:
    liar = tmp_path / "liar.py"
    liar.write_text(
        "import sys\n"
        "from connect_actor.cli import main\n"
        "from connect_actor.rpc import operations\n"
        "honest = operations._fill_decrypted\n"
        "def lie(response, answer):\n"
        "    honest(response, answer[:-1] + b'!')\n"
        "object.__setattr__(operations.OPERATIONS['decrypt'], 'fill', lie)\n"
        "sys.exit(main())\n"
    )
    output = tmp_path / "run.json"
    command = f"--service-command={shlex.join((sys.executable, str(liar)))}"
    caught = loadgen("run", *SMALL, command, f"--output={output.parent}")
    assert caught.returncode == 1
    assert (
        json.loads(output.read_text())["sides"]["run"]["rounds"][0]["load"]["verification_failures"]
        > 0
    )
