"""The service as a process of ours: told why it failed, ended in order, never left behind."""

import asyncio
import json
import sys
from pathlib import Path

import psutil
import pytest

from connect_loadgen.service.process import ServiceError, ServiceOptions, ServiceProcess
from tests.support.process import PATIENCE

READY = json.dumps({"event": "ready", "listen": "a:1", "metrics": "b:2", "pid": 3})


def options(tmp_path: Path, script: str = "") -> ServiceOptions:
    """Return options for the real service, or for a script that stands in for it."""
    return ServiceOptions(
        strategy="full",
        journal="sqlite",
        data_dir=tmp_path / "data",
        **({"command": (sys.executable, "-c", script)} if script else {}),  # type: ignore[arg-type]
    )


SLEEPS = "time.sleep(600)"


def ready_then(what: str) -> str:
    return f"import signal, sys, time, os\nprint('{READY}', flush=True)\n{what}\n"


def stand_in(tmp_path: Path, does: str) -> ServiceProcess:
    """Return a process that says that it is ready, then does something else."""
    return ServiceProcess(options(tmp_path, ready_then(does)), PATIENCE)


async def test_a_started_service_says_where_it_is_and_stops_in_order(tmp_path: Path) -> None:
    async with ServiceProcess(options(tmp_path), PATIENCE) as service:
        assert psutil.Process(service.pid).is_running()
        assert service.listen.startswith("127.0.0.1:")
        assert service.metrics.startswith("127.0.0.1:")
        assert service.identity is not None
        assert len(service.identity) == 32
        await service.stop()
    assert not psutil.pid_exists(service.pid)


async def test_leaving_by_an_error_kills_the_service(tmp_path: Path) -> None:
    service = ServiceProcess(options(tmp_path), PATIENCE)
    with pytest.raises(KeyError):
        async with service:
            raise KeyError
    assert not psutil.pid_exists(service.pid)


async def test_killing_ends_the_service_though_it_holds_on(tmp_path: Path) -> None:
    stubborn = ready_then("signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)")
    async with ServiceProcess(options(tmp_path, stubborn), PATIENCE) as service:
        await service.kill()


async def test_what_a_wrapper_has_started_is_killed_with_it(tmp_path: Path) -> None:
    wrapper = (
        "import subprocess, sys, json\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print(json.dumps(dict(event='ready', listen='a:1', metrics='b:2', pid=child.pid)),"
        " flush=True)\n"
        "child.wait()\n"
    )
    async with ServiceProcess(options(tmp_path, wrapper), PATIENCE) as service:
        child = psutil.Process(service.pid)
    await asyncio.to_thread(child.wait, PATIENCE)


async def test_a_service_that_prints_much_is_not_held_up(tmp_path: Path) -> None:
    talkative = ready_then("print('x' * 1_000_000, flush=True)\nsys.exit(7)")
    service = ServiceProcess(options(tmp_path, talkative), PATIENCE)
    with pytest.raises(ServiceError, match="died: exit code 7"):
        async with service:
            await service.while_alive(asyncio.sleep(PATIENCE))


# --- Failures to start ----------------------------------------------------------------------------


async def start(options: ServiceOptions, patience: float = PATIENCE) -> None:
    async with ServiceProcess(options, patience):
        raise AssertionError("it started")


async def test_a_service_that_ends_at_once_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    script = "import sys\nfor n in range(99): print('line', n, file=sys.stderr)\nsys.exit(5)"
    with pytest.raises(ServiceError, match="did not start: exit code 5") as caught:
        await start(options(tmp_path, script))
    assert "line 98" in str(caught.value)
    assert "line 5\n" not in str(caught.value)


async def test_a_data_directory_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(ServiceError, match="did not start") as caught:
        await start(options(tmp_path))
    assert str(tmp_path / "data") in str(caught.value)
    assert "Traceback" not in str(caught.value)


async def test_a_command_that_does_not_exist_is_told(tmp_path: Path) -> None:
    missing = ServiceOptions("full", "sqlite", tmp_path, command=("/no/such/command",))
    with pytest.raises(ServiceError, match="can't execute /no/such/command"):
        await start(missing)


async def test_a_service_that_is_never_ready_is_given_up_and_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f"import os, time\nopen({str(pid_file)!r}, 'w').write(str(os.getpid()))\n"
    with pytest.raises(ServiceError, match="not ready within 1 s"):
        await start(options(tmp_path, f"{script}time.sleep(600)"), patience=1.0)
    assert not psutil.pid_exists(int(pid_file.read_text()))


@pytest.mark.parametrize(
    "line",
    ["hello", "[]", '{"event": "ready"}', '{"event": "starting"}', READY.replace("3", '"x"')],
)
async def test_a_first_line_that_is_not_ready_is_told(tmp_path: Path, line: str) -> None:
    with pytest.raises(ServiceError, match="something else than that it is ready"):
        await start(options(tmp_path, f"import time\nprint('{line}', flush=True)\ntime.sleep(60)"))


async def test_a_first_line_without_end_is_told(tmp_path: Path) -> None:
    endless = "import time\nprint('x' * 100_000, flush=True)\ntime.sleep(60)"
    with pytest.raises(ServiceError, match="something else than that it is ready"):
        await start(options(tmp_path, endless))


# --- Failures later -------------------------------------------------------------------------------


async def test_a_service_that_dies_interrupts_the_work_that_rests_on_it(tmp_path: Path) -> None:
    async with stand_in(tmp_path, SLEEPS) as service:
        given_up = asyncio.Event()

        async def work() -> None:
            try:
                newest = max(psutil.Process().children(), key=psutil.Process.create_time)
                newest.kill()
                await asyncio.sleep(PATIENCE)
            finally:
                given_up.set()

        with pytest.raises(ServiceError, match="the service died: killed by SIGKILL"):
            await service.while_alive(work())
        assert given_up.is_set()


async def test_the_death_of_the_service_is_better_news_than_what_it_broke(tmp_path: Path) -> None:
    async with stand_in(tmp_path, "sys.stdin.read()") as service:

        async def work() -> None:
            raise ConnectionError("a connection broke")

        with pytest.raises(ServiceError, match="the service died: exit code 0"):
            await service.while_alive(work())


async def test_work_that_fails_by_itself_is_told_as_it_is(tmp_path: Path) -> None:
    async with stand_in(tmp_path, SLEEPS) as service:

        async def work() -> None:
            raise ConnectionError("it is all my fault")

        with pytest.raises(ConnectionError, match="all my fault"):
            await service.while_alive(work())


async def test_a_service_that_ignores_sigterm_is_told_and_killed(tmp_path: Path) -> None:
    stubborn = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    script = f"{stubborn}{ready_then(SLEEPS)}"
    service = ServiceProcess(options(tmp_path, script), 1.0)
    with pytest.raises(ServiceError, match="did not stop within 1 s of SIGTERM"):
        async with service:
            await service.stop()


async def test_a_service_that_fails_while_stopping_is_told(tmp_path: Path) -> None:
    failing = "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
    async with ServiceProcess(
        options(tmp_path, f"{failing}{ready_then(SLEEPS)}"), PATIENCE
    ) as service:
        with pytest.raises(ServiceError, match="did not stop in order: exit code 9"):
            await service.stop()
